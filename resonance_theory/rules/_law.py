"""What the exact laws of the three rules share: one tail with its edges, averages, and the least capacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.rules._beta import Threshold, tail

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


class Logs(NamedTuple):
    """Logarithms of a probability and of its complement, each without cancellation."""

    success: Floats
    failure: Floats


def sizes(tokens: ArrayLike, capacity: ArrayLike) -> tuple[Whole, Whole]:
    s = arguments.integer("tokens", tokens, 1, 2**52)
    return s, arguments.integer("capacity", capacity, 1, s, "tokens")


def _log1mexp(x: Floats) -> Floats:
    """log(1 - exp(x)) for x <= 0."""
    with np.errstate(divide="ignore"):
        return np.where(x > -0.6931471805599453, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))


def _interior(s: Whole, c: Whole, at: Threshold) -> tuple[Any, ...]:
    """Broadcast everything, and put harmless values where the answer is known without a tail."""
    s, c, *parts = np.broadcast_arrays(s, c, *at)
    inside = (c < s) & (parts[0] > 0) & (parts[2] > 0)
    safe = Threshold(*(np.where(inside, part, value) for part, value in zip(parts, (0.5, 0.0, 0.5, 0.0))))
    return s, c, Threshold(*parts), inside, tail(np.where(inside, s, 2), np.where(inside, c, 1), safe), safe


def has_place(s: Whole, c: Whole, rival: Threshold) -> Logs:
    """P(Bin(s-1, h) <= C-1) and its complement: at most C-1 of the s-1 others outrank the token."""
    s, c, rival, inside, t, _ = _interior(s, c, rival)
    other = _log1mexp(np.minimum(t.log_mass, 0.0))
    # the tail V < h is the failure, the tail V > h the success
    success = np.where(t.lower, other, t.log_mass)
    failure = np.where(t.lower, t.log_mass, other)
    certain = (c >= s) | (rival.p == 0)
    success = np.where(inside, success, np.where(certain, 0.0, -np.inf))
    failure = np.where(inside, failure, np.where(certain, -np.inf, 0.0))
    return Logs(success, failure)


def kept_fraction(s: Whole, c: Whole, load: Threshold) -> Logs:
    """E min(1, C/(N+1)) with N ~ Bin(s-1, π), the fraction of candidates that find a place, and its complement."""
    s, c, load, inside, t, safe = _interior(s, c, load)
    log_load = np.log(safe.p)
    lost = np.exp(np.minimum(t.log_mean - log_load, 0.0))  # E (π-V)_+/π, used where V < π is the shorter side
    spare = np.exp(t.log_mean)  # E (V-π)_+, used where V > π is
    with np.errstate(divide="ignore"):
        success = np.where(t.lower, np.log1p(-lost), np.log(np.where(t.lower, 1.0, c / s - spare)) - log_load)
        failure = np.where(
            t.lower, t.log_mean - log_load, np.log(np.where(t.lower, 1.0, spare - t.excess / s)) - log_load
        )
        # all tokens are candidates (π = 1): exactly C of s are kept; no capacity limit, or no rivals: all
        full = (load.q == 0) & (c < s)
        success = np.where(inside, success, np.where(full, np.log(c / s), 0.0))
        failure = np.where(inside, failure, np.where(full, np.log(np.maximum(s - c, 1) / s), -np.inf))
    return Logs(np.minimum(success, 0.0), np.minimum(failure, 0.0))


def with_hit(hit: Floats, place: Logs) -> Logs:
    """Success needs the hit and a place; failure is a miss, or a hit without one."""
    with np.errstate(divide="ignore"):
        log_hit, log_miss = np.log(hit), np.log1p(-hit)
    return Logs(log_hit + place.success, np.logaddexp(log_miss, log_hit + place.failure))


def average(logs: Logs, weight: ArrayLike | None) -> Logs:
    """Average over the last axis with the given weights; unchanged without."""
    if weight is None:
        return logs
    w = arguments.distribution("weight", weight)
    try:
        np.broadcast_shapes(logs.success.shape, w.shape)
    except ValueError:
        raise ValueError(
            f"weight has shape {w.shape} but must broadcast with the other arguments' shape {logs.success.shape}"
        ) from None
    with np.errstate(divide="ignore"):
        log_w = np.log(w)
    return Logs(*(np.logaddexp.reduce(value + log_w, axis=-1) for value in logs))


def expand(value: ArrayLike, weight: ArrayLike | None) -> Any:
    """Give whole-number arguments an axis of length 1 under the law's axis, unless they are scalars or have one."""
    return value if weight is None else np.asarray(value)[..., None]


