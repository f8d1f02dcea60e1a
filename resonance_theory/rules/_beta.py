"""Tails and partial means of a beta variable, to the last digits: the one primitive behind the three exact laws.

With V ~ Beta(C, s - C):

    P(Bin(s-1, h) <= C-1) = P(V > h)                                    (expert choice, resonance)
    E (Bin(s, π) - C)_+ = s E (π - V)_+,  E min(1, C/(N+1)) = E min(1, V/π)   (token choice)

Both are integrals of V's density outwards from a threshold, of w^0 and of w^1, with positive integrands: nothing
cancels, however far the tail. The density at the threshold is a binomial mass in Loader's deviance form (Loader 2000,
"Fast and accurate computation of binomial probabilities"), and relative to it the integrand is exp(ψ), ψ concave with
ψ(0) = 0, integrated by Gauss-Legendre up to where exp(ψ) has fallen below 1e-14.

Thresholds are carried as unevaluated sums of two doubles (value and remainder), because C - sπ is what a tail depends
on: at s = 10^9 one rounding of π = 1/3 moves a tail of 1e-200 in its eleventh digit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Tail", "Threshold", "tail"]

Floats = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_DEPTH = 33.0  # integrate until exp(ψ) = exp(-33); 24 nodes integrate exp(-33 x) on [0,1] to 1e-15
_LARGE = 1e4  # exponents above it use the series of log(1+t) - t, whose argument is then below .09
_CHUNK = 2048  # elements at a time: the nodes' temporaries stay in cache


class Threshold(NamedTuple):
    """A probability and its complement, each as value + remainder, of equal shapes."""

    p: Floats
    p_low: Floats
    q: Floats
    q_low: Floats

    @staticmethod
    def of(probability: ArrayLike) -> Threshold:
        """From doubles, taken as exact."""
        p = np.asarray(probability, dtype=np.float64)
        q = 1.0 - p
        # 1 - p is rounded once; the remainder is exact (Fast2Sum, as 1 >= p)
        return Threshold(p, np.zeros_like(p), q, (1.0 - q) - p)

    @staticmethod
    def ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> Threshold:
        """From whole numbers 0 <= numerator <= denominator < 2^53: the exact quotient to two doubles."""
        a, b = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))

        def quotient(top: Floats) -> tuple[Floats, Floats]:
            high = top / b
            return high, difference(top, b, high, 0.0) / b

        return Threshold(*quotient(a), *quotient(b - a))


class Tail(NamedTuple):
    """Integrals of the density of V ~ Beta(C, s-C) on the shorter side of the threshold π, as logarithms.

    lower      whether that side is V < π (the mean C/s is at or above π)
    log_mass   log P(V on that side)
    log_mean   log E |π - V| on that side
    excess     C - sπ, correctly rounded up to one unit
    """

    lower: NDArray[np.bool_]
    log_mass: Floats
    log_mean: Floats
    excess: Floats


def difference(k: ArrayLike, m: ArrayLike, p: ArrayLike, p_low: ArrayLike) -> Floats:
    """k - m (p + p_low) with one rounding's error, by Dekker's exact product; k, m whole numbers below 2^53."""
    k, m, p = np.asarray(k, np.float64), np.asarray(m, np.float64), np.asarray(p, np.float64)
    product = m * p
    m_high = (m * 134217729.0) - (m * 134217729.0 - m)
    p_high = (p * 134217729.0) - (p * 134217729.0 - p)
    m_rest, p_rest = m - m_high, p - p_high
    error = ((m_high * p_high - product) + m_high * p_rest + m_rest * p_high) + m_rest * p_rest
    return ((k - product) - error) - m * p_low


def _stirling(n: Floats) -> Floats:
    """log n! - log(sqrt(2πn) (n/e)^n) for whole n >= 1."""
    y = 1.0 / np.maximum(n, 16.0)
    y2 = y * y
    series = y * (1 / 12 - y2 * (1 / 360 - y2 * (1 / 1260 - y2 * (1 / 1680 - y2 * (1 / 1188 - y2 * 691 / 360360)))))
    return np.where(n < 16, _STIRLING_TABLE[np.minimum(n, 16).astype(np.int64)], series)


def _stirling_table() -> Floats:
    """Entries for n < 16 from exact factorials in 40-digit decimals (log n! - ... cancels in doubles)."""
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 40
        pi = Decimal("3.141592653589793238462643383279502884197")
        entries = [Decimal(0)]
        for n in range(1, 17):
            d = Decimal(n)
            entries.append(Decimal(math.factorial(n)).ln() - (2 * pi * d).ln() / 2 - d * d.ln() + d)
        return np.array([float(v) for v in entries])


_STIRLING_TABLE = _stirling_table()


def _log1p_minus(t: Floats) -> Floats:
    """log(1+t) - t for t > -1, to full relative accuracy, by log(1+t) = 2 artanh(t/(2+t)) where t is small."""
    r = t / (2.0 + t)
    r2 = r * r
    small = 1 / 3 + r2 * (1 / 5 + r2 * (1 / 7 + r2 * (1 / 9 + r2 * (1 / 11 + r2 * (1 / 13 + r2 * (1 / 15 + r2 / 17))))))
    near = np.abs(t) < 0.2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(near, 2 * r * r2 * small - t * r, np.log1p(np.where(near, 1.0, t)) - np.where(near, 1.0, t))


def deviance(x: Floats, mean: Floats, shift: Floats) -> Floats:
    """x log(x/mean) + mean - x for x >= 1, with shift = mean - x known better than by subtraction."""
    t = shift / x
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = x / mean
        log = np.where(np.isfinite(ratio), np.log(ratio), np.log(x) - np.log(mean))
        far = x * log + shift  # log(1+t) would lose the digits of mean where t is near -1
        return np.where(t < -0.5, far, -x * _log1p_minus(np.maximum(t, -0.5)))


def log_mass(m: Floats, k: Floats, at: Threshold, shift: Floats) -> Floats:
    """log P(Bin(m, p) = k) for 0 <= k <= m and 0 < p < 1, with shift = m p - k."""
    rest = m - k
    inner = (k > 0) & (rest > 0)
    safe_k, safe_rest, safe_m = (np.where(inner, v, 1.0) for v in (k, rest, np.where(m > 0, m, 1.0)))
    centre = (
        _stirling(safe_m)
        - _stirling(safe_k)
        - _stirling(safe_rest)
        - deviance(safe_k, m * at.p, shift)
        - deviance(safe_rest, m * at.q, -shift)
        - 0.5 * np.log(2 * math.pi * safe_k * (safe_rest / safe_m))
    )
    # all failures, or all successes: m log q, m log p, by the route that keeps the digits
    log_q = np.where(at.p < 0.5, np.log1p(-np.minimum(at.p, 0.5)) - at.p_low / at.q, np.log(at.q) + at.q_low / at.q)
    log_p = np.where(at.q < 0.5, np.log1p(-np.minimum(at.q, 0.5)) - at.q_low / at.p, np.log(at.p) + at.p_low / at.p)
    return np.where(inner, centre, np.where(k > 0, k * log_p, rest * log_q))


def _power(exponent: Floats, t: Floats, large: bool) -> Floats:
    """exponent (log(1+t) - t), for one class of exponents: all above `_LARGE`, or none."""
    if not large:
        return exponent * (np.log1p(t) - t)
    r = t / (2.0 + t)
    r2 = r * r
    return exponent * (r * (r2 * (2 / 3 + r2 * (2 / 5 + r2 * (2 / 7 + r2 * (2 / 9 + r2 * 2 / 11)))) - t))


def _exponents(k: Floats, rest: Floats, ratio: Floats, slope: Floats, t: Floats, kinds: tuple[bool, bool]) -> Floats:
    """ψ(t). As k - rest ratio = slope, its linear terms cancel; they stay where large exponents would multiply rounding."""
    if any(kinds):
        return _power(k, -t, kinds[0]) + _power(rest, ratio * t, kinds[1]) - slope * t
    psi = np.log1p(-t)
    psi *= k
    far = np.multiply(t, ratio, out=t)
    np.log1p(far, out=far)
    far *= rest
    psi += far
    return psi


def _outward(k: Floats, rest: Floats, ratio: Floats, slope: Floats, kinds: tuple[bool, bool]) -> tuple[Floats, Floats]:
    """∫ exp(ψ) dt and ∫ t exp(ψ) dt over 0 < t < 1, t the distance from the threshold in units of that to the zero.

    ψ = k (log(1-t) + t) + rest (log(1 + ratio t) - ratio t) - slope t.
    k, rest: exponents of the density towards its zero and of the other factor; ratio: distance of the zero over that
    of the other end; slope = -ψ'(0). Arrays of one axis. In these units nothing overflows however small a distance.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        curve = k + np.where(rest > 0, rest * ratio * ratio, 0.0)
    steep = np.maximum(slope, 0.0)
    # depth reached by slope and curvature alone; ψ is below -slope t - (rest ratio² t²)(...) only, so correct by Newton
    top = 1 - 1e-9
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        end = 2 * _DEPTH / (steep + np.sqrt(steep**2 + 2 * _DEPTH * curve))
    end = np.where(np.isfinite(end), np.minimum(end, top), top)
    for _ in range(3):
        u = end * ratio
        depth = -_power(k, -end, kinds[0]) - _power(rest, u, kinds[1]) + slope * end
        # ψ' = -k t/(1-t) - rest ratio u/(1+u) - slope, of constant sign beyond the maximum
        fall = k * end / (1 - end) + rest * ratio * u / (1 + u) + slope
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = (_DEPTH - depth) / fall
        end = np.clip(np.where(fall > 0, end + step, 2 * end), end / 4, np.minimum(top, end * 4))
    # a depth not reached before the density's zero: integrate up to the zero
    end = np.where(end >= top, 1.0, end)
    value = np.exp(_exponents(k[:, None], rest[:, None], ratio[:, None], slope[:, None], end[:, None] * _NODES, kinds))
    return (value @ _WEIGHTS) * end, (value @ (_WEIGHTS * _NODES)) * end * end


