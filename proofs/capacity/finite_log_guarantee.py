"""N14. A capacity from a finite log that holds the next steps' drop with a stated confidence, whatever the loads' law.

Let C_1..C_m and D_1..D_r be the least capacities of the logged and of the next steps. A step's drop falls with the capacity, so
it is held exactly if the capacity is at least its own. Without ties all D are at most the k-th smallest C exactly if the m-k+1
largest of the m+r values are all logged ones. In an exchangeable order the largest is a logged one with probability m/(m+r),
the next (m-1)/(m+r-1), ..., the last k/(k+r):
    P = Π_{j=k..m} j/(j+r) = C(k+r-1, r)/C(m+r, r),        k/(m+1) for r = 1.
Ties broken at random keep the event's part in which D lies below C in the broken order, so they can only help.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import permutations, product
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.logs import guarantee, least_capacities

k, m, r = sp.symbols("k m r", integer=True, positive=True)


def side(value: Callable[[int, int, int], Fraction], symbolic: sp.Expr) -> SimpleNamespace:
    return SimpleNamespace(value=value, symbolic=symbolic)


claim = Claim(
    title="A capacity from a finite log holds the next steps with a stated confidence, whatever the loads' law",
    statement=r"if $m$ logged and $r$ next steps are exchangeable, the $k$-th smallest of the logged steps' least capacities "
    r"holds the drop of all $r$ at or below the target with probability at least $\binom{k+r-1}{r}/\binom{m+r}{r}$, "
    r"$\frac{k}{m+1}$ for $r=1$; equal without ties. So confidence $1-\delta$ needs $m\geq r(1-\delta)/\delta$ steps",
    hypotheses=(r"logged and next steps exchangeable; $1\leq k\leq m$; the drop of a step falls with the capacity",),
    source="new; order statistics as in conformal prediction (Vovk, Gammerman, Shafer 2005)",
    tag="N14",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(
        lambda rank, steps, ahead: Fraction(comb(rank + ahead - 1, ahead), comb(steps + ahead, ahead)),
        sp.binomial(k + r - 1, r) / sp.binomial(m + r, r),
    ),
    mutant=side(lambda rank, steps, ahead: Fraction(rank, steps) ** ahead, (k / m) ** r),
    mutation="the share of logged steps that the capacity holds, (k/m)^r",
    lemmas=("exchangeable values without ties come in every order with the same probability",),
)


@claim.derivation("for all k, m and r: one more rank is a factor k/(k+r), and rank m gives m/(m+r)")
def product_of_places(side: SimpleNamespace) -> Outcome:
    def same(left: sp.Expr, right: sp.Expr, name: str) -> Outcome:
        return identity(sp.combsimp(left.rewrite(sp.gamma)), right, points=[{k: 3, m: 7, r: 2}], name=name)

    steps = r * (1 - 1 / (k + 1)) * (k + 1)  # r (1-δ)/δ with δ = 1/(k+1), where m/(m+r) is 1 - δ
    return every(
        [
            same(side.symbolic / side.symbolic.subs(k, k + 1), k / (k + r), "P(k)/P(k+1) - k/(k+r)"),
            same(side.symbolic.subs(k, m), m / (m + r), "P(m) - m/(m+r)"),
            same(side.symbolic.subs(k, m).subs(m, steps), 1 - 1 / (k + 1), "steps needed"),
        ]
    )


@claim.reference("every order of up to seven steps, and every pattern of ties, in exact rationals")
def every_order(side: SimpleNamespace) -> Outcome:
    checked = 0
    for steps, ahead in ((1, 1), (3, 1), (4, 2), (5, 2), (3, 3), (6, 1)):
        total = steps + ahead
        orders = list(permutations(range(total)))
        for rank in range(1, steps + 1):
            held = sum(max(o[steps:]) <= sorted(o[:steps])[rank - 1] for o in orders)
            if Fraction(held, len(orders)) != side.value(rank, steps, ahead):
                claimed = float(side.value(rank, steps, ahead))
                return fails(f"m={steps}, r={ahead}, k={rank}: {held / len(orders):.4f}, not {claimed:.4f}")
            checked += 1
    for values in product(range(3), repeat=5):
        orders = list(permutations(values))
        for rank in range(1, 4):
            held = sum(max(o[3:]) <= sorted(o[:3])[rank - 1] for o in orders)
            if Fraction(held, len(orders)) < side.value(rank, 3, 2):
                return fails(f"ties {values}: {held / len(orders):.4f}")
    return holds(f"{checked} probabilities exact, 243 patterns of ties at least")


@claim.reference("the package takes the least rank that has the confidence, and capacities that hold and are least")
def package(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(5)
    for steps, ahead, level in ((19, 1, 0.95), (40, 1, 0.9), (60, 3, 0.9), (18, 1, 0.95), (200, 4, 0.97)):
        loads = rng.multinomial(300, rng.dirichlet([3.0] * 6), size=steps)
        needs = []
        for row in loads:
            needs.append(next(c for c in range(1, 301) if 20 * np.maximum(row - c, 0).sum() <= row.sum()))
        if list(least_capacities(loads, 0.05)) != needs:
            return fails("a least capacity differs from the search")
        found = guarantee(loads, 0.05, level, ahead=ahead)
        rank = next((i for i in range(1, steps + 1) if side.value(i, steps, ahead) >= Fraction(str(level))), None)
        wanted = None if rank is None else sorted(needs)[rank - 1]
        if found.capacity != wanted or (found.steps < found.needed) != (rank is None):
            return fails(f"m={steps}, r={ahead}: capacity {found.capacity}, by the claim {wanted}")
        if rank is not None and abs((found.attained or 0.0) - float(side.value(rank, steps, ahead))) > 1e-15:
            return fails(f"m={steps}, r={ahead}: attained {found.attained}")
    return holds("five logs, one of them too short")


def sample(rng: np.random.Generator, trials: int, *, steps: int, rank: int, ahead: int) -> dict[str, int]:
    """Steps of random shares about shares of the log's own (exchangeable, not independent); is 5 % dropped at most?"""
    held = 0
    for start in range(0, trials, 5_000):
        size = min(5_000, trials - start)
        base = rng.gamma(1.0, size=(size, 1, 5)) + 0.05
        load = rng.gamma(20 * base, size=(size, steps + ahead, 5))
        load /= load.sum(axis=2, keepdims=True)
        low, high = np.zeros(load.shape[:2]), np.ones(load.shape[:2])
        for _ in range(30):
            middle = (low + high) / 2
            enough = np.maximum(load - middle[..., None], 0).sum(axis=2) <= 0.05
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        capacity = np.partition(high[:, :steps], rank - 1, axis=1)[:, rank - 1]
        lost = np.maximum(load[:, steps:] - capacity[:, None, None], 0).sum(axis=2)
        held += int(np.count_nonzero((lost <= 0.05).all(axis=1)))
    return {"held": held}


def law(side: SimpleNamespace, *, steps: int, rank: int, ahead: int) -> dict[str, float]:
    return {"held": float(side.value(rank, steps, ahead))}


claim.simulate(
    sample,
    cases=[{"steps": 19, "rank": 18, "ahead": 1}, {"steps": 10, "rank": 9, "ahead": 3}],
    law=law,
    trials=60_000,
)
