"""Statistics of the confrontation: exact limits, stated power, and no success by lack of data.

Counts use Clopper-Pearson limits, bounded means empirical Bernstein (Maurer and Pontil 2009, Theorem 4),
distributions the Dvoretzky-Kiefer-Wolfowitz-Massart band. Looking while it runs needs `log_e_value`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.evidence.outcome import Outcome, fails, holds, undecided

__all__ = [
    "ALPHA",
    "at_least",
    "at_most",
    "clopper_pearson",
    "detectable",
    "dkw",
    "empirical_bernstein",
    "equal",
    "log_e_value",
    "row",
    "sample_size",
]

ALPHA = 1e-6
"""False-alarm budget of the whole suite, divided over its tests; also the budget of missed detection of each."""

Floats = NDArray[np.float64]


def _counts(successes: ArrayLike, trials: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n = arguments.integer("trials", trials, 1)
    return arguments.integer("successes", successes, 0, n, "trials"), n


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, alpha: float) -> tuple[Floats, Floats]:
    """Exact two-sided limits (low, high) of a binomial probability, each side missing with probability <= alpha/2.

    Broadcasts. Source: Clopper and Pearson (1934).
    """
    from scipy.special import betaincinv

    k, n = _counts(successes, trials)
    a = arguments.number("alpha", alpha, 0, 1, open_low=True, open_high=True)
    # betaincinv(a, b, 1 - y) loses y below 1e-16, so the upper limit comes from the mirrored lower one.
    with np.errstate(invalid="ignore"):
        low = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1), n - k + 1, a / 2))
        high = np.where(k == n, 1.0, 1.0 - betaincinv(np.maximum(n - k, 1), k + 1, a / 2))
    return low, high


def _upper_critical(p0: Floats, n: NDArray[np.int64], tail: float) -> NDArray[np.int64]:
    """Least k with P(Bin(n, p0) >= k) <= tail, at most n + 1; bisection on all elements at once."""
    from scipy.special import betainc

    low, high = np.zeros_like(n), n + 1  # the condition holds at `high`, fails at `low` (P(K >= 0) = 1)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        met = betainc(np.clip(middle, 1, n), n - np.clip(middle, 1, n) + 1, p0) <= tail
        low, high = np.where(met, low, middle), np.where(met, middle, high)
    return high


def detectable(p0: ArrayLike, trials: ArrayLike, alpha: float, beta: float = ALPHA) -> Floats:
    """Smallest difference d such that a true rate p0 + d, and a true rate p0 - d, is rejected with power 1 - beta.

    The test is `equal`: reject where p0 lies outside the Clopper-Pearson limits at level alpha. Exact, from the
    critical counts; a side on which no rate in [0, 1] reaches the power does not count; infinity where neither does.
    """
    from scipy.special import betaincinv

    n = arguments.integer("trials", trials, 1)
    p, n = np.broadcast_arrays(arguments.probability("p0", p0), n)
    a = arguments.number("alpha", alpha, 0, 1, open_low=True, open_high=True)
    b = arguments.number("beta", beta, 0, 1, open_low=True, open_high=True)

    def above(p: Floats) -> Floats:
        k = _upper_critical(p, n, a / 2)
        reachable = k <= n
        k = np.minimum(k, n)
        # P_{p1}(K >= k) = I_{p1}(k, n-k+1) = 1 - beta, mirrored to keep beta's digits
        return np.where(reachable, 1.0 - betaincinv(n - k + 1, k, b) - p, -np.inf)

    worst = np.maximum(above(p), above(1.0 - p))
    return np.where(worst > 0, worst, np.inf)


def sample_size(p0: float, difference: float, alpha: float, beta: float = ALPHA) -> int:
    """Least number of trials (to within 1 %) for which `detectable(p0, trials, alpha, beta) <= difference`."""
    arguments.real("difference", difference, 0, 1, open_low=True)
    high = 16
    while float(detectable(p0, high, alpha, beta)) > difference:
        high *= 2
        if high > 1 << 48:
            raise ValueError(f"difference = {difference!r} must be large enough for at most 2^48 trials")
    low = high // 2
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        if float(detectable(p0, middle, alpha, beta)) > difference:
            low = middle
        else:
            high = middle
    return high


def row(key: str, successes: int, trials: int, law: float, alpha: float) -> dict[str, Any]:
    """What is recorded of one rate: count, estimate, its limits, the law, and the least difference that would show.

    Args:
        key: What was counted.
        successes: Whole number from 0 to `trials`.
        trials: At least 1.
        law: Exact probability.
        alpha: Level of the limits and of the test, in (0, 1).

    Example:
        >>> row("heads", 500, 1000, 0.5, 0.05)["estimate"]
        0.5
    """
    low, high = clopper_pearson(successes, trials, alpha)
    return {
        "key": key,
        "trials": int(trials),
        "successes": int(successes),
        "estimate": successes / trials,
        "low": float(low),
        "high": float(high),
        "law": float(law),
        "detectable": float(detectable(law, trials, alpha)),
    }


def _report(k: int, n: int, low: float, high: float, sign: str, p0: float) -> str:
    return f"{k}/{n} = {k / n:.6g} in [{low:.6g}, {high:.6g}] against {sign} {p0:.6g}"


def equal(successes: int, trials: int, p0: float, alpha: float) -> Outcome:
    """Test p = p0, two-sided. Passing says only that no difference beyond `detectable` is there."""
    if not 0.0 <= p0 <= 1.0:  # a wrong law may claim what is no probability at all
        return fails(f"the law claims {p0:.6g}, which is no probability")
    low, high = (float(v) for v in clopper_pearson(successes, trials, alpha))
    limit = float(detectable(p0, trials, alpha))
    text = _report(successes, trials, low, high, "=", p0) + f"; detects a difference of {limit:.2g}"
    if not low <= p0 <= high:
        return fails(text)
    # A test that could not see even the largest possible difference has decided nothing.
    return holds(text) if limit < 1 else undecided(text)


def at_most(successes: int, trials: int, bound: float, alpha: float) -> Outcome:
    """Test p <= bound: holds if the upper limit is at most the bound, fails if the lower limit exceeds it."""
    low, high = (float(v) for v in clopper_pearson(successes, trials, alpha))
    text = _report(successes, trials, low, high, "<=", bound)
    return fails(text) if low > bound else holds(text) if high <= bound else undecided(text)


def at_least(successes: int, trials: int, bound: float, alpha: float) -> Outcome:
    """Test p >= bound: holds if the lower limit is at least the bound, fails if the upper limit is below it."""
    low, high = (float(v) for v in clopper_pearson(successes, trials, alpha))
    text = _report(successes, trials, low, high, ">=", bound)
    return fails(text) if high < bound else holds(text) if low >= bound else undecided(text)


def empirical_bernstein(
    total: ArrayLike, total_of_squares: ArrayLike, trials: ArrayLike, scale: float, alpha: float
) -> tuple[Floats, Floats]:
    """Two-sided limits (low, high) of the mean of i.i.d. values in [0, scale] from their sum and sum of squares."""
    n = arguments.integer("trials", trials, 2)
    s = arguments.real("total", total, 0.0)
    ss = arguments.real("total_of_squares", total_of_squares, 0.0)
    width = arguments.number("scale", scale, 0.0, open_low=True)
    a = arguments.number("alpha", alpha, 0, 1, open_low=True, open_high=True)
    mean = s / n
    variance = np.maximum(ss - s * mean, 0.0) / (n - 1)
    log = math.log(4 / a)
    radius = np.sqrt(2 * variance * log / n) + 7 * width * log / (3 * (n - 1))
    return np.maximum(mean - radius, 0.0), np.minimum(mean + radius, width)


def dkw(trials: ArrayLike, alpha: float) -> Floats:
    """Half-width of the band around an empirical distribution function that misses with probability <= alpha.

    Source: Massart (1990), P(sup |F_n - F| > e) <= 2 exp(-2 n e^2).
    """
    n = arguments.integer("trials", trials, 1)
    a = arguments.number("alpha", alpha, 0, 1, open_low=True, open_high=True)
    return np.sqrt(math.log(2 / a) / (2 * n))


def log_e_value(successes: ArrayLike, trials: ArrayLike, p0: ArrayLike) -> Floats:
    """Logarithm of an e-value against p = p0 that stays valid under any stopping rule (beta-binomial mixture).

    Under p0 the e-process is a martingale of mean 1, so P(it ever reaches 1/alpha) <= alpha (Ville): reject once
    the value returned is at least log(1/alpha), however often it is looked at.
    """
    from scipy.special import betaln, xlog1py, xlogy

    n = arguments.integer("trials", trials, 0)
    k = arguments.integer("successes", successes, 0, n, "trials")
    p = arguments.probability("p0", p0)
    value: Floats = betaln(0.5 + k, 0.5 + n - k) - betaln(0.5, 0.5) - xlogy(k, p) - xlog1py(n - k, -p)
    return value
