"""Rivals from other samples: the candidate tail of their discriminative tokens, for samples that pool their slots."""

from __future__ import annotations

import math

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.tokens import gaussian
from resonance_theory.typing import ArrayLike, Floats, NDArray

__all__ = ["rival"]


@arguments.broadcasting
def rival(affinity: ArrayLike, signal: float, dim: int, experts: int, *, top: int = 1) -> Floats:
    """κ(a) of the planted model: P(a planted token of uniform class has expert i among its `top` best, affinity >= a).

    affinity: in (-1, 1), any shape; signal θ in [0, 10^4], in [0, 6] for dim below 32; 2 <= experts <= dim, dim >= 8;
    1 <= top <= experts. Absolute error below 1e-11 from dim 32 on (`tokens.gaussian`), and 1e-6 below, where more than 64
    affinities are interpolated, to 1e-5. For tokens with other means: `Evolving.rival`.

    Below dim 32: with probability 1/n the token's mean θ lies on gate i, else on another one. Given its projection u on
    gate i, expert i is chosen if fewer than `top` other projections exceed u, and the affinity is >= a if T, the squared
    norm of all that is orthogonal to the gate, is at most u²(1/a²-1) (u > 0). With q = 1+2p each projection of mean μ gives
    E[e^{-px²}; x < u] = q^{-1/2} exp(-pμ²/q) Φ(√q (u - μ/q)), so the joint law of both comes by Laplace inversion.

    Claim: batch_resonance.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.rival(0.25, signal=2.5, dim=64, experts=8)):.6g}")
    0.0900284
    """
    a = arguments.real("affinity", affinity, -1.0, 1.0, open_low=True, open_high=True)
    d = arguments.whole("dim", dim, 8)
    theta = arguments.number("signal", signal, 0.0, 1e4 if d >= 32 else 6.0)
    n = arguments.whole("experts", experts, 2, d, "dim")
    most = arguments.whole("top", top, 1, n, "experts")
    if d >= 32:
        token = gaussian.Gaussian((theta, *(n - 1) * [0.0]), 0.0, d)
        own, other = (token.candidate_tail(a, expert, top=most) for expert in (0, 1))
        return np.asarray((own + (n - 1) * other) / n)

    def at(value: float) -> float:
        own, other = (_wins(value, mine, one, d, n, most) for mine, one in ((theta, 0.0), (0.0, theta)))
        return (own + (n - 1) * other) / n

    if a.size <= _DEGREE:
        result = np.array([at(value) for value in a.ravel().tolist()])
    else:  # smooth in a: from Chebyshev points, affinities and not tokens
        from scipy.interpolate import BarycentricInterpolator

        low, high = float(a.min()), float(a.max())
        points = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(_DEGREE) + 0.5) / _DEGREE)
        result = BarycentricInterpolator(points, [at(value) for value in points.tolist()])(a.ravel())
    return np.clip(result.reshape(a.shape), 0.0, 1.0)


_DEGREE = 64
_U, _W = np.polynomial.legendre.leggauss(24)
_X = np.linspace(0.0, 1.0, 121)[:, None]


def _few_above(u: Floats, one: float, experts: int, top: int) -> Floats:
    """P(fewer than `top` of the n-1 other projections, one of mean `one`, exceed u)."""
    from scipy.special import ndtr

    below, above = [ndtr(u), ndtr(u - one)], [ndtr(-u), ndtr(one - u)]
    return np.asarray(gaussian._within(below, above, np.array([experts - 2, 1]), top))


def _wins(a: float, mine: float, one: float, dim: int, experts: int, top: int) -> float:
    """P(fewer than `top` of the n-1 others, one of mean `one`, exceed the projection u ~ N(mine, 1), and u >= a |x|)."""

    # T is about d-1 + one², so that the affinity bound turns on about u = ± |a| sqrt(d-1 + one²), within a few |a|
    turn, width = abs(a) * math.sqrt(dim - 1 + one**2), 6 * abs(a)

    def total(low: float, high: float, bounded: bool) -> float:
        sign = 1.0 if high > 0 else -1.0
        ends = np.clip([low, sign * turn - width, sign * turn + width, high], low, high)
        half = np.diff(ends)[:, None] / 2
        u = (ends[:-1, None] + half * (1 + _U)).ravel()
        density = np.exp(-0.5 * (u - mine) ** 2) / math.sqrt(2 * math.pi)
        if bounded:
            value = _joint(u, np.maximum((u / max(abs(a), 1e-99)) ** 2 - u * u, 1e-20), one, dim, experts, top)
        else:
            value = _few_above(u, one, experts, top)
        return float((half * _W).ravel() @ (density * value))

    far = mine + 9.0
    if a > 0:
        return total(0.0, far, True)
    positive = total(0.0, far, False)
    # u < 0 asks for u² <= a² |x|², the complement of T < u²(1/a²-1)
    return positive if a == 0 else positive + total(-9.0, 0.0, False) - total(-9.0, 0.0, True)


def _joint(u: Floats, t: Floats, one: float, dim: int, experts: int, top: int) -> Floats:
    """P(few others > u, T <= t) for arrays of one axis, by the trapezoid rule on p = c + i y, y = scale sinh x."""
    from scipy.special import erfc

    # saddle of e^{ct} E e^{-cT}, a standard deviation away from the pole at 0: right of it for P(T <= t), left of it, with
    # the residue, for P(T > t), whichever is the smaller
    free, square = dim - 1, one**2
    t = np.minimum(t, 4 * (free + square) + 3000)  # P(T > t) < e^{-700} there
    upper = t > free + square
    saddle = ((free + np.sqrt(free**2 + 4 * square * t)) / (2 * t) - 1) / 2
    away = 1 / math.sqrt(2 * free + 4 * square)
    c = np.where(upper, np.minimum(saddle, -away), np.maximum(saddle, away))
    scale = 1 / np.sqrt(2 * free / (1 + 2 * c) ** 2 + 4 * square / (1 + 2 * c) ** 3 + 1 / c**2)
    # |p|^{-(d+1)/2} has fallen to 1e-17 at the end
    end = np.arcsinh((0.5 + c) / scale * 10 ** (34 / (dim + 1)))
    x = _X * end
    p = c + 1j * scale * np.sinh(x)
    q = 1 + 2 * p
    root = np.sqrt(q)

    def side(mean: float, sign: float) -> NDArray[np.complex128]:
        return 0.5 * erfc(sign * root * (u - mean / q) / math.sqrt(2))

    few = gaussian._within(
        [side(0.0, -1), side(one, -1)], [side(0.0, 1), side(one, 1)], np.array([experts - 2, 1]), top
    )

    # the exponent relative to its value at the saddle; the latter is bounded by Chernoff, so it does not overflow
    power = p * t - free / 2 * np.log(q) - p * square / q
    value = np.exp(power) / p * few
    weight = np.full_like(x, _X[1, 0]) * end * scale * np.cosh(x)
    weight[0] /= 2
    found = (value.real * weight).sum(axis=0) / math.pi
    return np.where(upper, _few_above(u, one, experts, top) + found, found)
