"""Bit widths of experts under a budget are a knapsack of choices: exact by a dynamic programme, not by the best step each time.

Let f_i(b) be the least cost of the first i experts with b bits in all. Then f_i(b) is the least over widths j of f_{i-1}(b - j)
plus expert i's cost at j, since the other experts' choice does not depend on i's. So the programme is exact for all costs.
Taking the bit that saves most each time is exact where every expert's cost is convex in its bits; Mixtral's published errors
are so for 30 of 256 experts only. With costs 9, 9, 0 and 5, 3, 2 and four bits it pays 11 where 5 is enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.bit_allocation import allocate_bits

Costs = list[list[Fraction]]
BITS = (1, 2, 3)


def programme(cost: Costs, budget: int) -> Fraction:
    """Least cost by the recursion over experts."""
    best: dict[int, Fraction] = {0: Fraction(0)}
    for row in cost:
        grown: dict[int, Fraction] = {}
        for spent, paid in best.items():
            for bits, price in zip(BITS, row):
                total = spent + bits
                grown[total] = min(grown.get(total, paid + price), paid + price)
        best = grown
    return best[budget]


def greedy(cost: Costs, budget: int) -> Fraction:
    """The bit that saves most, again and again."""
    bits = [1] * len(cost)
    for _ in range(budget - len(cost)):
        open_ = [i for i, b in enumerate(bits) if b < 3]
        bits[max(open_, key=lambda i: (cost[i][bits[i] - 1] - cost[i][bits[i]], -i))] += 1
    return sum((row[b - 1] for row, b in zip(cost, bits)), Fraction(0))


def side(least: Callable[[Costs, int], Fraction]) -> SimpleNamespace:
    """`least(cost, budget)`: the cost that the rule reaches."""
    return SimpleNamespace(least=least)


claim = Claim(
    title="Bits of experts under a budget: the dynamic programme is exact for all costs, greedy is not",
    statement=r"$f_i(b)=\min_j f_{i-1}(b-j)+c_{ij}$ gives the least $\sum_ic_{i,b_i}$ at $\sum_ib_i=B$, $b_i\in\{1,2,3\}$",
    hypotheses=("the cost is a sum over experts",),
    source="MC-MoE eq. 4: integer programme; MC-MoE abstract: linear programming (arXiv 2410.06270)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(programme),
    mutant=side(greedy),
    mutation="the bit that saves most, again and again",
)


@claim.certificate("all allocations of small layers in exact fractions, convex costs and others")
def enumerated(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(0)
    for _ in range(60):
        experts = int(rng.integers(2, 6))
        table = -np.sort(-rng.integers(0, 50, (experts, 3)), axis=1)
        cost = [[Fraction(int(v)) for v in row] for row in table]
        for budget in range(experts, 3 * experts + 1):
            splits = (b for b in itertools.product(BITS, repeat=experts) if sum(b) == budget)
            least = min(sum((row[j - 1] for row, j in zip(cost, b)), Fraction(0)) for b in splits)
            if s.least(cost, budget) != least:
                return fails(f"{table.tolist()} at {budget} bits: {s.least(cost, budget)}, least {least}")
    return holds("60 layers at every budget")


@claim.reference("the package's allocation")
def by_package(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(1)
    for _ in range(40):
        experts = int(rng.integers(2, 17))
        table = rng.random((experts, 3))
        budget = int(rng.integers(experts, 3 * experts + 1))
        found = table[np.arange(experts), allocate_bits(table, budget) - 1].sum()
        wanted = s.least([[Fraction(float(v)) for v in row] for row in table], budget)
        if abs(found - float(wanted)) > 1e-12:
            return fails(f"{experts} experts, {budget} bits: {found}, claimed {float(wanted)}")
    return holds("40 layers of up to 16 experts: the same cost")
