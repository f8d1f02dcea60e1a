"""The planted model: the joint law of (affinity, hit, false positives, candidate tail) as quadrature nodes.

Setting. `experts` gates are orthonormal in R^`dim` and the affinity of a token to a gate is the cosine between them.
A class-irrelevant token has a uniform direction. The class-discriminative token of expert i is `theta w_i + sigma z`
with z standard normal; only `signal = theta / sigma` matters. Every function takes scalars or arrays, broadcasts them like a
NumPy ufunc and returns float64 (a scalar for scalars).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.tokens._integration import dimension, log_cosh, signal_value, support
from resonance_theory.tokens.candidates import candidate_tail_at, hit_given_affinity
from resonance_theory.tokens.caps import upper_cap
from resonance_theory.tokens.signals import log_tilt

__all__ = ["Planted", "planted"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Planted:
    """The joint law of the discriminative token's affinity and its rates, as quadrature nodes on the last axis."""

    affinity: Floats  #: nodes, rising
    weight: Floats  #: sums to 1 over the last axis
    hit: Floats  #: P(hit | affinity)
    false_positive: Floats  #: q(affinity)
    candidate_tail: Floats  #: h(affinity)


def _kinks(d: int, n: int) -> Floats:
    """Affinities (as artanh) where hit or h is not smooth to order 12: plus and minus 1/sqrt(k), 2 <= k <= n.

    There k affinities can just be equal, and hit behaves like |1 - k a^2|^((d + k - 4)/2) on one side.
    """
    k = np.arange(2, min(n, 28 - d) + 1)
    y = np.arctanh(1 / np.sqrt(k))
    return np.sort(np.concatenate([-y, y]))


@functools.lru_cache(maxsize=256)
def _gauss(count: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on [0, 1]; SciPy's take count^2 operations, NumPy's count^3."""
    x, w = special.roots_legendre(count)
    return 0.5 * (1 + x), 0.5 * w


def _nodes(theta: float, d: int, n: int, nodes: int) -> tuple[Floats, Floats, Floats]:
    """y = artanh(affinity), log of its unnormalised density, and quadrature weight without the density."""
    nu = d - 1

    def log_f(y: Floats) -> Floats:
        decay = theta * np.exp(-log_cosh(np.maximum(y, 0.0)))
        return -nu * log_cosh(y) - 0.5 * decay**2 + log_tilt(theta * np.tanh(y), float(d))

    def log_fq(y: Floats) -> Floats:
        q = upper_cap(np.tanh(np.abs(y)), np.array(float(d)), np.exp(-2 * log_cosh(y)))
        return log_f(y) + np.log(np.maximum(np.where(y >= 0, q, 1 - q), 1e-300))

    far = 46.0 / nu + 2.0
    ends = np.array([[-far]]), np.array([[far + np.log1p(theta)]])
    # Failures come from low affinities: keep what matters to E q (hence to P(miss) <= (experts - 1) E q) as well.
    # As q falls with the affinity, this end lies below the one for the density alone.
    left = float(support(log_fq, *ends)[0][0, 0])
    right = float(support(log_f, *ends)[1][0, 0])
    cuts = _kinks(d, n)
    cuts = np.concatenate([[left], cuts[(cuts > left) & (cuts < right)], [right]])
    if cuts.size == 2:
        # Analytic and negligible at both ends: equal steps converge geometrically.
        y = left + (right - left) * (np.arange(nodes) + 0.5) / nodes
        return y, log_f(y), np.ones(nodes)
    # Between two kinks the map 3t^2 - 2t^3 turns half-integer powers at the ends into analytic functions of t.
    pieces = cuts.size - 1
    share = np.diff(cuts) / (right - left) * 0.5 + 0.5 / pieces
    bounds = np.rint(nodes * np.concatenate([[0.0], np.cumsum(share)])).astype(int)
    bounds[-1] = nodes
    y, weight = np.empty(nodes), np.empty(nodes)
    for i in range(pieces):
        part = slice(bounds[i], bounds[i + 1])
        t, w = _gauss(int(bounds[i + 1] - bounds[i]))
        y[part] = cuts[i] + (cuts[i + 1] - cuts[i]) * t * t * (3 - 2 * t)
        weight[part] = w * t * (1 - t) * (cuts[i + 1] - cuts[i])
    return y, log_f(y), weight


@arguments.broadcasting
def planted(signal: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1, nodes: int = 1024) -> Planted:
    """The joint law of affinity, hit, false-positive rate and candidate tail for planted tokens (G5).

    signal >= 0, dim >= 2, 1 <= experts <= dim, 1 <= top <= experts broadcast to a shape; every array of the result
    has that shape plus a last axis of `nodes` (at least 64). `weight` sums to 1 there, so that

        law = planted(2.5, 64, 8)
        resonance.success(256, 12, hit=law.hit, candidate_tail=law.candidate_tail, weight=law.weight)

    is the exact success rate.

    Error of such averages. The nodes cover all of the law and of E q but e^-42; hits and false positives average to
    `hit_rate` and `false_positive` within 1e-12. A rule's P(Bin(tokens - 1, h) < capacity) is a step in h of relative
    width 1/sqrt(capacity), which the nodes must resolve: the default 1024 give 1e-12 for capacities up to 64; above,
    take nodes >= 128 sqrt(capacity), and compare with twice as many where it matters. (At capacity 500 the default is
    off by up to 1e-10, and by up to 1e-4 in dim <= 26, where the nodes are shared out between kinks.)
    Raises TypeError or ValueError outside the ranges above.
    """
    whole = arguments.integer("nodes", nodes, 64)
    if whole.ndim:
        raise TypeError(f"nodes has shape {whole.shape} but must be a single whole number of at least 64")
    count = int(whole)
    d_ = dimension(dim)
    n_ = arguments.integer("experts", experts, 1, d_, "dim")
    theta, d, n, k = np.broadcast_arrays(signal_value(signal), d_, n_, arguments.integer("top", top, 1, n_, "experts"))
    shape = (*theta.shape, count)
    affinity, square, weight = np.empty(shape), np.empty(shape), np.empty(shape)
    for index in np.ndindex(theta.shape):
        y, log_f, w = _nodes(float(theta[index]), int(d[index]), int(n[index]), count)
        mass = w * np.exp(log_f - log_f.max())
        affinity[index] = np.tanh(y)
        square[index] = np.cosh(y) ** -2.0  # 1 - affinity^2, which rounding of the affinity would lose near 1
        weight[index] = mass / mass.sum()
    d, n, k = (np.broadcast_to(v[..., None], shape) for v in (d, n, k))
    q = upper_cap(np.abs(affinity), d.astype(np.float64), square)
    q = np.where(affinity >= 0, q, 1 - q)
    tail = candidate_tail_at(*(np.ravel(v) for v in (affinity, d, n, k, q)))
    return Planted(
        affinity=affinity,
        weight=weight,
        hit=hit_given_affinity(affinity, d, n, top=k),
        false_positive=q,
        candidate_tail=tail.reshape(shape),
    )
