"""Group-limited routing keeps every expert's rate k/n, and ties two experts of one group together.

Scores that are exchangeable within and across groups: each expert has rate k/n by symmetry. With K the choices in one group,
E K = k/G, and counting ordered pairs of choices inside groups and in all:
m(m-1) P(both | same) = E K(K-1), and G m (m-1) P(same) + G(G-1) m² P(different) = k(k-1). A device that holds one group gets
a sum over tokens of K: its load's variance is s Var K, with Var K = E K(K-1) + k/G - (k/G)².

For groups ranked by their best score, and scores independent and alike, the law of K is exact. Going down the order of all
experts, the next allowed one is uniform among those left in the open groups and, while fewer than g groups are open, in the
closed ones. That order is the router's, because the g groups of the largest maxima are the first g that are met.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.loads import group_limited, pair_rates, top_of_groups


@dataclass(frozen=True)
class Side:
    """`kept` is added to the number of groups, `extra` to the ordered pairs k(k-1)."""

    kept: int
    extra: int


claim = Claim(
    title="Group-limited routing: every expert k/n, two of one group together more often, two of different groups less",
    statement=r"$\pi=\frac kn$, $P(\text{both}\mid\text{same})=\frac{E\,K(K-1)}{m(m-1)}$, "
    r"$P(\text{both}\mid\text{different})=\frac{k(k-1)-G\,E\,K(K-1)}{G(G-1)m^2}$, and a group's load has the variance "
    r"$s\{E\,K(K-1)+\frac kG-(\frac kG)^2\}$",
    hypotheses=(
        r"$n=Gm$ experts in $G$ groups of $m$, of which a token keeps $g$ and in them its $k\leq gm$ best",
        r"scores exchangeable within and across groups; for the law of $K$ independent, continuous, alike; groups by their best",
    ),
    source="DeepSeek-V2 2405.04434 section 2.1.2, DeepSeek-V3 2412.19437 section 2.1.2 (the routers); new",
    kind="equality",
    expected=Verdict.PROVED,
    truth=Side(0, 0),
    mutant=Side(1, 1),
    mutation="one group more is kept; one ordered pair more",
)


@claim.derivation("pairs counted inside groups and in all, and the variance")
def pairs_counted(side: Side) -> Outcome:
    groups, size, top, within = sp.symbols("G m k w", positive=True)
    same = within / (size * (size - 1))
    different = (top * (top - 1) - groups * within) / (groups * (groups - 1) * size**2)
    inside = groups * size * (size - 1) * same
    across = groups * (groups - 1) * size**2 * different
    # Var K from the rates of one expert and of two of its group
    one = top / (groups * size)
    variance = size * one * (1 - one) + size * (size - 1) * (same - one**2)
    mean = top / groups
    return every(
        [
            identity(inside + across, top * (top - 1) + side.extra, name="ordered pairs"),
            identity(variance, within + mean - mean**2 + side.extra, name="Var K"),
        ]
    )


def plain(order: tuple[int, ...], top: int, groups: int, kept: int) -> list[int]:
    """Choices of one token whose experts, from the best on, are `order`."""
    size, first = len(order) // groups, []
    for e in order:
        if e // size not in first:
            first.append(e // size)
    return [e for e in order if e // size in first[:kept]][:top]


@claim.reference("every order of the scores, in exact rationals")
def every_order(side: Side) -> Outcome:
    checked = 0
    for experts, top, groups, kept in ((6, 2, 3, 1), (6, 2, 3, 2), (6, 3, 2, 1), (7, 2, 7, 3), (8, 3, 4, 2)):
        size = experts // groups
        if (kept + side.kept) > groups:
            return fails("more groups kept than there are")
        count, one, same, other, orders = [0] * (min(top, size) + 1), 0, 0, 0, 0
        for order in permutations(range(experts)):
            chosen = plain(order, top, groups, kept)
            count[sum(e < size for e in chosen)] += 1
            one += 0 in chosen
            same += size > 1 and 0 in chosen and 1 in chosen
            other += 0 in chosen and experts - 1 in chosen
            orders += 1
        claimed = pair_rates(experts, top, groups, kept + side.kept)
        law = top_of_groups(experts, top, groups, kept + side.kept)
        exact = [
            Fraction(one, orders),
            Fraction(same, orders),
            Fraction(other, orders),
            *(Fraction(c, orders) for c in count),
        ]
        got = [claimed.one, claimed.same, claimed.different, *law]
        worst = max(abs(float(Fraction(float(g)) - e)) for g, e in zip(got, exact))
        if worst > 1e-14:
            return fails(f"n={experts}, k={top}, G={groups}, g={kept}: off by {worst:.2g}")
        checked += len(got)
    return holds(f"{checked} probabilities of five routers")


def sample(rng: np.random.Generator, trials: int, *, experts: int, top: int, groups: int, kept: int) -> dict[str, int]:
    size, tally = experts // groups, {"one": 0, "same group": 0, "different groups": 0}
    for start in range(0, trials, 50_000):
        scores = rng.standard_normal((min(50_000, trials - start), experts))
        chosen, _ = group_limited(scores, top, groups, kept, score="max")
        has = [(chosen == e).any(axis=1) for e in (0, 1, size)]
        tally["one"] += int(has[0].sum())
        tally["same group"] += int((has[0] & has[1]).sum())
        tally["different groups"] += int((has[0] & has[2]).sum())
    return tally


def law(side: Side, *, experts: int, top: int, groups: int, kept: int) -> dict[str, float]:
    rates = pair_rates(experts, top, groups, kept + side.kept)
    return {"one": rates.one, "same group": rates.same, "different groups": rates.different}


claim.simulate(
    sample,
    cases=[{"experts": 16, "top": 4, "groups": 4, "kept": 2}, {"experts": 64, "top": 6, "groups": 8, "kept": 3}],
    law=law,
    trials=300_000,
)
