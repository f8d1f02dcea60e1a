"""LocMoE's capacity ec = ⌈b c_f/(ep n)⌉: rounding gives each expert less than one slot too many, and only even loads fit in it.

With N = ep n experts and x = b c_f, N ⌈x/N⌉ - x lies in [0, N), in [0, N-1] for whole x: at most N - 1 slots are spare. At c_f =
1 slots and tokens are as many, and a token is dropped unless all loads are equal: at loads of 1/N the dropped part is
E (Bin(b, 1/N) - ec)_+ N/b (capacity_factor_drops), about sqrt((N-1)/(2 π_c b)), π_c = 3.14..: 1.17 % at b = 8192, N = 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, comb

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, token_choice


@dataclass(frozen=True)
class Side:
    """The capacity is claimed to be the share rounded up, plus `more`."""

    more: int

    def slots(self, tokens: int, factor: Fraction, experts: int) -> int:
        return ceil(tokens * factor / experts) + self.more


claim = Claim(
    title="LocMoE's capacity formula: at most one slot an expert too many, and drops even at equal mean loads",
    statement=r"$ec=\lceil\frac{b\,c_f}{N}\rceil$, $N=ep\cdot n$: $0\leq N\,ec-b\,c_f<N$; at $c_f=1$, $N\mid b$ and loads "
    r"$\frac1N$ the dropped part $E(\mathrm{Bin}(b,\frac1N)-ec)_+\frac Nb$ is positive and at most $\frac12\sqrt{\frac{N-1}b}$",
    hypotheses=(r"$b\geq 1$ tokens, $N\geq 2$ experts, $c_f>0$; Top-1",),
    source="LocMoE capacity formula: ec = ceil(b c_f/(ep n)) (arXiv 2401.13920)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=Side(0),
    mutant=Side(1),
    mutation="one slot more",
    lemmas=("capacity_factor_drops",),
)


@claim.certificate("quotient and remainder: the slots beyond b c_f, for all b c_f and N")
def spare_slots(side: Side) -> Outcome:
    # x = N k - left with 0 <= left <= N - 1 for whole x (left < N for any): ⌈x/N⌉ = k
    left, room = sp.symbols("left room", nonnegative=True)
    spare = left + side.more * (left + room + 1)  # N = left + room + 1
    return every(
        [
            nonnegative_polynomial(spare, {left: 0, room: 0}, name="N ec - x"),
            nonnegative_polynomial(sp.expand(left + room - spare), {left: 0, room: 0}, name="N - 1 - (N ec - x)"),
        ]
    )


@claim.reference("every b to 60, N to 12, c_f of 1, 1.1, 1.25 and 2; drops at c_f = 1 exactly, and the package's")
def slots_and_drops(side: Side) -> Outcome:
    for experts in range(2, 13):
        for tokens in range(1, 61):
            for factor in (Fraction(1), Fraction(11, 10), Fraction(5, 4), Fraction(2)):
                spare = experts * side.slots(tokens, factor, experts) - tokens * factor
                if not 0 <= spare < experts:
                    return fails(f"b={tokens}, N={experts}, c_f={factor}: {spare} slots are spare")
            if tokens % experts == 0 and tokens > experts:
                slots, p = side.slots(tokens, Fraction(1), experts), Fraction(1, experts)
                over = sum(
                    (j - slots) * comb(tokens, j) * p**j * (1 - p) ** (tokens - j) for j in range(slots + 1, tokens + 1)
                )
                drop = float(over * experts / tokens)
                ours = float(token_choice.drop_rate(tokens, slots, Rates(experts=experts)))
                if not 0 < drop <= np.sqrt((experts - 1) / tokens) / 2 or abs(ours - drop) > 1e-13:
                    return fails(f"b={tokens}, N={experts}: {drop:.6f} dropped, the package {ours:.6f}")
    return holds("2640 capacities; a part is dropped at every even share")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, experts: int) -> dict[str, int]:
    """A batch at capacity factor 1: does any expert overflow, and is one token at a random position dropped?"""
    slots = ceil(tokens / experts)
    choice = rng.integers(experts, size=(trials, tokens))
    place = rng.integers(tokens, size=trials)
    own = choice[np.arange(trials), place]
    before = ((choice == own[:, None]) & (np.arange(tokens) < place[:, None])).sum(axis=1)
    return {"dropped": int(np.count_nonzero(before >= slots))}


def law(side: Side, *, tokens: int, experts: int) -> dict[str, float]:
    slots = side.slots(tokens, Fraction(1), experts)
    return {"dropped": float(token_choice.drop_rate(tokens, slots, Rates(experts=experts)))}


claim.simulate(
    sample,
    cases=[{"tokens": 64, "experts": 8}, {"tokens": 60, "experts": 4}],
    law=law,
    trials=60_000,
)
