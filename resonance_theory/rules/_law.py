"""What the exact laws of the rules share: one tail with its edges, and averages."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules._beta import Threshold, tail
from resonance_theory.typing import ArrayLike, Floats, Whole

_CHUNK = 8192  # elements at a time


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


def _by_chunks(law: Callable[[Whole, Whole, Threshold], Logs]) -> Callable[[Whole, Whole, Threshold], Logs]:
    """The same law, a bounded number of elements at a time: its dozens of temporaries stay in cache."""

    @functools.wraps(law)
    def call(s: Whole, c: Whole, at: Threshold) -> Logs:
        shape = np.broadcast_shapes(np.shape(s), np.shape(c), at.p.shape)
        size = math.prod(shape)
        if size <= _CHUNK:
            return law(s, c, at)
        fields: list[Any] = [np.broadcast_to(part, shape).reshape(-1) for part in (s, c, *at)]
        result = Logs(np.empty(size), np.empty(size))
        for start in range(0, size, _CHUNK):
            piece = slice(start, start + _CHUNK)
            tokens, capacity, *parts = (part[piece] for part in fields)
            for whole, found in zip(result, law(tokens, capacity, Threshold(*parts))):
                whole[piece] = found
        return Logs(*(whole.reshape(shape) for whole in result))

    return call


@_by_chunks
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


@_by_chunks
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
    return Logs(log_hit + place.success, np.minimum(np.logaddexp(log_miss, log_hit + place.failure), 0.0))


def average(logs: Logs, weight: Floats | None) -> Logs:
    """Average over the last axis with the given weights; unchanged without."""
    if weight is None:
        return logs
    with np.errstate(divide="ignore"):
        log_w = np.log(weight)
    # the weights sum to 1 up to rounding only
    return Logs(*(np.minimum(np.logaddexp.reduce(value + log_w, axis=-1), 0.0) for value in logs))