def least_capacity(logs: Callable[[Whole], Logs], tokens: Whole, shape: tuple[int, ...], target: ArrayLike) -> Whole:
    """Least C in 1..tokens with success >= target, by bisection on all elements at once.

    `logs(C)` gives the law at capacities C of the result's shape. Targets from 1/2 on are compared by the failure
    probability, 1 - target being exact there, so that a target of 1 - 1e-12 is met to the last digit.
    Raises ValueError where even C = tokens falls short.
    """
    goal = arguments.real("target", target, 0.0, 1.0, open_low=True)
    shape = np.broadcast_shapes(shape, goal.shape, np.shape(tokens))
    goal = np.broadcast_to(goal, shape)

    def reached(c: Whole) -> NDArray[np.bool_]:
        value = logs(c)
        return np.where(goal >= 0.5, np.exp(value.failure) <= 1.0 - goal, np.exp(value.success) >= goal)

    high = np.broadcast_to(np.asarray(tokens), shape).astype(np.int64)
    met = reached(high)
    if not np.all(met):
        index = tuple(int(i) for i in np.argwhere(~met)[0])
        best = float(np.exp(np.broadcast_to(logs(high).success, shape)[index]))
        where = f"[{', '.join(map(str, index))}]" if index else ""
        raise ValueError(
            f"target{where} = {float(goal[index])!r} cannot be reached: "
            f"at the largest capacity, tokens = {int(high[index])}, the success rate is {best:.12g}"
        )
    low = np.zeros(shape, dtype=np.int64)
    while np.any(high - low > 1):
        middle = (low + high + 1) // 2
        met = reached(middle)
        # where the bracket is closed, middle == high: nothing moves
        high, low = np.where(met, middle, high), np.where(met, low, np.minimum(middle, high - 1))
    return high


def kl(x: Floats, p: Floats) -> Floats:
    """KL(Bernoulli(x) ‖ Bernoulli(p)) in nats, 0 <= x <= 1; infinite where p excludes x."""
    from scipy.special import rel_entr

    return rel_entr(x, p) + rel_entr(1 - x, 1 - p)


def chernoff(s: Whole, c: Whole, h: Floats) -> tuple[Floats, Floats]:
    """KL bounds (lower, upper) of P(Bin(s-1, h) <= C-1); 0 or 1 on the side of the mean where Chernoff is silent."""
    m = np.maximum(s - 1, 1).astype(np.float64)
    over, under = np.minimum(c / m, 1.0), (c - 1) / m
    lower = np.where(over >= h, -np.expm1(-m * kl(over, h)), 0.0)
    upper = np.where(under <= h, np.exp(-m * kl(under, h)), 1.0)
    certain = c >= s
    return np.where(certain, 1.0, np.clip(lower, 0, 1)), np.where(certain, 1.0, upper)


def zubkov_serov(s: Whole, c: Whole, h: Floats) -> tuple[Floats, Floats]:
    """Normal bounds (lower, upper) of P(Bin(M, h) <= k), M = s-1, k = C-1 < M: Φ(H(k)) and Φ(H(k+1)) with
    H(k) = sgn(k/M - h) sqrt(2 M KL(k/M ‖ h)); exact at the ends. Source: Zubkov and Serov (2013), Theorem 1."""
    from scipy.special import ndtr, xlog1py

    m = np.maximum(s - 1, 1).astype(np.float64)

    def normal(k: Floats) -> Floats:
        x = np.minimum(k / m, 1.0)
        return ndtr(np.sign(x - h) * np.sqrt(2 * m * kl(x, h)))

    none = np.exp(xlog1py(m, -h))  # P(no rival)
    lower = np.where(c == 1, none, normal((c - 1).astype(np.float64)))
    upper = np.where(c == 1, np.minimum(none, 1.0), normal(c.astype(np.float64)))
    with np.errstate(divide="ignore"):
        upper = np.where((c == s - 1) & (c > 1), -np.expm1(m * np.log(h)), upper)
    certain = c >= s
    return np.where(certain, 1.0, lower), np.where(certain, 1.0, upper)
