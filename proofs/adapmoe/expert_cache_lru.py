"""Independent requests: LRU's hit rate is a sum over sets of experts, and never above that of the most used experts.

The experts in the order of their last use are drawn without replacement with the shares as weights (King 1971): the last
request is expert i with probability p_i, the last request for another one is j with probability p_j/(1-p_i), and so on. LRU
keeps the first C. The next request is independent of them, so the hit rate is the mean of the held experts' shares, Σ_S P(S)
Σ_{i∈S} p_i. Whatever a cache holds, C experts have at most the sum of the C largest shares, so no rule that does not know the
future beats the static cache of the most used ones. With equal shares all of them hit C/n. Real tokens repeat their experts
more than that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.expert_cache import che_hit_rate, lru_hit_rate, static_hit_rate

CASES = [[4, 3, 2, 1], [1, 1, 1, 1], [9, 1, 1, 1, 1], [5, 4, 3, 2, 1, 1]]


def side(left: Callable[[Any], Any]) -> SimpleNamespace:
    """`left(shares already drawn)`: what the next expert's share is divided by."""
    return SimpleNamespace(left=left)


def rate(s: SimpleNamespace, shares: list[Fraction], slots: int) -> Any:
    """Sum over the orders of the last C experts."""
    total: Any = 0
    for order in itertools.permutations(range(len(shares)), slots):
        chance, drawn = Fraction(1), Fraction(0)
        for i in order:
            chance *= shares[i] / s.left(drawn)
            drawn += shares[i]
        total += chance * drawn
    return total


claim = Claim(
    title="LRU hits the mean share of a weighted sample of experts, at most the sum of the largest shares",
    statement=r"LRU's hit rate is $\sum_{|S|=C}P(S)\sum_{i\in S}p_i$, $P$ sampling without replacement by the shares, "
    "and at most the sum of the C largest",
    hypotheses=("requests are independent with fixed shares",),
    source="new; the cache is AdapMoE released code: one for each layer (PKU-SEC-Lab/AdapMoE at 2cfe8df)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda drawn: 1 - drawn),
    mutant=side(lambda drawn: Fraction(1)),
    mutation="experts drawn with replacement",
)


@claim.certificate("the stationary law of the order of last use, solved exactly; and the bound")
def stationary(s: SimpleNamespace) -> Outcome:
    for weights in CASES[:3]:
        shares = [Fraction(w, sum(weights)) for w in weights]
        orders = list(itertools.permutations(range(len(shares))))

        def chance(order: tuple[int, ...], shares: list[Fraction] = shares) -> Fraction:
            value, drawn = Fraction(1), Fraction(0)
            for i in order[:-1]:
                value *= shares[i] / s.left(drawn)
                drawn += shares[i]
            return value

        flow = dict.fromkeys(orders, Fraction(0))
        for order in orders:
            for i, share in enumerate(shares):
                flow[(i, *(j for j in order if j != i))] += chance(order) * share
        if any(flow[order] != chance(order) for order in orders) or sum(flow.values()) != 1:
            return fails(f"shares {weights}: a request changes the law of the order, or it does not sum to 1")
        for slots in range(len(shares) + 1):
            if rate(s, shares, slots) > sum(sorted(shares, reverse=True)[:slots], Fraction(0)):
                return fails(f"shares {weights}, {slots} slots: above the static cache")
    return holds(
        "three sets of shares: a request leaves the law of the order as it is, and no rate is above the static one"
    )


@claim.reference("the package: exact, static, and how far Che's approximation is off")
def by_package(s: SimpleNamespace) -> Outcome:
    worst, off = 0.0, 0.0
    for weights in CASES:
        shares = [Fraction(w, sum(weights)) for w in weights]
        floats = [float(v) for v in shares]
        for slots in range(1, len(shares) + 1):
            exact = float(rate(s, shares, slots))
            worst = max(worst, abs(lru_hit_rate(floats, slots) - exact))
            off = max(off, abs(che_hit_rate(floats, slots) - exact))
            if static_hit_rate(floats, slots) < exact - 1e-12:
                return fails(f"shares {weights}, {slots} slots: static below LRU")
    text = f"exact within {worst:.1g}; Che's approximation off by {off:.4f} at most"
    return holds(text) if worst < 1e-12 else fails(text)


def sample(rng: np.random.Generator, trials: int, *, shares: list[float], slots: int) -> dict[str, int]:
    """Hits of a cache that is kept by hand; every 50th request counts, so that they are nearly independent."""
    hits, held = 0, list(range(len(shares)))
    for i, expert in enumerate(rng.choice(len(shares), size=50 * trials, p=shares).tolist()):
        place = held.index(expert)
        hits += place < slots and i % 50 == 49
        held.insert(0, held.pop(place))
    return {"hits": hits}


claim.simulate(
    sample,
    cases=[{"shares": [0.4, 0.3, 0.2, 0.1], "slots": 2}],
    law=lambda s, *, shares, slots: {"hits": float(rate(s, [Fraction(str(v)) for v in shares], slots))},
    trials=20_000,
)
