"""Candidates of an expert: how often a token chooses it and is near it, and how long one waits for such a token.

Setting. `experts` gates are orthonormal in R^`dim` and the affinity of a token to a gate is the cosine between them.
A class-irrelevant token has a uniform direction. The class-discriminative token of expert i is `theta w_i + sigma z`
with z standard normal; only `signal = theta / sigma` matters. Every function takes scalars or arrays, broadcasts them like a
NumPy ufunc and returns float64 (a scalar for scalars).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.tokens._integration import CHUNK, affinity_value, dimension, groups
from resonance_theory.tokens.caps import cap, log_cap, upper_cap

__all__ = ["candidate_tail", "hit_given_affinity", "log_candidate_tail", "percentile", "waiting_tokens"]

Floats = NDArray[np.float64]

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
        for start in range(0, where.size, CHUNK // 128):
            part = where[start : start + CHUNK // 128]
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
    d = dimension(dim)
    n = arguments.integer("experts", experts, 1, d, "dim")
    arrays = np.broadcast_arrays(affinity_value(affinity), d, n, arguments.integer("top", top, 1, n, "experts"))
    return arrays[0].shape, [np.ravel(v) for v in arrays]


@arguments.broadcasting
def candidate_tail(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """h(a) = P(an irrelevant token is a candidate of a given expert and its affinity there is >= a).

    affinity in [-1, 1], dim >= 2, 1 <= experts <= dim, 1 <= top <= experts; broadcasts. A candidate is a token that
    has the expert among its `top` largest affinities. `h(a) = E[min(N_a, top)] / experts`, equal to `cap` wherever
    (top + 1) a^2 >= 1 and to top / experts at affinity -1.

    Error, measured against 34- to 60-digit references: at most 2e-14 relative, in the tails too, for every top in dim
    2 to 100 and for top <= 25 or experts - top < 20 up to dim 10^4, but 5e-13 in dim 30 to 49 where experts a^2 is just
    above 1; about experts * 1e-15 relative for top of the order of experts in the thousands. As with any function of
    the affinity, its rounding enters times dim a^2 / (1 - a^2).
    Raises TypeError or ValueError outside the ranges above.

    Claim: candidate_tail.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.candidate_tail(0.25, dim=64, experts=8)):.6g}")
    0.0209066
    """
    shape, (a, d, n, top_) = _candidate_arguments(affinity, dim, experts, top)
    return candidate_tail_at(a, d, n, top_, cap(a, d)).reshape(shape)[()]


def candidate_tail_at(a: Floats, d: Any, n: Any, top: Any, q: Floats) -> Floats:
    """candidate_tail of flat arrays, with q = cap(a, d)."""
    result = np.array(q)
    for (dim_, n_, top__), where in groups(d, n, top):
        if top__ == n_:
            continue
        x = a[where]
        up = where[(x >= 0) & ((top__ + 1) * x * x < 1)]
        result[up] = q[up] * _expectation(a[up], dim_, n_, top__, "within")
        # Below zero count the affinities under a, which by symmetry are as many as those over |a|.
        result[where[x < 0]] = top__ / n_
        down = where[(x < 0) & ((n_ - top__ + 1) * x * x < 1)]
        excess = upper_cap(-a[down], d[down]) * _expectation(-a[down], dim_, n_, n_ - top__, "excess")
        result[down] = top__ / n_ - excess
    return result


@arguments.broadcasting
def log_candidate_tail(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """Natural logarithm of `candidate_tail`; finite where the tail itself underflows, -inf at affinity 1.

    Claim: candidate_tail.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.log_candidate_tail(0.9, dim=1024, experts=8)):.6g}")
    -853.743
    """
    shape, (a, d, n, top_) = _candidate_arguments(affinity, dim, experts, top)
    log_q = log_cap(a, d)
    result = np.array(log_q)
    for (dim_, n_, top__), where in groups(d, n, top_):
        if top__ == n_:
            continue
        x = a[where]
        up = where[(x >= 0) & ((top__ + 1) * x * x < 1)]
        result[up] += np.log(_expectation(a[up], dim_, n_, top__, "within"))
        down = where[x < 0]
        result[down] = np.log(candidate_tail(a[down], dim_, n_, top=top__))
    return result.reshape(shape)[()]


@arguments.broadcasting
def percentile(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """rho(a) = h(a) / (top / experts): the share of an expert's candidates whose affinity is >= a (0 is best).

    Claim: candidate_tail.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.percentile(0.25, dim=64, experts=8)):.6g}")
    0.167253
    """
    tail = candidate_tail(affinity, dim, experts, top=top)
    return np.minimum(tail * (np.asarray(experts) / np.asarray(top)), 1.0)[()]


@arguments.broadcasting
def waiting_tokens(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, target: ArrayLike | None = None) -> Any:
    """Number of irrelevant tokens until one reaches the affinity with some expert (what LocMoE Theorem 1 bounds).

    affinity in [-1, 1], dim >= 2, 1 <= experts <= dim; broadcasts. Tokens come independently and one reaches it with
    probability P = P(max_j affinity_j >= a) = experts h(a). Without `target`: the expected number 1 / P. With
    `target` in [0, 1): the least number of tokens among which there is one with at least that probability,
    ceil(log(1 - target) / log(1 - P)), at least 1. float64, inf where it exceeds the largest double.

    LocMoE's bound exp(dim a^2 / (2 - a^2)) / experts lies below half the expected number for every dim >= 3 (a > 0). It
    says how rare useful tokens are, not how many an expert must keep: for that see `least_capacity` of the rules.
    Relative error as for `candidate_tail`; the whole number can be off by one where the quotient is within it of one.
    Raises TypeError or ValueError outside the ranges above.

    Claim: locmoe_waiting_time.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.waiting_tokens(0.5, dim=64, experts=8)):.6g}")
    11223.2
    """
    log_reach = np.minimum(log_candidate_tail(affinity, dim, experts) + np.log(np.asarray(experts, np.float64)), 0.0)
    with np.errstate(over="ignore", divide="ignore"):
        if target is None:
            return np.exp(-log_reach)[()]
        goal = arguments.real("target", target, 0.0, 1.0, open_high=True)
        # log(1 - P) = -P for P below the rounding of 1
        log_none = np.where(log_reach < -36.0, -np.exp(log_reach), np.log1p(-np.exp(log_reach)))
        count = np.where(goal == 0, 0.0, np.ceil(np.log1p(-goal) / np.where(goal == 0, -1.0, log_none)))
    return np.maximum(count, 1.0)[()]


@arguments.broadcasting
def hit_given_affinity(affinity: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """P(the own gate is among the `top` largest affinities | its affinity is a), planted tokens, any signal.

    Given affinity a the rest of the direction is sqrt(1 - a^2) times a uniform direction in R^(dim-1), so this is
    P(at most top - 1 of experts - 1 coordinates of that direction exceed b), b = a / sqrt(1 - a^2); 1 for b >= 1.

    The error is 1e-14 absolute, 3e-12 in dim 14 to 50 (neither tiny hits nor tiny misses carry relative accuracy). The
    affinity's rounding enters; in dim 3 it takes half of the digits next to affinity -1/sqrt(2) and 1/sqrt(2). In dim 2
    it is a step function, 0, 1/2, 1, with jumps there.

    Claim: planted_law.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.hit_given_affinity(0.25, dim=64, experts=8)):.6g}")
    0.868512
    """
    shape, (a, d, n, top_) = _candidate_arguments(affinity, dim, experts, top)
    result = np.ones(a.shape)
    for (dim_, n_, top__), where in groups(d, n, top_):
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
