"""Mixtures of binomial tails: sums of log-concave sequences, taken where their terms matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from resonance_theory.rules._beta import Threshold, difference, log_mass

__all__ = ["log_binomial", "log_concave_sum"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_DEPTH = 45.0  # terms below exp(-45) of the largest are left out: by log-concavity the rest is below 1e-17 of the sum
_CHUNK = 1 << 20


def log_binomial(trials: Whole, count: Whole, at: Threshold) -> Floats:
    """log P(Bin(trials, p) = count), 0 <= count <= trials, for any p in [0, 1]; arrays of one shape."""
    inside = (at.p > 0) & (at.q > 0)
    safe = Threshold(*(np.where(inside, part, value) for part, value in zip(at, (0.5, 0.0, 0.5, 0.0))))
    m, k = trials.astype(np.float64), count.astype(np.float64)
    value = log_mass(m, k, safe, -difference(k, m, safe.p, safe.p_low))
    certain = np.where(at.p <= 0, count == 0, count == trials)
    return np.where(inside, value, np.where(certain, 0.0, -np.inf))


def log_concave_sum(term: Callable[[Whole, Whole], Floats], low: Whole, high: Whole) -> Floats:
    """log Σ_{j=low..high} exp(term(i, j)) for every element i; -inf where low > high.

    term(i, j) takes arrays of elements and of indices and returns finite logarithms, log-concave in j. Mode and ends of
    the window are found by bisection, so the cost is that of the terms that matter.
    """
    result = np.full(low.shape, -np.inf)
    i = np.flatnonzero(low <= high)
    if i.size == 0:
        return result

    def search(a: Whole, b: Whole, rising: Callable[[Whole], NDArray[np.bool_]]) -> Whole:
        """Least j in [a, b] with `rising(j)` false, or b."""
        a, b = a.copy(), b.copy()
        while np.any(a < b):
            middle = (a + b) // 2
            up = rising(middle)
            a, b = np.where((a < b) & up, middle + 1, a), np.where((a < b) & ~up, middle, b)
        return a

    first, last = low[i], high[i]

    def climbs(j: Whole) -> NDArray[np.bool_]:
        return (j < last) & (term(i, np.minimum(j + 1, last)) > term(i, j))

    mode = search(first, last, climbs)
    floor = term(i, mode) - _DEPTH
    start = search(first, mode, lambda j: term(i, j) < floor)
    end = search(mode, last, lambda j: term(i, np.minimum(j + 1, last)) >= floor)
    size = end - start + 1
    # runs of elements of bounded total size; an element's own window may exceed it
    group = np.cumsum(size) // _CHUNK
    for g in np.unique(group):
        part = np.flatnonzero(group == g)
        offset = np.concatenate([[0], np.cumsum(size[part])])
        owner = np.repeat(part, size[part])
        j = np.arange(offset[-1]) - np.repeat(offset[:-1], size[part]) + start[owner]
        peak = floor[owner] + _DEPTH
        value = np.exp(term(i[owner], j) - peak)
        result[i[part]] = np.log(np.add.reduceat(value, offset[:-1])) + floor[part] + _DEPTH
    return result
