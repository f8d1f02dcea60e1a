"""Affinity mass at a finite number of tokens: the chance that a candidate is kept, for any law of the candidates.

With A the sum of the affinities above a candidate's own a, S the sum of all, it is kept iff S > 0 and A < mass S, which is

    a > 0  and  Σ_t Y_t < mass a,   Y_t = 1{t is a candidate} δ_t (1{δ_t > a} - mass)  over the other tokens

(claim adaptive_exact; a > 0 makes A >= 0, so that A < mass S implies S > 0). The Y_t are independent: the characteristic
function of the sum is a power of one Laplace-Fourier integral, inverted by Gil-Pelaez's formula on a midpoint grid (whose
error is the chance of straying a period from the mean). No candidate, and a single one, are taken out first: what is left
has no atom and falls like the inverse square of the frequency.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Candidates", "average", "chance", "cut"]

Floats = NDArray[np.float64]

_X, _W = np.polynomial.legendre.leggauss(4)
_SURE = 36.0  # nats: what strays further has probability below 1e-15
_FREQUENCIES, _BLOCK = 1 << 13, 128  # at most, and at a time
_REST = 1e-5  # of the characteristic function: leaves out less than 2e-6


class Candidates(NamedTuple):
    """The affinity of one expert's candidates, in y = artanh(affinity).

    density(y): its mass is the load π; tail(affinity): h, the mass above; edges: rising, 0 among them, the density
    smooth between them and 0 outside.
    """

    density: Callable[[Floats], Floats]
    tail: Callable[[Floats], Floats]
    edges: Floats

    @staticmethod
    def of(
        density: Callable[[Floats], Floats],
        tail: Callable[[Floats], Floats],
        low: float,
        high: float,
        *,
        tokens: int,
        mass: float,
        kinks: ArrayLike = (),
    ) -> Candidates:
        """Panels on [low, high], as narrow as the fluctuations of `tokens` tokens and the kinks of the chance ask for.

        Few tokens make the chance less smooth: it bends where one more candidate can fill the share by itself. In few
        dimensions the density has long, light tails, so most panels lie between -4 and 4, where all but 1e-3 of the mass is.
        """
        bend = np.arctanh((1 - mass) / mass) if 0.5 < mass < 1 else 0.0
        extra = np.append(np.asarray(kinks, dtype=np.float64), [bend, -bend])
        panels = 512 if tokens <= 32 else int(np.clip(8 * np.sqrt(tokens), 256, 2560))
        ends = [min(low, -1e-3), 0.0, max(high, 1e-3)]
        inside = extra[(extra > low) & (extra < high)]
        even = np.linspace(max(low, -4.0), min(high, 4.0), panels + 1)
        outside = np.linspace(low, high, panels // 4 + 1) if max(-low, high) > 4 else even
        return Candidates(density, tail, np.unique(np.concatenate([even, outside, inside, ends])))

    def masses(self) -> tuple[Floats, Floats]:
        """Affinities of the nodes and their masses, (panels, nodes)."""
        half = 0.5 * np.diff(self.edges)[:, None]
        y = self.edges[:-1, None] + half * (1 + _X)
        return np.tanh(y), half * _W * self.density(y.ravel()).reshape(y.shape)


def average(
    weight: Callable[[Floats], Floats], value: Callable[[Floats], Floats], edges: Floats, beyond: float = 0.0
) -> float:
    """The integral of weight * value over the positive y, up to the last edge or, in the same steps, to `beyond`."""
    edges = edges[edges >= 0]
    if beyond > edges[-1]:
        steps = int(np.ceil((beyond - edges[-1]) / max(edges[-1] - edges[-2], 1e-2))) + 1
        edges = np.append(edges[:-1], np.linspace(edges[-1], beyond, steps + 1))
    half = 0.5 * np.diff(edges)[:, None]
    y = (edges[:-1, None] + half * (1 + _X)).ravel()
    return float(np.sum((half * _W).ravel() * weight(y) * value(y)))


def cut(candidates: Candidates, mass: float) -> float:
    """The limit of many tokens: the affinity a > 0 above which lies the share `mass` of the candidates' affinity.

    1 where that affinity is at most 0 in the mean: the expert then keeps none.
    """
    from scipy import optimize

    affinity, weight = candidates.masses()
    panels = (affinity * weight).sum(axis=1)
    total = float(panels.sum())
    if not total > 1e-14:
        return 1.0
    edges = candidates.edges
    beyond = np.append(np.cumsum(panels[::-1])[::-1], 0.0)  # affinity above each edge; falls from 0 on
    first = int(np.searchsorted(edges, 0.0))
    i = first + int(np.clip(np.searchsorted(-beyond[first:], -mass * total) - 1, 0, edges.size - first - 2))

    def excess(y: float) -> float:
        half = 0.5 * (edges[i + 1] - y)
        nodes = y + half * (1 + _X)
        return float(beyond[i + 1] + half * _W @ (np.tanh(nodes) * candidates.density(nodes))) - mass * total

    for end, beyond_it in ((edges[i], excess(edges[i]) <= 0), (edges[i + 1], excess(edges[i + 1]) >= 0)):
        if beyond_it:  # by rounding, or a share so small that its affinity is not resolved
            return float(np.tanh(end))
    return float(np.tanh(optimize.brentq(excess, edges[i], edges[i + 1], xtol=1e-15)))


def chance(candidates: Candidates, mass: float, others: int) -> Callable[[Floats], Floats]:
    """P(kept | candidate, y) among `others` other tokens, as a function of y = artanh(affinity) >= 0."""
    from scipy import interpolate

    affinity, weight = candidates.masses()
    edges = candidates.edges
    first = int(np.searchsorted(edges, 0.0))
    at = np.tanh(edges[first:])

    def above(order: int) -> Floats:
        """Moments of the candidates above each edge from 0 on, and in the last place the whole."""
        panels = (affinity**order * weight).sum(axis=1)
        return np.append(np.cumsum(panels[::-1])[::-1][first:], [0.0, panels.sum()])

    load = float(weight.sum())
    one, two = above(1), above(2)
    mean = one[:-1] - mass * one[-1]
    variance = (1 - 2 * mass) * two[:-1] + mass**2 * two[-1] - mean**2
    largest = float(np.abs(np.tanh(edges[[0, -1]])).max())
    gap = mass * at - others * mean  # kept unless the sum strays above its mean by this much
    # Bernstein: beyond `reach` on either side the answer is 0 or 1
    width = (largest + np.abs(mean)) * _SURE / 3
    reach = width + np.sqrt(width**2 + 2 * _SURE * others * np.maximum(variance, 0.0))
    result = (gap > 0).astype(np.float64)
    near = np.flatnonzero(np.abs(gap) < reach)
    if near.size:
        result[near] = _inverted(candidates, mass, others, load, at, first, near, float((2 * reach[near]).max()))
    spline = interpolate.CubicSpline(edges[first:], result)
    return lambda y: np.clip(spline(np.clip(y, 0.0, edges[-1])), 0.0, 1.0)


def _inverted(
    candidates: Candidates,
    mass: float,
    others: int,
    load: float,
    at: Floats,
    first: int,
    near: NDArray[np.intp],
    period: float,
) -> Floats:
    """P(Σ Y < mass a) at the affinities at[near]."""
    affinity, weight = candidates.masses()
    a = at[near]
    # at mass = 1 candidates above have Y = 0 and count as none
    none = 1 - load + np.asarray(candidates.tail(a)) * float(mass == 1)
    empty = none**others
    single = others * none ** max(others - 1, 0) if others else 0.0 * none
    low = np.asarray(candidates.tail(-a))
    between = low - np.asarray(candidates.tail(a))  # -mass δ < mass a
    further = np.minimum(mass * a / (1 - mass), 1.0) if mass < 1 else a
    beside = np.asarray(candidates.tail(a)) - np.asarray(candidates.tail(np.maximum(further, a)))
    total = 1 - empty - single * (1 - none)
    result = empty + single * (between + beside) + 0.5 * total
    step = 2 * np.pi / period
    count = np.arange(_BLOCK)
    phases = [1j * step * (1 - mass) * affinity, -1j * step * mass * affinity]
    powers = [np.exp(count[:, None, None] * phase) for phase in phases]
    for start in range(0, _FREQUENCIES, _BLOCK):
        u = (start + count + 0.5) * step
        up, down = (
            np.einsum("upx,px->up", power, weight * np.exp((start + 0.5) * phase))
            for power, phase in zip(powers, phases)
        )
        psi = np.zeros((_BLOCK, up.shape[1] + 1), dtype=np.complex128)
        if mass < 1:
            psi[:, :-1] = np.cumsum(up[:, ::-1], axis=1)[:, ::-1]
        psi[:, 1:] += np.cumsum(down, axis=1)
        psi = psi[:, first:][:, near]
        rest = (none + psi) ** others - empty - single * psi
        result -= step / np.pi * ((np.exp(-1j * mass * u[:, None] * a) * rest).imag / u[:, None]).sum(axis=0)
        if np.abs(rest).max() < _REST:
            break
    return np.clip(result, 0.0, 1.0)
