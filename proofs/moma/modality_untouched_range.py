"""Over all dependences between the experts' scores, from max(0, 1-Ec) to 1-c of the tokens are untouched, both attained.

E experts take k of b tokens each. Together they take at least the k of one of them and at most min(b, Ek), so that the
untouched share lies between 1 - min(1, Ec) and 1 - c, c = k/b. Equal scores attain the upper end, disjoint choices the
lower. At MoMa's capacity c = 1/E these are 0 and 1 - 1/E: expert choice balances loads exactly, and promises nothing to
a token.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.modality_groups import choose_in_groups, untouched_range


def side(least: Callable[[int, Fraction], Fraction]) -> SimpleNamespace:
    """`least(E, c)`: the least share."""
    return SimpleNamespace(least=least)


claim = Claim(
    title="Expert choice may leave no token or all but a share c to no expert",
    statement=r"$\max(0,1-Ec)\leq\text{untouched share}\leq 1-c$, $c=k/b$, and both are attained for all $E$, $k\leq b$",
    hypotheses=(r"each of $E$ experts takes $k$ of $b$ tokens, in any dependence",),
    source="new; MoMa section 2.2: balanced without a loss, tokens to a variable number of experts (arXiv 2407.21770 v3)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(lambda e, c: max(Fraction(0), 1 - e * c)),
    mutant=side(lambda e, c: (1 - c) ** e),
    mutation="independent scores as the best case",
)


@claim.certificate("every choice of small batches")
def every_choice(s: SimpleNamespace) -> Outcome:
    for b in range(1, 6):
        for k in range(1, b + 1):
            sets = [frozenset(one) for one in itertools.combinations(range(b), k)]
            for e in (1, 2, 3):
                left = [b - len(frozenset().union(*chosen)) for chosen in itertools.product(sets, repeat=e)]
                ends = Fraction(min(left), b), Fraction(max(left), b)
                told = s.least(e, Fraction(k, b)), 1 - Fraction(k, b)
                if ends != told:
                    return fails(f"b={b}, k={k}, E={e}: from {ends[0]} to {ends[1]}, claimed {told[0]} to {told[1]}")
    return holds("45 batches: both ends attained, none passed")


@claim.reference("the rule on equal and on disjoint scores, at larger sizes")
def by_rule(s: SimpleNamespace) -> Outcome:
    for tokens, experts in ((64, 4), (96, 8), (1000, 8)):
        groups = np.zeros(tokens, dtype=int), np.zeros(experts, dtype=int)
        equal = np.linspace(0, 1, tokens)[:, None] * np.ones(experts)
        apart = (np.arange(tokens)[:, None] % experts == np.arange(experts)).astype(float)
        left = [1 - choose_in_groups(x, *groups).any(axis=1).mean() for x in (apart, equal)]
        told = float(s.least(experts, Fraction(1, experts))), float(untouched_range(experts)[1])
        if max(abs(a - b) for a, b in zip(left, told)) > 1e-12:
            return fails(f"{tokens} tokens, {experts} experts: {left}, claimed {told}")
    return holds("three batches route to both ends")