def tail(tokens: NDArray[np.int64], capacity: NDArray[np.int64], at: Threshold) -> Tail:
    """The shorter tail of V ~ Beta(capacity, tokens - capacity) beyond a threshold in (0, 1), 1 <= capacity < tokens.

    Arrays broadcast. Relative error of exp(log_mass), exp(log_mean) below 1e-12 down to 1e-300 for tokens up to 10^9;
    relative error of the logarithms below 1e-13 beyond.
    """
    s, c, *parts = np.broadcast_arrays(np.asarray(tokens, np.float64), np.asarray(capacity, np.float64), *at)
    shape = s.shape
    s, c = s.ravel(), c.ravel()
    at = Threshold(*(v.ravel() for v in parts))
    excess = difference(c, s, at.p, at.p_low)
    lower = excess >= 0
    k, m = c - 1, s - 2
    rest = m - k
    lean = difference(k, m, at.p, at.p_low)  # (C-1) - (s-2)π: the sign of the density's slope at the threshold
    # On the lower side the density falls towards 0 with exponent C-1, on the upper one towards 1 with exponent s-C-1.
    exponent, other = np.where(lower, k, rest), np.where(lower, rest, k)
    near, far = np.where(lower, at.p, at.q), np.where(lower, at.q, at.p)
    slope = np.where(lower, lean, -lean) / far
    log_density = np.log(s - 1) + log_mass(m, k, at, -lean)
    mass, mean = np.empty_like(s), np.empty_like(s)
    kind = 2 * (exponent > _LARGE) + (other > _LARGE)
    for value in range(4):
        members = np.flatnonzero(kind == value)
        for start in range(0, len(members), _CHUNK):
            i = members[start : start + _CHUNK]
            mass[i], mean[i] = _outward(
                exponent[i], other[i], near[i] / far[i], slope[i], (bool(value & 2), bool(value & 1))
            )
    with np.errstate(divide="ignore"):
        return Tail(
            lower.reshape(shape),
            (log_density + np.log(near) + np.log(mass)).reshape(shape),
            (log_density + 2 * np.log(near) + np.log(mean)).reshape(shape),
            excess.reshape(shape),
        )
