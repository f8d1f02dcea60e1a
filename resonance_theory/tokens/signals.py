"""The discriminative token: its hit rate and the law of its affinity.

Setting. `experts` gates are orthonormal in R^`dim` and the affinity of a token to a gate is the cosine between them.
A class-irrelevant token has a uniform direction. The class-discriminative token of expert i is `theta w_i + sigma z`
with z standard normal; only `signal = theta / sigma` matters. Every function takes scalars or arrays, broadcasts them like a
NumPy ufunc and returns float64 (a scalar for scalars).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _beta
from resonance_theory.tokens._integration import (
    CHUNK,
    affinity_value,
    dimension,
    groups,
    in_chunks,
    log_cosh,
    signal_value,
    stirling,
)
from resonance_theory.tokens.caps import log_half_step

__all__ = ["affinity_density", "affinity_tail", "false_positive", "hit_rate", "miss_rate"]

Floats = NDArray[np.float64]


def _log_at_least(k: Floats, m: Floats, q: Floats) -> Floats:
    """log P(Bin(m - 1, q) >= k) for 1 <= k < m, by log tails where the probability itself underflows."""
    k, m, q = np.broadcast_arrays(k, np.maximum(m, k + 1), q)
    value = special.betainc(k, m - k, q)
    result = np.log(value)
    far = (value < 1e-290) & (q > 1e-100)
    if np.any(far):
        result[far] = _beta.tail(m[far].astype(np.int64), k[far].astype(np.int64), _beta.Threshold.of(q[far])).log_mass
    rare = (value < 1e-290) & (q > 0) & ~far  # all but the first term of the power series is below 1e-80
    result[rare] = k[rare] * np.log(q[rare]) - np.log(k[rare]) - special.betaln(k[rare], m[rare] - k[rare])
    return result


def _log_rate(signal: ArrayLike, experts: ArrayLike, top: ArrayLike, miss: bool) -> Floats:
    n = arguments.integer("experts", experts, 1)
    theta, n, top = np.broadcast_arrays(signal_value(signal), n, arguments.integer("top", top, 1, n, "experts"))
    shape = theta.shape
    # Beyond 60 the miss probability underflows for any number of experts.
    t, m, k = (np.ravel(v).astype(np.float64) for v in (np.minimum(theta, 60.0), n, top))
    result = np.full(t.shape, -np.inf if miss else 0.0)
    open_ = k < m

    def log_f(u: Floats, t: Floats, m: Floats, k: Floats) -> Floats:
        # The own score is N(theta, 1); given its value u the others exceed it independently with probability Q(u).
        with np.errstate(divide="ignore", under="ignore"):
            if miss:
                one = np.log(-np.expm1((m - 1) * special.log_ndtr(u)))
                other = _log_at_least(k, m, special.ndtr(-u)) if several else one
            else:
                one = (m - 1) * special.log_ndtr(u)
                other = np.log(special.betaincc(k, np.maximum(m - k, 1), special.ndtr(-u))) if several else one
        return -0.5 * (u - t) ** 2 + np.where(k == 1, one, other)

    if np.any(open_):
        t, m, k = t[open_], m[open_], k[open_]
        several = bool(np.any(k > 1))
        highest = np.sqrt(2 * np.log(m)) + 2
        low = np.where(k == 1, 0.5 * t - 14, -highest - 12) if miss else t - 12
        high = t + 12 if miss else np.maximum(t, highest) + 12
        result[open_] = in_chunks(log_f, low, high, t, m, k) - 0.5 * np.log(2 * np.pi)
    return result.reshape(shape)


@arguments.broadcasting
def hit_rate(signal: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """P(the discriminative token's own gate is among its `top` largest affinities), planted tokens.

    signal = theta / sigma in [0, 1e150], experts >= 1, 1 <= top <= experts; broadcasts. For top = 1 it is the
    integral of phi(u - signal) Phi(u)^(experts - 1). It does not depend on the dimension. Relative error below 1e-13
    (measured to 10^6 experts). Raises TypeError or ValueError outside the ranges above.

    Claim: hit_rate.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.hit_rate(2.5, experts=8)):.6g}")
    0.835197
    """
    return np.minimum(np.exp(_log_rate(signal, experts, top, miss=False)), 1.0)[()]


@arguments.broadcasting
def miss_rate(signal: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """1 - hit_rate, accurate in relative terms however small (to the edge of underflow, near signal 52).

    Claim: hit_rate.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.miss_rate(2.5, experts=8)):.6g}")
    0.164803
    """
    return np.minimum(np.exp(_log_rate(signal, experts, top, miss=True)), 1.0)[()]


@arguments.broadcasting
def affinity_tail(affinity: ArrayLike, signal: ArrayLike, dim: ArrayLike) -> Any:
    """P(the discriminative token's affinity >= a), planted tokens; a non-central t tail.

    With X ~ N(signal, 1) along the gate and R ~ chi_{dim-1} across it, affinity >= a iff X >= R a / sqrt(1 - a^2);
    the expectation of the normal tail over R is integrated over log R. Relative error below 1e-12 for affinity >= 0
    (absolute below, where the complement is the small one); its rounding enters as in `cap`. From signals of about 700
    on low dimensions lose digits, down to three, where the tail lies between 0 and 1: X's is too steep in log R there.

    Claim: affinity_law.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.affinity_tail(0.25, signal=2.5, dim=64)):.6g}")
    0.674137
    """
    a, theta, d = np.broadcast_arrays(affinity_value(affinity), signal_value(signal), dimension(dim).astype(np.float64))
    shape = a.shape
    a, theta, nu = np.ravel(a), np.ravel(theta), np.ravel(d) - 1
    result = np.where(a > 0, 0.0, 1.0)
    inner = np.abs(a) < 1
    if np.any(inner):
        a, theta, nu = a[inner], theta[inner], nu[inner]
        size = np.abs(a)
        slope = np.sqrt(nu) * size / np.sqrt((1 - size) * (1 + size))
        side = np.where(a >= 0, 1.0, -1.0)  # below zero: the complement, P(-X >= R |a| / sqrt(1 - a^2))

        def log_f(t: Floats, nu: Floats, slope: Floats, mean: Floats) -> Floats:
            return nu * (t - 0.5 * np.expm1(2 * t)) + special.log_ndtr(mean - slope * np.exp(t))

        low = -50.0 / nu - np.log1p(slope) - 5.0
        tail = in_chunks(log_f, low, np.full_like(low, 2.6), nu, slope, side * theta)
        # density of t = log(R / sqrt(nu)) at 0: 2 k^k e^-k / Gamma(k), k = nu / 2
        tail = np.exp(tail + np.log(2.0) + 0.5 * np.log(nu / (4 * np.pi)) - stirling(0.5 * nu))
        tail = np.minimum(tail, 1.0)
        result[inner] = np.where(a >= 0, tail, 1 - tail)
    return result.reshape(shape)[()]


_RADIAL = np.arange(-80, 81) * 0.06


def log_tilt(projection: Floats, d: float) -> Floats:
    """log of E[exp(m r)] exp(-max(m, 0)^2 / 2) for r ~ chi_d, m = projection (any shape): a ratio of densities.

    About the mode r* of r^d exp(m r - r^2/2) in log r the exponent is d (t - expm1 t) - r*^2 expm1(t)^2 / 2.
    """
    lift = np.arcsinh(projection / (2 * np.sqrt(d)))  # log(r* / sqrt d)
    square = d * np.exp(2 * np.minimum(lift, 300.0))
    width = 1 / np.sqrt(d + square)
    total = np.empty(lift.shape)
    flat = [v.reshape(-1, 1) for v in (square, width)]
    for start in range(0, total.size, CHUNK // _RADIAL.size):
        part = slice(start, start + CHUNK // _RADIAL.size)
        with np.errstate(under="ignore", over="ignore"):
            t = flat[1][part] * np.sinh(_RADIAL)
            e = np.expm1(t)
            total.reshape(-1)[part] = np.exp(d * (t - e) - 0.5 * flat[0][part] * e * e) @ np.cosh(_RADIAL)
    log_integral = np.log(total * width * (_RADIAL[1] - _RADIAL[0]))
    at_zero = np.log(0.5) + 0.5 * np.log(4 * np.pi / d) + stirling(0.5 * d)
    # the exponent at the mode, by r* (r* - m) = d
    down, up = np.minimum(lift, 0.0), np.maximum(lift, 0.0)
    at_mode = d * (lift + 0.5 * np.expm1(2 * down) - 0.5 * np.expm1(-2 * up))
    return at_mode + log_integral - at_zero


@arguments.broadcasting
def affinity_density(affinity: ArrayLike, signal: ArrayLike, dim: ArrayLike) -> Any:
    """Density on [-1, 1] of the discriminative token's affinity, planted tokens.

    The density of a uniform direction, (1 - a^2)^((dim-3)/2) / B(1/2, (dim-1)/2), times
    exp(-signal^2/2) E exp(signal a chi_dim). In dim 2 it is infinite at affinity -1 and 1.

    Claim: affinity_law.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.affinity_density(0.25, signal=2.5, dim=64)):.6g}")
    3.10897
    """
    a, theta, d = np.broadcast_arrays(affinity_value(affinity), signal_value(signal), dimension(dim))
    shape = a.shape
    a, theta, d = np.ravel(a), np.ravel(theta), np.ravel(d)
    result = np.empty(a.shape)
    for (dim_,), where in groups(d):
        x, t = a[where], theta[where]
        square = (1 - x) * (1 + x)
        with np.errstate(divide="ignore", over="ignore", under="ignore"):
            log_f = 0.5 * (dim_ - 3) * np.log(square) if dim_ != 3 else np.zeros_like(x)
            log_f = log_f + log_half_step(0.5 * (dim_ - 1)) - 0.5 * np.log(np.pi)
            decay = np.where(x > 0, t * np.sqrt(square), t)
            result[where] = np.exp(log_f - 0.5 * decay**2 + log_tilt(t * x, float(dim_)))
    return result.reshape(shape)[()]


@arguments.broadcasting
def false_positive(signal: ArrayLike, dim: ArrayLike) -> Any:
    """E q(affinity): P(an irrelevant token's affinity exceeds the discriminative token's), planted tokens.

    Both affinities compare as X S <= Y R with independent normals X, Y and chi radii R, S: the probability is
    E Q(signal sqrt B), B ~ Beta((dim-1)/2, (dim-1)/2). Relative error below 1e-12, in the tails too.
    Do not feed this mean to a success rate: average the success.

    Claim: affinity_law.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.false_positive(2.5, dim=64)):.6g}")
    0.0397701
    """
    theta, d = np.broadcast_arrays(signal_value(signal), dimension(dim).astype(np.float64))
    shape = theta.shape
    theta, nu = np.ravel(theta), np.ravel(d) - 1

    def log_f(y: Floats, nu: Floats, theta: Floats) -> Floats:
        # B = 1 / (1 + e^-2y); its density in y is proportional to sech(y)^nu
        fall = log_cosh(y)
        root = np.exp(0.5 * (y - np.log(2.0) - fall))
        return -nu * fall + special.log_ndtr(-theta * root)

    high = 46.0 / nu + 1.0
    value = in_chunks(log_f, -high - np.log1p(theta), high, nu, theta)
    # integral of sech^nu is B(1/2, nu/2)
    return np.exp(value - 0.5 * np.log(np.pi) + log_half_step(0.5 * nu)).reshape(shape)[()]
