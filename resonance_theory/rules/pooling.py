"""Batch capacity: B samples share the slots, B C for each expert, with one discriminative token in each sample (N10).

Token choice takes the first B C candidates in position order over the whole batch, so it is N1 at (B s, π, B C): pooling
never hurts, and in the limit hit x min(1, C/(πs)) remains; where experts have unequal loads, the other samples' own tokens have
one of their own, `rival` (claim batch_unequal_loads). Resonance takes the B C best, so a discriminative token of
affinity a meets Bin(B(s-1), h(a)) irrelevant rivals and Bin(B-1, κ(a)) discriminative ones of the other samples:

    P = E[1_hit P(Bin(B(s-1), h) + Bin(B-1, κ) <= BC - 1)].

Pooling in the end helps at affinities with (s-1) h + κ < C and in the end hurts where (s-1) h + κ > C; on the way it need not be
monotone. `rival` is κ for the planted model.

Everything broadcasts as in `resonance`; 1e-12 relative against 50-digit references.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law, token_choice
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules._sums import log_binomial, log_concave_sum
from resonance_theory.tokens import gaussian

__all__ = [
    "resonance_failure",
    "resonance_least_capacity",
    "resonance_success",
    "rival",
    "token_choice_failure",
    "token_choice_least_capacity",
    "token_choice_success",
]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_MOST = 1 << 10  # samples, where the other samples' own tokens have a load of their own: pairs of samples are summed


def _pool(samples: ArrayLike, tokens: ArrayLike, capacity: ArrayLike) -> tuple[Whole, Whole, Whole]:
    b = arguments.integer("samples", samples, 1, 2**26)
    s = arguments.integer("tokens", tokens, 1, 2**26)
    return b, s, arguments.integer("capacity", capacity, 1, s, "tokens")


def _token_choice(
    samples: ArrayLike,
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    hit: ArrayLike,
    top: ArrayLike,
    load: ArrayLike | None,
    rival: ArrayLike | None,
    weight: ArrayLike | None,
) -> _law.Logs:
    b, s, c = _pool(samples, tokens, capacity)
    if rival is None:
        return token_choice._logs(b * s, experts, b * c, hit, top, load, weight)
    b = arguments.integer("samples", samples, 1, _MOST)
    at, r = token_choice.load_threshold(experts, top, load), arguments.probability("rival", rival)
    p = arguments.probability("hit", hit)
    if weight is not None:
        b, s, c = (_law.expand(value, weight) for value in (b, s, c))
        if load is None:
            at = Threshold(*(_law.expand(part, weight) for part in at))
    shape = np.broadcast_shapes(b.shape, s.shape, c.shape, r.shape, at.p.shape)
    b, s, c, r, *parts = (np.broadcast_to(value, shape).ravel() for value in (b, s, c, r, *at))
    place = np.empty((2, b.size))
    pairs = b * (b + 1) // 2
    group = np.cumsum(pairs) // (_MOST * _MOST)
    for g in np.unique(group):
        i = np.flatnonzero(group == g)
        place[:, i] = _ahead(b[i], s[i], c[i], r[i], Threshold(*(part[i] for part in parts)))
    return _law.average(_law.with_hit(p, _law.Logs(*place.reshape(2, *shape))), weight)


def _ahead(b: Whole, s: Whole, c: Whole, r: Floats, at: Threshold) -> Floats:
    """log P(place), log P(no place): averages over the m earlier samples and the j of their own tokens that are rivals.

    Given both, Bin(m(s-1) + k, π) irrelevant candidates are ahead, k uniform below s: with K the kept fraction of N1 at
    BC - j slots, sample by sample (M + s) K(M + s) - M K(M), M = m(s-1), is s P(place).
    """
    pairs = b * (b + 1) // 2
    begin = np.cumsum(pairs) - pairs
    i = np.repeat(np.arange(b.size), pairs)
    t = np.arange(i.size) - begin[i]
    m = ((np.sqrt(8.0 * t + 1) - 1) / 2).astype(np.int64)
    j = t - m * (m + 1) // 2
    chance = np.exp(log_binomial(m, j, Threshold.of(r[i]))) / b[i]
    before, slots = m * (s[i] - 1), b[i] * c[i] - j
    found = []
    with_it, without = (
        _law.kept_fraction(np.maximum(count, 1), slots, Threshold(*(part[i] for part in at)))
        for count in (before + s[i], before)
    )
    for more, fewer in zip(with_it, without):
        share = before / s[i]
        value = np.maximum((1 + share) * np.exp(more) - share * np.exp(fewer), 0.0)
        with np.errstate(divide="ignore"):
            found.append(np.log(np.minimum(np.add.reduceat(chance * value, begin), 1.0)))
    return np.stack(found)


@arguments.broadcasting
def token_choice_success(
    samples: ArrayLike,
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    rival: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Floats:
    """Success rate of token choice when `samples` samples pool their slots, `capacity` each (N10, N1).

    rival: P(another sample's discriminative token is a candidate of the expert), for at most 1024 samples one after
    another; unless given it is the load π, as exchangeable gates make it, and success is then non-decreasing in samples.
    Experts of unequal loads need it. Relative error up to samples x 1e-13. Parameters otherwise as in `token_choice.success`.
    """
    return np.exp(_token_choice(samples, tokens, experts, capacity, hit, top, load, rival, weight).success)


@arguments.broadcasting
def token_choice_failure(
    samples: ArrayLike,
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    rival: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Floats:
    """1 - token_choice_success without cancellation."""
    return np.exp(_token_choice(samples, tokens, experts, capacity, hit, top, load, rival, weight).failure)


@arguments.broadcasting
def token_choice_least_capacity(
    target: ArrayLike,
    samples: ArrayLike,
    tokens: ArrayLike,
    experts: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    rival: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Whole:
    """Least capacity per sample with token_choice_success >= target in (0, 1]; without `rival` non-increasing in samples.

    Raises ValueError, naming the best rate, where no capacity up to `tokens` reaches the target.
    """
    b, s, _ = _pool(samples, tokens, 1)

    def logs(c: Whole) -> _law.Logs:
        return _token_choice(b, s, experts, c, hit, top, load, rival, weight)

    return _law.least_capacity(logs, s, logs(np.ones((), dtype=np.int64)).success.shape, target)


def _resonance(
    samples: ArrayLike,
    tokens: ArrayLike,
    capacity: ArrayLike,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    rival: ArrayLike,
    weight: ArrayLike | None,
) -> _law.Logs:
    sizes = (_law.expand(value, weight) for value in _pool(samples, tokens, capacity))
    h, kappa = arguments.probability("candidate_tail", candidate_tail), arguments.probability("rival", rival)
    arrays = np.broadcast_arrays(*sizes, h, kappa)
    shape = arrays[0].shape
    b, s, c, h, kappa = (value.ravel() for value in arrays)
    slots, others = b * c, b * (s - 1)
    few, many = Threshold.of(kappa), Threshold.of(h)

    def part(which: int) -> Floats:
        def term(i: Whole, j: Whole) -> Floats:
            """log P(j rivals among the other samples' own tokens) P(a place beside them), or its complement."""
            left = np.clip(slots[i] - j, 1, others[i] + 1)
            place = _law.has_place(others[i] + 1, left, Threshold(*(v[i] for v in many)))
            full = slots[i] <= j
            value = np.where(full, 0.0 if which else -np.inf, place[which])
            return log_binomial(b[i] - 1, j, Threshold(*(v[i] for v in few))) + value

        # the j of positive probability: a certain κ or h fixes the counts
        low = np.where(kappa >= 1, b - 1, 0)
        high = np.where(kappa <= 0, 0, b - 1)
        most = np.where(h <= 0, 0, others)  # rivals among the irrelevant tokens, at most; and at least
        least = np.where(h >= 1, others, 0)
        if which:
            low = np.maximum(low, slots - most)
        else:
            high = np.minimum(high, slots - 1 - least)
        return log_concave_sum(term, low, high)

    place = _law.Logs(*(np.minimum(part(which), 0.0).reshape(shape) for which in (0, 1)))
    return _law.average(_law.with_hit(arguments.probability("hit", hit), place), weight)


@arguments.broadcasting
def resonance_success(
    samples: ArrayLike,
    tokens: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    rival: ArrayLike,
    weight: ArrayLike | None = None,
) -> Floats:
    """Success rate of resonance when `samples` samples pool their slots, `capacity` each (N10).

    samples B, tokens s of each, capacity C <= s: whole numbers; hit p, candidate_tail h and rival κ: probabilities, on
    the nodes of the affinity's law if `weight` is given. κ is the chance that another sample's discriminative token is a
    candidate of the expert and outranks this one. samples = 1 is `resonance.success`.
    """
    return np.exp(_resonance(samples, tokens, capacity, hit, candidate_tail, rival, weight).success)


@arguments.broadcasting
def resonance_failure(
    samples: ArrayLike,
    tokens: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    rival: ArrayLike,
    weight: ArrayLike | None = None,
) -> Floats:
    """1 - resonance_success without cancellation."""
    return np.exp(_resonance(samples, tokens, capacity, hit, candidate_tail, rival, weight).failure)


@arguments.broadcasting
def resonance_least_capacity(
    target: ArrayLike,
    samples: ArrayLike,
    tokens: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    rival: ArrayLike,
    weight: ArrayLike | None = None,
) -> Whole:
    """Least capacity per sample with resonance_success >= target in (0, 1]. Parameters as in `resonance_success`.

    Raises ValueError, naming the best rate, where no capacity up to `tokens` reaches the target.
    """
    s = arguments.integer("tokens", tokens, 1, 2**26)

    def logs(c: Whole) -> _law.Logs:
        return _resonance(samples, s, c, hit, candidate_tail, rival, weight)

    return _law.least_capacity(logs, s, logs(np.ones((), dtype=np.int64)).success.shape, target)


@arguments.broadcasting
def rival(affinity: ArrayLike, signal: float, dim: int, experts: int, *, top: int = 1) -> Floats:
    """κ(a) of the planted model: P(a planted token of uniform class has expert i among its `top` best, affinity >= a).

    affinity: in (-1, 1), any shape; signal θ in [0, 10^4], in [0, 6] for dim below 32; 2 <= experts <= dim, dim >= 8;
    1 <= top <= experts. Absolute error below 1e-11 from dim 32 on (`projected`), and 1e-6 below, where more than 64
    affinities are interpolated, to 1e-5. For tokens with other means: `Evolving.rival`.

    Below dim 32: with probability 1/n the token's mean θ lies on gate i, else on another one. Given its projection u on
    gate i, expert i is chosen if fewer than `top` other projections exceed u, and the affinity is >= a if T, the squared
    norm of all that is orthogonal to the gate, is at most u²(1/a²-1) (u > 0). With q = 1+2p each projection of mean μ gives
    E[e^{-px²}; x < u] = q^{-1/2} exp(-pμ²/q) Φ(√q (u - μ/q)), so the joint law of both comes by Laplace inversion, as in G4.
    """
    a = arguments.real("affinity", affinity, -1.0, 1.0, open_low=True, open_high=True)
    d = int(arguments.integer("dim", dim, 8))
    theta = float(arguments.real("signal", signal, 0.0, 1e4 if d >= 32 else 6.0))
    n = int(arguments.integer("experts", experts, 2, d, "dim"))
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
