"""Any linear Top-1 router on isotropic tokens: its cells A_i = {x : <w_i,x> largest}, their shares and centroids.

Gauss-Green turns E[x 1_{A_i}] into a sum over the facets of the cell, each weighted with an orthant probability:

    E[x 1_{A_i}] = Σ_{j≠i} (w_i-w_j)/|w_i-w_j| φ(0) P(facet ij)

Up to four gates everything is in closed form; more gates are estimated by sampling in the span of the gates, at a cost
free of dim, with standard errors. Only differences of gates matter: a common vector added to all changes no cell.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments

__all__ = ["Cells", "Scatter", "cells", "orthant", "scatter"]

Floats = NDArray[np.float64]

_EXACT = 4  # gates up to which every orthant probability is elementary
_BATCHES = 64


@dataclass(frozen=True)
class Cells:
    """share: (n,) P(A_i); mean: (n, d) E[x 1_{A_i}]; with their standard errors, 0 where the values are exact."""

    share: Floats
    mean: Floats
    share_error: Floats
    mean_error: Floats


class Scatter(NamedTuple):
    """Between/within ratio and its standard error, 0 where the ratio is exact."""

    ratio: float
    error: float


def orthant(vectors: ArrayLike) -> Floats:
    """P(<v_i, x> >= 0 for every i), x standard normal, for vectors (..., k, d), k <= 3, none of them 0.

    1, 1/2, 1/2 - α/(2π), 1/2 - Σ α_ij/(4π) with the angles α between the vectors (Sheppard 1899). Absolute error
    below 1e-14, also where vectors are nearly parallel. They may be dependent.

    >>> from resonance_theory.homogenization import cells
    >>> print(f"{float(cells.orthant([[1.0, 0.0], [1.0, 1.0]])):.6g}")
    0.375
    """
    v = arguments.real("vectors", vectors)
    if v.ndim < 2 or v.shape[-2] > _EXACT - 1:
        raise ValueError(f"vectors has shape {v.shape} but must have shape (..., k, d) with k at most {_EXACT - 1}")
    largest = np.abs(v).max(axis=-1, keepdims=True, initial=0.0)
    if np.any(largest == 0):
        raise ValueError("vectors holds a zero vector but every one must have a direction")
    v = v / largest  # squares must neither overflow nor vanish
    u, k = v / np.linalg.norm(v, axis=-1, keepdims=True), v.shape[-2]
    total = np.full(v.shape[:-2], 0.5**k)
    for i, j in itertools.combinations(range(k), 2):
        # the angle by both diagonals of the rhombus: arccos loses half the digits near 0 and π
        sides = (np.linalg.norm(u[..., i, :] + s * u[..., j, :], axis=-1) for s in (-1, 1))
        total += (math.pi / 2 - 2 * np.arctan2(*sides)) * 2.0 ** (1 - k) / math.pi
    return np.maximum(total, 0.0)


def _gates(gates: ArrayLike) -> Floats:
    w = arguments.real("gates", gates)
    if w.ndim != 2 or w.shape[0] < 2 or w.shape[1] < 1:
        raise ValueError(f"gates has shape {w.shape} but must have shape (experts, dim) with at least 2 experts")
    w = w - w.mean(axis=0)
    largest = np.abs(w).max()
    w = w / largest if largest > 0 else w  # cells do not depend on the scale
    gap = np.linalg.norm(w[:, None] - w[None], axis=-1) + np.eye(len(w))
    if gap.min() < 1e-12:
        i, j = (int(v) for v in np.argwhere(gap < 1e-12)[0])
        raise ValueError(f"gates {i} and {j} are equal to 12 digits but gates must be distinct")
    return w


def _exact(w: Floats) -> Cells:
    n = len(w)
    edges = w[:, None] - w[None]
    share, mean = np.empty(n), np.zeros_like(w)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        share[i] = orthant(edges[i, others])
        for j in others:
            normal = edges[i, j] / np.linalg.norm(edges[i, j])
            walls = edges[i, [k for k in others if k != j]]
            along = walls - np.outer(walls @ normal, normal)
            if np.any(np.linalg.norm(along, axis=-1) < 1e-12 * np.linalg.norm(walls, axis=-1)):
                raise ValueError(f"gates {i} and {j} lie on a line with a third but no three gates may")
            mean[i] += normal * orthant(along) / math.sqrt(2 * math.pi)
    return Cells(share, mean, np.zeros_like(share), np.zeros_like(mean))


def _sampled(w: Floats, rng: np.random.Generator, draws: int) -> tuple[Floats, Floats, Floats]:
    """Shares and means by batch, (batches, n) and (batches, n, r), in an orthonormal basis (r, d) of the gates' span."""
    _, size, basis = np.linalg.svd(w, full_matrices=False)
    basis = basis[size > 1e-12 * size[0]]
    inside = w @ basis.T
    count = -(-draws // _BATCHES)
    step = max(1, (1 << 21) // len(w))
    share, mean = np.zeros((_BATCHES, len(w))), np.zeros((_BATCHES, len(w), len(basis)))
    for batch in range(_BATCHES):
        for start in range(0, count, step):
            x = rng.standard_normal((min(step, count - start), len(basis)))
            winner = (x @ inside.T).argmax(axis=1)
            share[batch] += np.bincount(winner, minlength=len(w))
            mean[batch] += (winner == np.arange(len(w))[:, None]).astype(np.float64) @ x
    return share / count, mean / count, basis


def _options(experts: int, rng: Any, draws: Any) -> int:
    count = arguments.whole("draws", draws, 2 * _BATCHES)
    if experts > _EXACT and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a {type(rng).__name__} but must be a numpy.random.Generator for over {_EXACT} gates")
    return count


def cells(gates: ArrayLike, *, rng: np.random.Generator | None = None, draws: int = 1 << 20) -> Cells:
    """Shares and first moments of the cells of a router for x ~ N(0, I_d); gates: (experts, dim), distinct.

    Exact for up to four gates. Beyond, unbiased estimates from about `draws` projected tokens of the generator `rng`,
    with standard errors. Σ_i <w_i, mean_i> is the expected winning projection.

    Claim: gate_facets.
    """
    w = _gates(gates)
    draws = _options(len(w), rng, draws)
    if rng is None or len(w) <= _EXACT:
        return _exact(w)
    share, mean, basis = _sampled(w, rng, draws)

    def error(batches: Floats) -> Floats:
        return batches.std(axis=0, ddof=1) / math.sqrt(len(batches))

    return Cells(share.mean(axis=0), mean.mean(axis=0) @ basis, error(share), error(mean @ basis))


def _between(share: Floats, mean: Floats) -> Floats:
    """Σ_i |E[x 1_i]|²/P(A_i), over leading axes; an expert that got no token adds nothing."""
    square = (mean * mean).sum(axis=-1)
    return np.divide(square, share, out=np.zeros_like(square), where=share > 0).sum(axis=-1)


def scatter(gates: ArrayLike, *, rng: np.random.Generator | None = None, draws: int = 1 << 20) -> Scatter:
    """Between/within scatter (ETR eq. 13) of the tokens x ~ N(0, I_d) that a Top-1 router with these gates sends out.

    Exact for up to four gates; beyond, a jackknife estimate with its standard error (its bias is of smaller order).
    For orthonormal gates this is `homogenization.token_choice_scatter`. Claim: gate_facets.
    """
    w = _gates(gates)
    draws, dim = _options(len(w), rng, draws), w.shape[1]
    if rng is None or len(w) <= _EXACT:
        exact = _exact(w)
        b = float(_between(exact.share, exact.mean))
        return Scatter(b / (dim - b), 0.0)
    share, mean, _ = _sampled(w, rng, draws)
    m = len(share)
    whole = _between(share.mean(axis=0), mean.mean(axis=0))
    without = _between((share.sum(axis=0) - share) / (m - 1), (mean.sum(axis=0) - mean) / (m - 1))
    ratio, left_out = whole / (dim - whole), without / (dim - without)
    error = math.sqrt((m - 1) * float(left_out.var()))
    return Scatter(float(m * ratio - (m - 1) * left_out.mean()), error)
