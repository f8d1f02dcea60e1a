"""From token distributions to rates: the geometry of orthonormal gates.

Every function takes scalars or arrays, broadcasts them like a NumPy ufunc and returns float64 (a scalar for scalars).

Setting. `experts` gates are orthonormal in R^`dim` and the affinity of a token to a gate is the cosine between them.
A class-irrelevant token has a uniform direction. The class-discriminative token of expert i is `theta w_i + sigma z`
with z standard normal; only `signal = theta / sigma` matters. With N_a = #{j: affinity to gate j >= a} for a uniform
direction, this module computes

    cap                 q(a) = P(affinity >= a)                                          (G1)
    hit_rate            p = P(the own gate is among the `top` best)                      (G2)
    affinity_tail       P(discriminative affinity >= a), its density, and E q            (G3)
    candidate_tail      h(a) = E[min(N_a, top)] / experts                                (G4)
    waiting_tokens      1 / P(N_a >= 1): tokens until one reaches affinity a with an expert
    planted             the joint law of (affinity, hit, q, h) as quadrature nodes       (G5)

Sources: the tags G1 to G5 name the results of this project's theory notes; caps appear in Li et al., LocMoE
(arXiv 2401.13920, Theorem 1), planted tokens in Chowdhury et al., Patch-level routing (arXiv 2306.04073).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from resonance_theory import _arguments as check
from resonance_theory import _beta

__all__ = [
    "Planted",
    "affinity_density",
    "affinity_tail",
    "candidate_tail",
    "cap",
    "cap_bound",
    "cap_quantile",
    "false_positive",
    "hit_given_affinity",
    "hit_rate",
    "log_candidate_tail",
    "log_cap",
    "miss_rate",
    "percentile",
    "planted",
    "waiting_tokens",
]

Floats = NDArray[np.float64]

_CHUNK = 1 << 18  # integrand values held at once


# ---------------------------------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------------------------------


def _dim(dim: ArrayLike) -> NDArray[np.int64]:
    return check.integer("dim", dim, 2)


def _affinity(affinity: ArrayLike) -> Floats:
    return check.real("affinity", affinity, -1.0, 1.0)


def _signal(signal: ArrayLike) -> Floats:
    # Squares of the signal must not overflow.
    return check.real("signal", signal, 0.0, 1e150)


def _groups(*keys: NDArray[np.int64]) -> Iterator[tuple[tuple[int, ...], NDArray[np.intp]]]:
    """The distinct tuples of whole-number parameters (flat arrays of equal length) and where each occurs."""
    if keys[0].size == 0:
        return
    values, inverse = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    order = np.argsort(inverse, kind="stable")
    for row, where in zip(values, np.split(order, np.cumsum(np.bincount(inverse))[:-1])):
        yield tuple(int(v) for v in row), where


# ---------------------------------------------------------------------------------------------------------------------
# Integration of unimodal analytic functions over the line
# ---------------------------------------------------------------------------------------------------------------------

_DROP = 42.0  # nats below the peak at which an integrand is cut: e^-42 = 6e-19
_ZOOM = np.linspace(0.0, 1.0, 33)


def _support(log_f: Callable[[Floats], Floats], low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """Where a unimodal log_f, on columns (elements, points), is within _DROP of its maximum: (low, high, maximum)."""
    left, right = low, high
    for _ in range(7):
        points = left + (right - left) * _ZOOM
        best = np.argmax(log_f(points), axis=1)[:, None]
        left = np.take_along_axis(points, np.maximum(best - 1, 0), 1)
        right = np.take_along_axis(points, np.minimum(best + 1, _ZOOM.size - 1), 1)
    mode = 0.5 * (left + right)
    peak = log_f(mode)
    inside_left, inside_right = mode, mode
    for _ in range(40):
        middle = 0.5 * (low + inside_left)
        inside = log_f(middle) > peak - _DROP
        low, inside_left = np.where(inside, low, middle), np.where(inside, middle, inside_left)
        middle = 0.5 * (high + inside_right)
        inside = log_f(middle) > peak - _DROP
        high, inside_right = np.where(inside, high, middle), np.where(inside, middle, inside_right)
    return low, high, peak


def _log_integral(log_f: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """log of the integral of exp(log_f) over the line; [low, high] (columns) contains all but e^-42 of the mass.

    The trapezoid rule converges geometrically for an analytic integrand that vanishes at both ends, and each doubling
    of its nodes about squares the error: it stops when a doubling changes nothing beyond 1e-9.
    """
    low, high, peak = _support(log_f, low, high)
    nodes = 64
    total = np.exp(log_f(low + (high - low) * (np.arange(nodes + 1) / nodes)) - peak).sum(axis=1)
    while nodes < 1 << 15:
        more = np.exp(log_f(low + (high - low) * ((np.arange(nodes) + 0.5) / nodes)) - peak).sum(axis=1)
        change = np.abs(more - total)
        total = total + more
        nodes *= 2
        if np.all(change <= 1e-9 * total):
            break
    return peak[:, 0] + np.log(total * (high - low)[:, 0] / nodes)


def _in_chunks(log_f: Callable[..., Floats], low: Floats, high: Floats, *parameters: Floats, per: int = 1024) -> Floats:
    """_log_integral over flat arrays, a bounded number of elements at a time; log_f(y, *parameter columns)."""
    result = np.empty(low.shape)
    step = max(1, _CHUNK // per)
    for start in range(0, low.size, step):
        part = slice(start, start + step)
        columns = [p[part, None] for p in parameters]

        def f(y: Floats, columns: list[Floats] = columns) -> Floats:
            return log_f(y, *columns)

        result[part] = _log_integral(f, low[part, None], high[part, None])
    return result


def _log_cosh(y: Floats) -> Floats:
    """log cosh y with small relative error."""
    size = np.minimum(np.abs(y), 1.0)
    return np.where(np.abs(y) < 1, np.log1p(2 * np.sinh(0.5 * size) ** 2), np.logaddexp(y, -y) - np.log(2.0))


def _stirling(k: ArrayLike) -> Floats:
    """log Gamma(k) - (k - 1/2) log k + k - log(2 pi) / 2, without cancellation."""
    k = np.asarray(k, dtype=np.float64)
    x = 1.0 / np.maximum(k, 12.0)
    y = x * x
    terms = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
    series = np.zeros_like(x)
    for coefficient in reversed(terms):
        series = series * y + coefficient
    direct = special.gammaln(k) - (k - 0.5) * np.log(k) + k - 0.5 * np.log(2 * np.pi)
    return np.where(k < 12.0, direct, series * x)


# ---------------------------------------------------------------------------------------------------------------------
# G1: caps
# ---------------------------------------------------------------------------------------------------------------------


def _upper_cap(a: Floats, d: Floats, square: Floats | None = None) -> Floats:
    """q(a) for a >= 0; `square` is 1 - a^2 where it is known better than a."""
    square = (1 - a) * (1 + a) if square is None else square
    far = a * a > 0.5
    # From the side whose argument is small: 1 - a^2 near the pole, a^2 near the equator.
    near_pole = special.betainc(0.5 * (d - 1), 0.5, np.where(far, square, 0.0))
    near_equator = special.betaincc(0.5, 0.5 * (d - 1), np.where(far, 0.0, a * a))
    # For d = 2 that complement loses digits near a = 0, where q is arccos(a) / pi.
    return np.where(far, 0.5 * near_pole, np.where(d == 2, np.arccos(a) / np.pi, 0.5 * near_equator))


@check.broadcasting
def cap(affinity: ArrayLike, dim: ArrayLike) -> Any:
    """False-positive rate q(a) = P(cosine >= a) of a uniform direction in R^dim (G1).

    affinity in [-1, 1], dim >= 2; broadcasts. `q = I_{1-a^2}((dim-1)/2, 1/2) / 2` for a >= 0, `1 - q(-a)` below.
    Relative error below 1e-12 up to dim 10^4, where the affinity's own rounding enters times dim a^2 / (1 - a^2).
    Raises TypeError or ValueError for anything else.
    """
    a, d = np.broadcast_arrays(_affinity(affinity), _dim(dim))
    upper = _upper_cap(np.abs(a), d.astype(np.float64))
    return np.where(a >= 0, upper, 1 - upper)[()]


@check.broadcasting
def log_cap(affinity: ArrayLike, dim: ArrayLike) -> Any:
    """Natural logarithm of `cap`; finite where the cap itself underflows, -inf at affinity 1."""
    a, d = np.broadcast_arrays(_affinity(affinity), _dim(dim).astype(np.float64))
    size = np.abs(a)
    upper = _upper_cap(size, d)
    with np.errstate(divide="ignore"):
        result = np.where(a >= 0, np.log(upper), np.log1p(-upper))
    tiny = (a > 0) & (a < 1) & (upper < 1e-290)
    if np.any(tiny):
        result[tiny] = _log_cap_far(a[tiny], d[tiny])
    return result[()]


def _log_half_step(k: ArrayLike) -> Floats:
    """log Gamma(k + 1/2) - log Gamma(k)."""
    k = np.asarray(k, dtype=np.float64)
    # Stirling on both sides; the large parts cancel in k log1p(1/2k) - 1/2.
    return k * np.log1p(0.5 / k) - 0.5 + 0.5 * np.log(k) + _stirling(k + 0.5) - _stirling(k)


def _log_cap_far(a: Floats, d: Floats) -> Floats:
    """log q(a) far in the tail: I_x(k, 1/2) = x^k sqrt(1-x) F(k + 1/2, 1; k + 1; x) / (k B(k, 1/2)).

    F is Gauss's continued fraction, which there needs a few dozen terms.
    """
    k = 0.5 * (d - 1)
    x = (1 - a) * (1 + a)
    fraction = np.ones_like(a)
    for m in range(200, 0, -1):
        half = m // 2
        if m % 2:
            step = -(k + half) * (k + 0.5 + half) / ((k + 2 * half) * (k + 2 * half + 1))
        else:
            step = half * (0.5 - half) / ((k + 2 * half - 1) * (k + 2 * half))
        fraction = 1 + step * x / fraction
    log_x = np.log1p(-a) + np.log1p(a)
    log_beta = 0.5 * np.log(np.pi) - _log_half_step(k)  # log B(k, 1/2)
    return k * log_x + np.log(a) - np.log(2 * k) - log_beta - np.log(fraction)


@check.broadcasting
def cap_bound(affinity: ArrayLike, dim: ArrayLike, *, kind: str = "power") -> Any:
    """Upper bounds on `cap` for affinity in [0, 1] (G1).

    kind "power": (1 - a^2)^((dim-1)/2) / 2, since Beta(k, 1/2) is stochastically larger than Beta(k, 1).
    kind "exponential": exp(-m a^2 / (2 - a^2)) / 2 with m = dim for dim >= 3 and m = dim - 1 = 1 for dim = 2, the
    form of LocMoE Theorem 1, from -log(1-x) >= 2x / (2-x) for m = dim - 1. Neither is the smaller one everywhere.
    """
    check.choice("kind", kind, ("power", "exponential"))
    a, d = np.broadcast_arrays(check.real("affinity", affinity, 0.0, 1.0), _dim(dim))
    if kind == "power":
        with np.errstate(divide="ignore"):
            log_square = np.where(a < 0.7, np.log1p(-a * a), np.log((1 - a) * (1 + a)))
        return (0.5 * np.exp(0.5 * (d - 1) * log_square))[()]
    return (0.5 * np.exp(-np.where(d >= 3, d, d - 1) * a * a / (2 - a * a)))[()]


@check.broadcasting
def cap_quantile(probability: ArrayLike, dim: ArrayLike) -> Any:
    """The affinity whose cap has the given probability: the inverse of `cap` in its first argument.

    probability in [0, 1]; 0 gives affinity 1 and 1 gives -1.
    """
    p, d = np.broadcast_arrays(check.probability("probability", probability), _dim(dim).astype(np.float64))
    upper = np.minimum(p, 1 - p)
    k = 0.5 * (d - 1)
    near = upper > 0.25
    a_near = np.sqrt(special.betainccinv(0.5, k, np.where(near, 2 * upper, 1.0)))
    a_far = np.sqrt(1 - special.betaincinv(k, 0.5, np.where(near, 1.0, 2 * upper)))
    a = np.where(near, a_near, a_far)
    return np.where(p <= 0.5, a, -a)[()]


# ---------------------------------------------------------------------------------------------------------------------
# G2: hit rate
# ---------------------------------------------------------------------------------------------------------------------


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
    n = check.integer("experts", experts, 1)
    theta, n, top = np.broadcast_arrays(_signal(signal), n, check.integer("top", top, 1, n, "experts"))
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
        result[open_] = _in_chunks(log_f, low, high, t, m, k) - 0.5 * np.log(2 * np.pi)
    return result.reshape(shape)


@check.broadcasting
def hit_rate(signal: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """P(the discriminative token's own gate is among its `top` largest affinities), planted tokens (G2).

    signal = theta / sigma in [0, 1e150], experts >= 1, 1 <= top <= experts; broadcasts. For top = 1 it is the
    integral of phi(u - signal) Phi(u)^(experts - 1). It does not depend on the dimension. Relative error below 1e-13
    (measured to 10^6 experts). Raises TypeError or ValueError outside the ranges above.
    """
    return np.minimum(np.exp(_log_rate(signal, experts, top, miss=False)), 1.0)[()]


@check.broadcasting
def miss_rate(signal: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """1 - hit_rate, accurate in relative terms however small (to the edge of underflow, near signal 52)."""
    return np.minimum(np.exp(_log_rate(signal, experts, top, miss=True)), 1.0)[()]


# ---------------------------------------------------------------------------------------------------------------------
# G3: the affinity of the discriminative token
# ---------------------------------------------------------------------------------------------------------------------


@check.broadcasting
def affinity_tail(affinity: ArrayLike, signal: ArrayLike, dim: ArrayLike) -> Any:
    """P(the discriminative token's affinity >= a), planted tokens (G3); a non-central t tail.

    With X ~ N(signal, 1) along the gate and R ~ chi_{dim-1} across it, affinity >= a iff X >= R a / sqrt(1 - a^2);
    the expectation of the normal tail over R is integrated over log R. Relative error below 1e-12 for affinity >= 0
    (absolute below, where the complement is the small one); its rounding enters as in `cap`. From signals of about 700
    on low dimensions lose digits, down to three, where the tail lies between 0 and 1: X's is too steep in log R there.
    """
    a, theta, d = np.broadcast_arrays(_affinity(affinity), _signal(signal), _dim(dim).astype(np.float64))
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
        tail = _in_chunks(log_f, low, np.full_like(low, 2.6), nu, slope, side * theta)
        # density of t = log(R / sqrt(nu)) at 0: 2 k^k e^-k / Gamma(k), k = nu / 2
        tail = np.exp(tail + np.log(2.0) + 0.5 * np.log(nu / (4 * np.pi)) - _stirling(0.5 * nu))
        tail = np.minimum(tail, 1.0)
        result[inner] = np.where(a >= 0, tail, 1 - tail)
    return result.reshape(shape)[()]


_RADIAL = np.arange(-80, 81) * 0.06


def _log_tilt(projection: Floats, d: float) -> Floats:
    """log of E[exp(m r)] exp(-max(m, 0)^2 / 2) for r ~ chi_d, m = projection (any shape): the density ratio of G3.

    About the mode r* of r^d exp(m r - r^2/2) in log r the exponent is d (t - expm1 t) - r*^2 expm1(t)^2 / 2.
    """
    lift = np.arcsinh(projection / (2 * np.sqrt(d)))  # log(r* / sqrt d)
    square = d * np.exp(2 * np.minimum(lift, 300.0))
    width = 1 / np.sqrt(d + square)
    total = np.empty(lift.shape)
    flat = [v.reshape(-1, 1) for v in (square, width)]
    for start in range(0, total.size, _CHUNK // _RADIAL.size):
        part = slice(start, start + _CHUNK // _RADIAL.size)
        with np.errstate(under="ignore", over="ignore"):
            t = flat[1][part] * np.sinh(_RADIAL)
            e = np.expm1(t)
            total.reshape(-1)[part] = np.exp(d * (t - e) - 0.5 * flat[0][part] * e * e) @ np.cosh(_RADIAL)
    log_integral = np.log(total * width * (_RADIAL[1] - _RADIAL[0]))
    at_zero = np.log(0.5) + 0.5 * np.log(4 * np.pi / d) + _stirling(0.5 * d)
    # the exponent at the mode, by r* (r* - m) = d
    down, up = np.minimum(lift, 0.0), np.maximum(lift, 0.0)
    at_mode = d * (lift + 0.5 * np.expm1(2 * down) - 0.5 * np.expm1(-2 * up))
    return at_mode + log_integral - at_zero


@check.broadcasting
def affinity_density(affinity: ArrayLike, signal: ArrayLike, dim: ArrayLike) -> Any:
    """Density on [-1, 1] of the discriminative token's affinity, planted tokens (G3).

    The density of a uniform direction, (1 - a^2)^((dim-3)/2) / B(1/2, (dim-1)/2), times
    exp(-signal^2/2) E exp(signal a chi_dim). In dim 2 it is infinite at affinity -1 and 1.
    """
    a, theta, d = np.broadcast_arrays(_affinity(affinity), _signal(signal), _dim(dim))
    shape = a.shape
    a, theta, d = np.ravel(a), np.ravel(theta), np.ravel(d)
    result = np.empty(a.shape)
    for (dim_,), where in _groups(d):
        x, t = a[where], theta[where]
        square = (1 - x) * (1 + x)
        with np.errstate(divide="ignore", over="ignore", under="ignore"):
            log_f = 0.5 * (dim_ - 3) * np.log(square) if dim_ != 3 else np.zeros_like(x)
            log_f = log_f + _log_half_step(0.5 * (dim_ - 1)) - 0.5 * np.log(np.pi)
            decay = np.where(x > 0, t * np.sqrt(square), t)
            result[where] = np.exp(log_f - 0.5 * decay**2 + _log_tilt(t * x, float(dim_)))
    return result.reshape(shape)[()]


@check.broadcasting
def false_positive(signal: ArrayLike, dim: ArrayLike) -> Any:
    """E q(affinity): P(an irrelevant token's affinity exceeds the discriminative token's), planted tokens (G3).

    Both affinities compare as X S <= Y R with independent normals X, Y and chi radii R, S: the probability is
    E Q(signal sqrt B), B ~ Beta((dim-1)/2, (dim-1)/2). Relative error below 1e-12, in the tails too.
    Do not feed this mean to a success rate: average the success (N4).
    """
    theta, d = np.broadcast_arrays(_signal(signal), _dim(dim).astype(np.float64))
    shape = theta.shape
    theta, nu = np.ravel(theta), np.ravel(d) - 1

    def log_f(y: Floats, nu: Floats, theta: Floats) -> Floats:
        # B = 1 / (1 + e^-2y); its density in y is proportional to sech(y)^nu
        log_cosh = _log_cosh(y)
        root = np.exp(0.5 * (y - np.log(2.0) - log_cosh))
        return -nu * log_cosh + special.log_ndtr(-theta * root)

    high = 46.0 / nu + 1.0
    value = _in_chunks(log_f, -high - np.log1p(theta), high, nu, theta)
    # integral of sech^nu is B(1/2, nu/2)
    return np.exp(value - 0.5 * np.log(np.pi) + _log_half_step(0.5 * nu)).reshape(shape)[()]


# ---------------------------------------------------------------------------------------------------------------------
# G4: candidates
# ---------------------------------------------------------------------------------------------------------------------
#
# For a standard normal vector the coordinates are independent, its radius is chi_d and independent of its direction:
# for any G, E G(N_a) on the sphere is an inverse Laplace transform at 1 of what it is for independent coordinates,
#
#     E G(N_a) = Gamma(d/2) / (2 pi i) * integral of p^(-d/2) e^p g(Q(a sqrt(2p))) dp,   g(Q) = E G(Bin(n, Q)).
#
# With p = s^2 and s on the line Re s = sigma the exponentials of Q^k combine into exp((1 - k a^2) s^2): terms with
# k a^2 < 1 decay like a Gaussian, and terms with k a^2 >= 1 contribute nothing (k orthonormal coordinates cannot all
# be that large). sigma^2 = d / (2 (1 - a^2)) is the saddle of the term k = 1. Since G(N) = N gives n q(a), dividing
# by the same quadrature of n Q removes all normalisation: the answer is q(a) times a ratio of order one.


def _log1p(w: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """log(1 + w) with small error relative to |w| (complex log loses half the digits)."""
    x, y = w.real, w.imag
    return 0.5 * np.log1p(x * (2 + x) + y * y) + 1j * np.arctan2(y, 1 + x)


def _expm1(w: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """exp(w) - 1 with small error relative to |w|."""
    x, y = w.real, w.imag
    return np.expm1(x) * np.cos(y) - 2 * np.sin(0.5 * y) ** 2 + 1j * np.exp(x) * np.sin(y)


def _log_binomials(n: int, first: int, last: int) -> Floats:
    """log binom(n, j), j = first..last, from the shorter end (differences of log Gamma lose digits)."""
    ratios = np.arange(n, n - min(last, n // 2), -1.0) / np.arange(1.0, min(last, n // 2) + 1)
    rising = np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    j = np.arange(first, last + 1)
    return rising[np.minimum(j, n - j)]


def _binomial_sum(
    n: int, first: int, last: int, weight: Callable[[int], float], log_q: NDArray[Any], log_p: NDArray[Any]
) -> NDArray[np.complex128]:
    """Sum over j = first..last of weight(j) P(Bin(n, Q) = j), complex Q given by log Q and log(1 - Q)."""
    total = np.zeros(np.shape(log_q), dtype=np.complex128)
    log_b = _log_binomials(n, first, last) if last >= first else np.empty(0)
    for j in range(first, last + 1):
        total += weight(j) * np.exp(log_b[j - first] + j * log_q + (n - j) * log_p)
    return total


def _expectation(a: Floats, d: int, n: int, level: int, what: str) -> Floats:
    """E G(N_a), relative to n q(a) in the first two cases, for 0 <= a < 1 (flat) and scalar d >= 2, 1 <= n <= d.

    "within": min(N, level);  "excess": (N - level)_+;  "at least": 1{N >= level};  "at most": 1{N <= level}.
    """
    result = np.empty(a.shape)
    # Powers of Q one by one in low dimension, where their sum (1 - Q)^n would grow along the contour; as a whole
    # elsewhere. For few experts, or n a^2 >= 1 (few candidates), the powers hardly cancel.
    by_powers = (n <= 12) | (n * a * a >= 1) if d < 50 else np.zeros(a.shape, dtype=bool)
    by_powers = np.broadcast_to(by_powers, a.shape)
    for mask, evaluate in ((by_powers, _by_powers), (~by_powers, _as_a_whole)):
        where = np.flatnonzero(mask)
        for start in range(0, where.size, _CHUNK // 128):
            part = where[start : start + _CHUNK // 128]
            result[part] = evaluate(a[part], d, n, level, what)
    return result


_STEP = 0.1  # halving it changes nothing beyond rounding


def _contour(a: Floats, d: int, reach: Floats, lead: int) -> tuple[Any, Any]:
    """Upper half of Re s = sigma at nodes s = sigma + i lambda sinh x: log of the weight, log Q; (affinities, nodes).

    The weight is s^(1-d) e^(s^2) Q^lead ds up to a factor, and sigma^2 = d / (2 (1 - lead a^2)) its saddle.
    """
    a = a[:, None]
    square = (1 - a) * (1 + a) if lead else np.ones_like(a)
    sigma = np.sqrt(0.5 * d / square)
    scale = 1 / np.sqrt(square)
    last = np.arcsinh(reach[:, None] / scale)
    x = _STEP * np.arange(int(np.ceil(np.max(last) / _STEP)) + 1)
    tau = scale * np.sinh(x)
    s = sigma + 1j * tau
    log_mills = np.log(0.5 * special.wofz(1j * a * s))
    log_weight = square * (2j * sigma - tau) * tau + (1 - d) * _log1p(1j * tau / sigma) + np.log(np.cosh(x))
    log_weight[:, 0] -= np.log(2.0)  # half of the symmetric sum
    if lead:
        log_weight = log_weight + log_mills - log_mills[:, :1].real
    return np.where(x <= last, log_weight, -np.inf), log_mills - (a * s) ** 2


def _by_powers(a: Floats, d: int, n: int, level: int, what: str) -> Floats:
    """Inclusion-exclusion: E G(N) = sum of coefficient_k P(k given coordinates are >= a), k < 1/a^2."""
    lead = int(what in ("within", "excess"))
    # The powers k >= 2 fall at least like |s|^-d beyond sigma.
    reach = np.sqrt(0.5 * d / (1 - lead * a * a)) * np.exp(40.0 / d)
    log_weight, log_q = _contour(a, d, reach, lead)
    least = level + (what != "at least")  # the complementary event starts at this count
    total = np.zeros(a.shape)
    for k in range(least, n + 1):
        alive = k * a * a < 1
        if not alive.any():
            break
        # (N - level)_+ = sum (-1)^(k-least) C(k-2, level-1) C(N, k);  1{N >= m} = sum (-1)^(k-m) C(k-1, m-1) C(N, k)
        coefficient = (-1.0) ** (k - least) * special.comb(n, k)
        coefficient *= special.comb(k - 2, level - 1) / n if lead else special.comb(k - 1, least - 1)
        total[alive] += coefficient * np.exp(log_weight[alive] + (k - lead) * log_q[alive]).real.sum(axis=1)
    value = total / np.exp(log_weight).real.sum(axis=1)
    return 1 - value if what in ("within", "at most") else value


def _as_a_whole(a: Floats, d: int, n: int, level: int, what: str) -> Floats:
    """E G(Bin(n, Q)) summed in closed form (level 1) or over the shorter side of `level` before integrating."""
    lead = int(what in ("within", "excess"))
    square = 1 - lead * a * a
    sigma = np.sqrt(0.5 * d / square)
    reach = np.minimum(sigma, 6.7 / np.sqrt(square)) if d >= 50 else sigma * np.exp(40.0 / d)
    log_weight, log_q = _contour(a, d, reach, lead)
    with np.errstate(over="ignore"):
        log_p = np.where(log_q.real < 300, _log1p(-np.exp(log_q)), log_q)
    # Far out the powers of Q grow; where the product with the weight is negligible any finite value will do.
    negligible = log_weight.real + (n - lead) * np.maximum(log_p.real, 0) < -60
    log_q, log_p = (np.where(negligible, v[:, :1], v) for v in (log_q, log_p))
    weight = np.exp(np.where(negligible, -np.inf, log_weight))
    scale = weight.real.sum(axis=1)
    q = np.exp(log_q)
    tiny = np.abs(n * q) < 1e-290
    mean = np.where(tiny, 1.0, n * q)
    if what == "within" and level == 1:
        value = np.where(tiny, 1.0, -_expm1(n * log_p) / mean)
    elif lead:
        # For a small mean n Q the excess is a short sum, and subtracting the long one from the mean would cancel.
        value = np.empty_like(q)
        rare = np.abs(n * q[:, 0]) < 1
        for rows, above in ((rare, True), (~rare, n - level < level)):
            if not rows.any():
                continue
            lq, lp = log_q[rows], log_p[rows]
            if above:
                last = min(n, level + 40) if rows is rare else n
                excess = _binomial_sum(n, level + 1, last, lambda j: j - level, lq, lp)
                excess = np.where(tiny[rows], 0.0, excess / mean[rows])
                value[rows] = excess if what == "excess" else 1 - excess
            else:
                within = (level - _binomial_sum(n, 0, level - 1, lambda j: level - j, lq, lp)) / mean[rows]
                value[rows] = 1 - within if what == "excess" else within
    else:
        least = level + (what == "at most")
        if least <= n - least:
            value = _binomial_sum(n, 0, least - 1, lambda j: 1, log_q, log_p)
            value = value if what == "at most" else 1 - value
        else:
            value = _binomial_sum(n, least, n, lambda j: 1, log_q, log_p)
            value = 1 - value if what == "at most" else value
    return (weight * value).real.sum(axis=1) / scale


def _candidate_arguments(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, top: ArrayLike) -> Any:
    d = _dim(dim)
    n = check.integer("experts", experts, 1, d, "dim")
    arrays = np.broadcast_arrays(_affinity(affinity), d, n, check.integer("top", top, 1, n, "experts"))
    return arrays[0].shape, [np.ravel(v) for v in arrays]


@check.broadcasting
def candidate_tail(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """h(a) = P(an irrelevant token is a candidate of a given expert and its affinity there is >= a) (G4).

    affinity in [-1, 1], dim >= 2, 1 <= experts <= dim, 1 <= top <= experts; broadcasts. A candidate is a token that
    has the expert among its `top` largest affinities. `h(a) = E[min(N_a, top)] / experts`, equal to `cap` wherever
    (top + 1) a^2 >= 1 and to top / experts at affinity -1.

    Error, measured against 34- to 60-digit references: at most 2e-14 relative, in the tails too, for every top in dim
    2 to 100 and for top <= 25 or experts - top < 20 up to dim 10^4, but 5e-13 in dim 30 to 49 where experts a^2 is just
    above 1; about experts * 1e-15 relative for top of the order of experts in the thousands. As with any function of
    the affinity, its rounding enters times dim a^2 / (1 - a^2).
    Raises TypeError or ValueError outside the ranges above.
    """
    shape, (a, d, n, top_) = _candidate_arguments(affinity, dim, experts, top)
    return _candidate_tail(a, d, n, top_, cap(a, d)).reshape(shape)[()]


def _candidate_tail(a: Floats, d: Any, n: Any, top: Any, q: Floats) -> Floats:
    """candidate_tail of flat arrays, with q = cap(a, d)."""
    result = np.array(q)
    for (dim_, n_, top__), where in _groups(d, n, top):
        if top__ == n_:
            continue
        x = a[where]
        up = where[(x >= 0) & ((top__ + 1) * x * x < 1)]
        result[up] = q[up] * _expectation(a[up], dim_, n_, top__, "within")
        # Below zero count the affinities under a, which by symmetry are as many as those over |a|.
        result[where[x < 0]] = top__ / n_
        down = where[(x < 0) & ((n_ - top__ + 1) * x * x < 1)]
        excess = _upper_cap(-a[down], d[down]) * _expectation(-a[down], dim_, n_, n_ - top__, "excess")
        result[down] = top__ / n_ - excess
    return result


@check.broadcasting
def log_candidate_tail(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """Natural logarithm of `candidate_tail`; finite where the tail itself underflows, -inf at affinity 1."""
    shape, (a, d, n, top_) = _candidate_arguments(affinity, dim, experts, top)
    log_q = log_cap(a, d)
    result = np.array(log_q)
    for (dim_, n_, top__), where in _groups(d, n, top_):
        if top__ == n_:
            continue
        x = a[where]
        up = where[(x >= 0) & ((top__ + 1) * x * x < 1)]
        result[up] += np.log(_expectation(a[up], dim_, n_, top__, "within"))
        down = where[x < 0]
        result[down] = np.log(candidate_tail(a[down], dim_, n_, top=top__))
    return result.reshape(shape)[()]


@check.broadcasting
def percentile(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """rho(a) = h(a) / (top / experts): the share of an expert's candidates whose affinity is >= a (0 is best)."""
    tail = candidate_tail(affinity, dim, experts, top=top)
    return np.minimum(tail * (np.asarray(experts) / np.asarray(top)), 1.0)[()]


@check.broadcasting
def waiting_tokens(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, target: ArrayLike | None = None) -> Any:
    """Number of irrelevant tokens until one reaches the affinity with some expert (what LocMoE Theorem 1 bounds).

    affinity in [-1, 1], dim >= 2, 1 <= experts <= dim; broadcasts. Tokens come independently and one reaches it with
    probability P = P(max_j affinity_j >= a) = experts h(a) (G4). Without `target`: the expected number 1 / P. With
    `target` in [0, 1): the least number of tokens among which there is one with at least that probability,
    ceil(log(1 - target) / log(1 - P)), at least 1. float64, inf where it exceeds the largest double.

    LocMoE's bound exp(dim a^2 / (2 - a^2)) / experts lies below half the expected number for every dim >= 3 (a > 0). It
    says how rare useful tokens are, not how many an expert must keep: for that see `least_capacity` of the rules.
    Relative error as for `candidate_tail`; the whole number can be off by one where the quotient is within it of one.
    Raises TypeError or ValueError outside the ranges above.
    """
    log_reach = np.minimum(log_candidate_tail(affinity, dim, experts) + np.log(np.asarray(experts)), 0.0)
    with np.errstate(over="ignore", divide="ignore"):
        if target is None:
            return np.exp(-log_reach)[()]
        goal = check.real("target", target, 0.0, 1.0, open_high=True)
        # log(1 - P) = -P for P below the rounding of 1
        log_none = np.where(log_reach < -36.0, -np.exp(log_reach), np.log1p(-np.exp(log_reach)))
        count = np.where(goal == 0, 0.0, np.ceil(np.log1p(-goal) / np.where(goal == 0, -1.0, log_none)))
    return np.maximum(count, 1.0)[()]


# ---------------------------------------------------------------------------------------------------------------------
# G5: the planted law
# ---------------------------------------------------------------------------------------------------------------------


@check.broadcasting
def hit_given_affinity(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """P(the own gate is among the `top` largest affinities | its affinity is a), planted tokens, any signal (G5).

    Given affinity a the rest of the direction is sqrt(1 - a^2) times a uniform direction in R^(dim-1), so this is
    P(at most top - 1 of experts - 1 coordinates of that direction exceed b), b = a / sqrt(1 - a^2); 1 for b >= 1.

    The error is 1e-14 absolute, 3e-12 in dim 14 to 50 (neither tiny hits nor tiny misses carry relative accuracy). The
    affinity's rounding enters; in dim 3 it takes half of the digits next to affinity -1/sqrt(2) and 1/sqrt(2). In dim 2
    it is a step function, 0, 1/2, 1, with jumps there.
    """
    shape, (a, d, n, top_) = _candidate_arguments(affinity, dim, experts, top)
    result = np.ones(a.shape)
    for (dim_, n_, top__), where in _groups(d, n, top_):
        if top__ == n_:
            continue
        x = a[where]
        with np.errstate(divide="ignore"):
            b = np.abs(x) / np.sqrt((1 - x) * (1 + x))
        if dim_ == 2:  # the other coordinate is 1 or -1
            result[where] = np.where(b < 1, 0.5, x > 0)
            continue
        up = (x >= 0) & (top__ * b * b < 1)
        result[where[up]] = _expectation(b[up], dim_ - 1, n_ - 1, top__ - 1, "at most")
        least = n_ - top__  # P(at least this many coordinates are under b < 0)
        result[where[x < 0]] = 0.0
        down = (x < 0) & (least * b * b < 1)
        result[where[down]] = _expectation(b[down], dim_ - 1, n_ - 1, least, "at least")
    return np.clip(result, 0.0, 1.0).reshape(shape)[()]


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
        decay = theta * np.exp(-_log_cosh(np.maximum(y, 0.0)))
        return -nu * _log_cosh(y) - 0.5 * decay**2 + _log_tilt(theta * np.tanh(y), float(d))

    def log_fq(y: Floats) -> Floats:
        q = _upper_cap(np.tanh(np.abs(y)), np.array(float(d)), np.exp(-2 * _log_cosh(y)))
        return log_f(y) + np.log(np.maximum(np.where(y >= 0, q, 1 - q), 1e-300))

    far = 46.0 / nu + 2.0
    ends = np.array([[-far]]), np.array([[far + np.log1p(theta)]])
    # Failures come from low affinities: keep what matters to E q (hence to P(miss) <= (experts - 1) E q) as well.
    # As q falls with the affinity, this end lies below the one for the density alone.
    left = float(_support(log_fq, *ends)[0][0, 0])
    right = float(_support(log_f, *ends)[1][0, 0])
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


@check.broadcasting
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
    whole = check.integer("nodes", nodes, 64)
    if whole.ndim:
        raise TypeError(f"nodes has shape {whole.shape} but must be a single whole number of at least 64")
    count = int(whole)
    d_ = _dim(dim)
    n_ = check.integer("experts", experts, 1, d_, "dim")
    theta, d, n, k = np.broadcast_arrays(_signal(signal), d_, n_, check.integer("top", top, 1, n_, "experts"))
    shape = (*theta.shape, count)
    affinity, square, weight = np.empty(shape), np.empty(shape), np.empty(shape)
    for index in np.ndindex(theta.shape):
        y, log_f, w = _nodes(float(theta[index]), int(d[index]), int(n[index]), count)
        mass = w * np.exp(log_f - log_f.max())
        affinity[index] = np.tanh(y)
        square[index] = np.cosh(y) ** -2.0  # 1 - affinity^2, which rounding of the affinity would lose near 1
        weight[index] = mass / mass.sum()
    d, n, k = (np.broadcast_to(v[..., None], shape) for v in (d, n, k))
    q = _upper_cap(np.abs(affinity), d.astype(np.float64), square)
    q = np.where(affinity >= 0, q, 1 - q)
    tail = _candidate_tail(*(np.ravel(v) for v in (affinity, d, n, k, q)))
    return Planted(
        affinity=affinity,
        weight=weight,
        hit=hit_given_affinity(affinity, d, n, top=k),
        false_positive=q,
        candidate_tail=tail.reshape(shape),
    )
