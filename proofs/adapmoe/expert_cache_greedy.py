"""Where the loads of every layer are convex in its slots, taking the slot that saves most, again and again, is optimal.

A layer's savings d(1) ≥ d(2) ≥ ... do not rise, as its loads are convex. With t slots it saves d(1) + ... + d(t). However T
slots are split, the saving is a sum of T numbers out of all layers' savings, so at most the sum of the T largest. Greedy takes
the T largest: the savings of a layer come in falling order, so it is never kept from a large one by a small one before it. The
dynamic programme that AdapMoE runs is thus not needed. Without convexity greedy fails: loads 4, 4, 0 and 3, 2, 2 at two slots.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.expert_cache import allocate_slots

Loads = list[list[Fraction]]


def greedy(loads: Loads, slots: int) -> list[int]:
    taken = [0] * len(loads)
    for _ in range(slots):
        open_ = [i for i, row in enumerate(loads) if taken[i] + 1 < len(row)]
        saving = {i: loads[i][taken[i]] - loads[i][taken[i] + 1] for i in open_}
        best = max(open_, key=lambda i: (saving[i], -i))
        taken[best] += 1
    return taken


def largest_loads(loads: Loads, slots: int) -> list[int]:
    """The nearest false rule: a slot for the layer that loads most."""
    taken = [0] * len(loads)
    for _ in range(slots):
        open_ = [i for i, row in enumerate(loads) if taken[i] + 1 < len(row)]
        taken[max(open_, key=lambda i: (loads[i][taken[i]], -i))] += 1
    return taken


def side(rule: Callable[[Loads, int], list[int]]) -> SimpleNamespace:
    """`rule(loads, slots)`: slots of each layer."""
    return SimpleNamespace(rule=rule)


claim = Claim(
    title="Greedy by the largest saving splits cache slots over layers optimally, as loads are convex",
    statement=r"for $f_l$ convex in its slots, $\sum_lf_l(t_l)$ at $\sum_lt_l=T$ is least where the $T$ largest savings "
    r"$f_l(t-1)-f_l(t)$ are taken",
    hypotheses=("every layer's loads are convex in its slots, as by the claim expert_cache_loads",),
    source="new; the dynamic programme is AdapMoE released code: allocation (PKU-SEC-Lab/AdapMoE at 2cfe8df)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(greedy),
    mutant=side(largest_loads),
    mutation="a slot for the layer with the largest loads left",
)


def cost(loads: Loads, taken: list[int]) -> Fraction:
    return sum((row[t] for row, t in zip(loads, taken)), Fraction(0))


@claim.certificate("all splits of small caches in exact fractions; and a concave layer, where greedy fails")
def enumerated(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(0)
    for _ in range(60):
        layers, most = int(rng.integers(2, 4)), int(rng.integers(2, 5))
        steps = -np.sort(-rng.integers(0, 9, (layers, most)), axis=1)
        loads = [[Fraction(int(v)) for v in np.append(row.sum(), row.sum() - row.cumsum())] for row in steps]
        for slots in range(layers * most + 1):
            splits = itertools.product(range(most + 1), repeat=layers)
            least = min(cost(loads, list(t)) for t in splits if sum(t) == slots)
            found = cost(loads, s.rule(loads, slots))
            if found != least:
                return fails(f"{loads} at {slots} slots: {found}, least {least}")
    concave = [[Fraction(v) for v in row] for row in ((4, 4, 0), (3, 2, 2))]
    if cost(concave, s.rule(concave, 2)) == 0 + 3:
        return fails("the concave example is solved, too")
    return holds("60 random sets of convex layers at every number of slots; a concave one is missed")


@claim.reference("the package, by greedy and by its programme")
def by_package(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(1)
    for _ in range(40):
        layers, most = int(rng.integers(2, 9)), int(rng.integers(2, 9))
        steps = -np.sort(-rng.random((layers, most)), axis=1)
        loads = np.concatenate(
            [steps.sum(axis=1, keepdims=True), steps.sum(axis=1, keepdims=True) - steps.cumsum(axis=1)], axis=1
        )
        exact = [[Fraction(float(v)) for v in row] for row in loads]
        slots = int(rng.integers(0, layers * most + 1))
        wanted = cost(exact, s.rule(exact, slots))
        bent = loads.copy()
        bent[:, -1] += 1e-9 * np.arange(1, layers + 1)  # no longer convex: the programme
        for table in (loads, bent):
            found = cost(exact, allocate_slots(table, slots).tolist())
            if abs(found - wanted) > 1e-6:
                return fails(f"{layers} layers, {slots} slots: {float(found)}, claimed {float(wanted)}")
    return holds("40 random models: the same loads")
