"""Dropped choices of unlike experts: Σ E(N_i - C_i)₊ over Σ E N_i, with binomial N_i, however a token's choices hang together.

An expert of N_i candidates and C_i slots turns (N_i - C_i)₊ of them away. Expectations add up, and N_i is a sum over independent
tokens of whether they chose expert i, so Bin(T, f_i). Nothing else enters: neither that a token's experts are distinct, nor
which candidates are kept. By Jensen the mean load alone, (T f_i - C_i)₊, says too little.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from math import comb
from types import SimpleNamespace
from typing import Any

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.zero_computation import unlike_drop_rate


def side(excess: Callable[[int, Any, int], Any]) -> SimpleNamespace:
    """`excess(T, f, C)`: candidates of one expert that find no slot."""
    return SimpleNamespace(excess=excess)


def binomial(tokens: int, load: Any, slots: int) -> Any:
    """E(N - C)₊ term by term, exact for fractions."""
    return sum(
        (k - slots) * comb(tokens, k) * load**k * (1 - load) ** (tokens - k) for k in range(slots + 1, tokens + 1)
    )


def rate(s: SimpleNamespace, tokens: int, load: Any, slots: Any) -> Any:
    return sum(s.excess(tokens, p, c) for p, c in zip(load, slots)) / (tokens * sum(load))


claim = Claim(
    title="Experts of unequal loads and capacities drop Σ E(N-C)₊ of the choices, with binomial counts",
    statement=r"drop rate $=\sum_iE(N_i-C_i)_+\,/\,T\sum_if_i$ with "
    r"$N_i\sim\mathrm{Bin}(T,f_i)$, for any joint law of a token's choices",
    hypotheses=("tokens are independent and alike", "an expert keeps as many candidates as it has slots"),
    source="new; the capacities are MoE++ eq. 8: two kinds of experts (arXiv 2410.07348)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(binomial),
    mutant=side(lambda tokens, load, slots: max(tokens * load - slots, 0 * load)),
    mutation="the mean load in place of the load's law",
)


@claim.certificate("all choices of small batches, counted; a token takes two distinct experts")
def counted(s: SimpleNamespace) -> Outcome:
    chance = {(0, 1): Fraction(1, 2), (0, 2): Fraction(1, 3), (1, 2): Fraction(1, 6)}
    load = [sum((q for pair, q in chance.items() if e in pair), Fraction(0)) for e in range(3)]
    for tokens, slots in ((2, (1, 1, 1)), (3, (2, 1, 1)), (4, (3, 2, 1)), (5, (2, 3, 1))):
        lost = Fraction(0)
        for batch in itertools.product(chance, repeat=tokens):
            weight = Fraction(1)
            for pair in batch:
                weight *= chance[pair]
            counts = [sum(e in pair for pair in batch) for e in range(3)]
            lost += weight * sum(max(n - c, 0) for n, c in zip(counts, slots))
        exact, told = lost / (2 * tokens), rate(s, tokens, load, slots)
        if exact != told:
            return fails(f"T={tokens}, slots {slots}: counted {exact}, claimed {told}")
        found = unlike_drop_rate(tokens, [float(v) for v in load], slots)
        if abs(found - exact) > 1e-14:
            return fails(f"T={tokens}, slots {slots}: the package gives {found}")
    return holds("four batches of three experts: the claimed fractions, and the package's values")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, chance: list[float], slots: list[int]
) -> dict[str, int]:
    """A token takes experts i and i + 1 with probability chance[i]; one choice of the batch is looked at, kept at random."""
    experts = len(chance)
    dropped = 0
    for _ in range(trials):
        first = rng.choice(experts, size=tokens, p=chance)
        chosen = np.concatenate([first, (first + 1) % experts])
        one = rng.integers(chosen.size)
        candidates = int((chosen == chosen[one]).sum())
        dropped += int(rng.integers(candidates) >= slots[chosen[one]])
    return {"dropped": dropped}


claim.simulate(
    sample,
    cases=[{"tokens": 64, "chance": [0.4, 0.3, 0.2, 0.1], "slots": [30, 44, 28, 22]}],
    law=lambda s, *, tokens, chance, slots: {
        "dropped": float(rate(s, tokens, [chance[i] + chance[i - 1] for i in range(len(chance))], slots))
    },
    trials=40_000,
)
