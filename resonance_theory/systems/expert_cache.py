"""Experts in a cache of fast memory: loads on demand, slots split over layers, hit rates (AdapMoE, arXiv 2408.10284).

A model larger than its fast memory keeps some experts of each layer there and loads the others when a token asks for them.
AdapMoE lets insensitive layers use one expert, prefetches one expert by a guess, and splits the cache over the layers.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike

__all__ = ["allocate_slots", "che_hit_rate", "expected_loads", "keeps_one", "lru_hit_rate", "static_hit_rate"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
_MOST = 16  # experts up to which the exact law of LRU is summed, over all their sets


def keeps_one(second: ArrayLike, sensitivity: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Whether a token is given to its first expert alone: w₂ < sqrt(T / F), F the layer's sensitivity.

    Args:
        second: Gate weight of the second expert, in [0, 1/2] where weights sum to 1.
        sensitivity: F > 0, the layer's Fisher weight; broadcast with second.
        threshold: T, at least 0.

    Returns:
        Booleans of the broadcast shape.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> keeps_one([0.05, 0.3], [[46.7], [0.02]], threshold=0.005).tolist()
        [[False, False], [True, True]]
    """
    w = arguments.real("second", second, 0.0, 1.0)
    f = arguments.real("sensitivity", sensitivity, 0.0, open_low=True)
    return w < np.sqrt(arguments.number("threshold", threshold, 0.0) / f)


def expected_loads(experts: int, single: ArrayLike = 0.0, accuracy: ArrayLike = 0.0) -> Floats:
    """Experts that a token makes load on demand, for 0, 1, ..., n slots of the layer's cache.

    (1-a)(r + 2(1-r))(1 - t/n) + a (1-r) (n-t)(n-t-1)/(n(n-1)): tokens choose one expert with probability r, else two, all
    experts alike; with probability a one of the missing experts was prefetched. Claim: expert_cache_loads.

    Args:
        experts: n, at least 2.
        single: r in [0, 1], any shape.
        accuracy: a in [0, 1], broadcast with single.

    Returns:
        The broadcast shape with a last axis of n + 1; falling and convex along it, 0 at n slots.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> expected_loads(8, single=0.25, accuracy=0.8).round(3)[[0, 1, 4, 8]].tolist()
        [0.95, 0.756, 0.304, 0.0]
    """
    n = arguments.whole("experts", experts, 2)
    r, a = (arguments.probability(k, v)[..., None] for k, v in (("single", single), ("accuracy", accuracy)))
    t = np.arange(n + 1, dtype=np.float64)
    both = (n - t) * (n - t - 1) / (n * (n - 1))
    return (1 - a) * (r + 2 * (1 - r)) * (1 - t / n) + a * (1 - r) * both


def allocate_slots(loads: ArrayLike, slots: int, least: int = 0) -> Whole:
    """Slots of each layer that make the sum of the loads least, exactly.

    Where every layer's loads are convex the slot that saves most is taken again and again (claim: expert_cache_greedy); else
    a dynamic programme over the layers.

    Args:
        loads: Loads of each layer with 0, 1, ..., n slots, shape (layers, n+1), finite.
        slots: Of all layers together, between least · layers and n · layers.
        least: Slots that every layer gets, 0 to n.

    Returns:
        Slots of each layer, (layers,).

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> allocate_slots([[4, 2, 1], [3, 2.5, 2.2]], slots=2).tolist()
        [2, 0]
        >>> allocate_slots([[4, 2, 1], [3, 2.5, 2.2]], slots=2, least=1).tolist()
        [1, 1]
    """
    table = arguments.real("loads", loads)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise ValueError(f"loads has shape {table.shape} but must have shape (layers, slots + 1)")
    layers, most = table.shape[0], table.shape[1] - 1
    floor = arguments.whole("least", least, 0, most)
    total = arguments.whole("slots", slots, layers * floor, layers * most)
    step = np.diff(table[:, floor:], axis=1)
    # sums of fractions: a saving equal to the one before must not be lost to rounding
    size = np.abs(table).max()
    if (np.diff(step, axis=1) >= -1e-12 * size).all():
        return floor + _greedy(step, total - layers * floor)
    return floor + _programme(table[:, floor:], total - layers * floor)


def _greedy(step: Floats, slots: int) -> Whole:
    taken = np.zeros(len(step), np.int64)
    queue = [(row[0], i) for i, row in enumerate(step) if row.size]
    heapq.heapify(queue)
    for _ in range(slots):
        _, i = heapq.heappop(queue)
        taken[i] += 1
        if taken[i] < step.shape[1]:
            heapq.heappush(queue, (step[i, taken[i]], i))
    return taken


