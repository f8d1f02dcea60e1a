"""Least whole numbers at which growing functions reach a target: few evaluations, each on what is still open."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from resonance_theory.typing import Booleans, Floats, Whole

__all__ = ["near_lost", "near_quantile", "score", "search"]

_BISECT = 4  # every so many steps the middle is tried, so that no curve takes much longer than bisection


def score(log_success: Floats, log_failure: Floats) -> Floats:
    """The normal quantile of a success rate to 0.005 (Abramowitz and Stegun, 26.2.22): nearly linear in the capacity."""
    with np.errstate(invalid="ignore", over="ignore"):
        t = np.sqrt(-2 * np.minimum(np.minimum(log_success, log_failure), 0.0))
        size = t - (2.30753 + 0.27061 * t) / (1 + (0.99229 + 0.04481 * t) * t)
    return np.where(log_failure < log_success, size, -size)


def near_quantile(s: Whole, p: Floats, goal: Floats) -> Floats:
    """About the least C with P(Bin(s-1, p) < C) >= goal: Cornish and Fisher's first term."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = score(np.log(goal), np.log1p(-goal))
        return (s - 1) * p + np.sqrt((s - 1) * p * (1 - p)) * z + (1 - 2 * p) * (z * z - 1) / 6 + 1


def near_lost(s: Whole, p: Floats, goal: Floats) -> Floats:
    """About the least C with E (N - C)_+ <= (1 - goal) E N, N ~ Bin(s, p): a normal law's loss, and its skewness."""
    mean = s * p
    spread = np.sqrt(mean * (1 - p))
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = (1 - goal) * mean / spread
        x = np.where(lost > 8, -lost, np.interp(np.log(lost), *_losses()))
    return np.ceil(mean + spread * x + (1 - 2 * p) * np.maximum(x, 0.0) ** 2 / 6)


@functools.cache
def _losses() -> tuple[Floats, Floats]:
    """log E (Z - x)_+ of a standard normal Z, rising, and x."""
    grid = np.linspace(37.0, -9.0, 921)

    def loss(x: float) -> float:
        density = math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        if x > 10:  # where the difference would cancel
            return density / (x * x + 3)
        return density - 0.5 * x * math.erfc(x / math.sqrt(2))

    return np.log([loss(x) for x in grid]), grid


def search(reached: Callable[[Whole, Whole], tuple[Booleans, Floats]], tokens: Whole, first: Floats) -> Whole:
    """Least C in 1..tokens that reaches, for flat arrays of elements; C = tokens must reach.

    The answers alone move the bracket, so the result is that of bisection; scores only say where to look next.

    Args:
        reached: (elements, C of each) to whether C reaches the target, and to its score, less the target's score.
        tokens: the largest C.
        first: where to begin; nan where nothing is known.
    """
    high, low = tokens.copy(), np.zeros_like(tokens)
    above, below = np.full(high.shape, np.inf), np.full(high.shape, -np.inf)
    i, steps = np.arange(high.size), 0
    known = np.isfinite(first)
    guess = np.where(known, first, _middle(low, high))
    while (still := high[i] - low[i] > 1).any():
        i, guess = i[still], guess[still]
        c = np.clip(guess, low[i] + 1, high[i] - 1).astype(np.int64)
        met, value = reached(i, c)
        up, down = i[met], i[~met]
        high[up], above[up] = c[met], value[met]
        low[down], below[down] = c[~met], value[~met]
        steps += 1
        guess = _middle(low[i], high[i])
        if steps % _BISECT:
            # scores lead astray where a law is no normal one: without a first guess nothing is known of it
            guess = np.where(known[i], _next(low[i], high[i], below[i], above[i], tokens[i]), guess)
    return high


def _middle(low: Whole, high: Whole) -> Floats:
    return ((low + high + 1) // 2).astype(np.float64)


def _next(low: Whole, high: Whole, below: Floats, above: Floats, tokens: Whole) -> Floats:
    """Where the line through both ends reaches the target; through one end, with the slope of a binomial law."""
    with np.errstate(all="ignore"):
        line = np.where(above > 0, high - (high - low) * (above / (above - below)), high - 1)
        # one slot short of the crossing fails, one beyond it reaches: the nearer of the two closes the bracket
        line = np.where(line - low > 0.5 * (high - low), np.floor(line), np.ceil(line))
        spread = np.sqrt(np.maximum(high * (1 - high / tokens), 1.0))
        fall = np.minimum(np.floor(high - above * spread), high - 1)
        spread = np.sqrt(np.maximum(low * (1 - low / tokens), 1.0))
        rise = np.maximum(np.ceil(low - below * spread), low + 1)
    guess = np.where(np.isfinite(above), np.where(np.isfinite(below), line, fall), rise)
    return np.where(np.isfinite(guess), guess, _middle(low, high))