def _programme(table: Floats, slots: int) -> Whole:
    best, choices = np.full(slots + 1, np.inf), []
    best[0] = 0.0
    for row in table:
        options = np.full((row.size, slots + 1), np.inf)
        for t, price in enumerate(row[: slots + 1]):
            options[t, t:] = best[: slots + 1 - t] + price
        choices.append(options.argmin(axis=0))
        best = options.min(axis=0)
    taken, left = [], slots
    for choice in reversed(choices):
        taken.append(int(choice[left]))
        left -= taken[-1]
    return np.array(taken[::-1], np.int64)


def _requests(shares: ArrayLike, slots: int) -> tuple[Floats, int]:
    p = arguments.distribution("shares", shares)
    if p.ndim != 1:
        raise ValueError(f"shares has shape {p.shape} but must have shape (experts,)")
    return p, arguments.whole("slots", slots, 0, p.size, "experts")


def static_hit_rate(shares: ArrayLike, slots: int) -> float:
    """Share of the requests that find their expert where the most used ones stay in the cache.

    No cache that loads on demand does better where requests are independent. Claim: expert_cache_lru.

    Args:
        shares: Of the requests, for each expert, (experts,), summing to 1.
        slots: 0 to experts.

    Returns:
        In [0, 1].

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> static_hit_rate([0.4, 0.3, 0.2, 0.1], 2)
        0.7
    """
    p, size = _requests(shares, slots)
    return float(min(np.sort(p)[::-1][:size].sum(), 1.0))


def lru_hit_rate(shares: ArrayLike, slots: int) -> float:
    """The same where the cache holds the experts that were used last (LRU), for independent requests; exact.

    The order of last use is that of drawing experts without replacement with the shares as weights (King 1971); this sums over
    all sets of experts, up to 16 of them. Claim: expert_cache_lru.

    Args:
        shares: Of the requests, for each expert, (experts,), summing to 1.
        slots: 0 to experts.

    Returns:
        In [0, 1].

    Raises:
        ValueError: An argument is outside its range, or there are more than 16 experts: take `che_hit_rate`.

    Example:
        >>> round(lru_hit_rate([0.4, 0.3, 0.2, 0.1], 2), 4), round(lru_hit_rate([0.25] * 4, 2), 4)
        (0.5806, 0.5)
    """
    p, size = _requests(shares, slots)
    p = p[p > 0]
    if p.size > _MOST:
        raise ValueError(f"shares has {p.size} experts above 0 but must have at most {_MOST}: take che_hit_rate")
    if size >= p.size:
        return 1.0
    share = p.tolist()
    chance = {0: 1.0}  # sets of the experts used last, as bits
    for _ in range(size):
        grown: dict[int, float] = {}
        for held, probability in chance.items():
            others = [i for i in range(p.size) if not held >> i & 1]
            rest = sum(share[i] for i in others)  # not 1 less the others: small shares would be lost
            for i in others:
                grown[held | 1 << i] = grown.get(held | 1 << i, 0.0) + probability * share[i] / rest
        chance = grown
    found = (
        probability * sum(share[i] for i in range(p.size) if held >> i & 1) for held, probability in chance.items()
    )
    return float(sum(found))


def che_hit_rate(shares: ArrayLike, slots: int) -> float:
    """Che's approximation of `lru_hit_rate`, for any number of experts.

    An expert is found if it was used within the time τ in which slots experts are used: Σ (1 - exp(-p τ)) = slots.

    Args:
        shares: Of the requests, for each expert, (experts,), summing to 1.
        slots: 0 to experts.

    Returns:
        In [0, 1]; for 8 experts off by up to 0.08 where shares are very unequal, by 0.01 where they are alike.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> round(che_hit_rate([0.4, 0.3, 0.2, 0.1], 2), 4)
        0.573
    """
    p, size = _requests(shares, slots)
    p = p[p > 0]
    if size >= p.size:
        return 1.0
    if size == 0:
        return 0.0

    def excess(tau: float) -> float:
        return float(-np.expm1(-p * tau).sum() - size)

    high = 1.0
    while excess(high) < 0:
        high *= 2
    tau = brentq(excess, 0.0, high, xtol=1e-12 * high)
    return float(-(p * np.expm1(-p * tau)).sum())
