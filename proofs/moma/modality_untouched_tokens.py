"""Expert choice with independent scores: a token is taken by Bin(E, c) experts, by none with probability (1-c)^E.

An expert takes k of b tokens. If its scores are tie-free and exchangeable over tokens, the set it takes is uniform
among all of size k, so that a given token is left out with probability C(b-1, k)/C(b, k) = 1 - k/b = 1 - c, at every b.
Independent experts multiply. MoMa's capacity, c = 1/E, leaves .316 of the tokens to no expert of four and .344 of
eight; one expert leaves none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.modality_groups import experts_per_token, untouched_share


def side(share: Callable[[Any, Any, Any], Any]) -> SimpleNamespace:
    """`share(E, c, lib)`: share of untouched tokens; lib has exp."""
    return SimpleNamespace(share=share)


claim = Claim(
    title="Expert choice with independent scores leaves (1-c)^E of the tokens to no expert",
    statement=r"$P(\text{no expert takes the token})=(1-c)^E$ and the number that do is $\mathrm{Bin}(E,c)$, $c=k/b$",
    hypotheses=(
        r"each of $E$ experts takes the $k$ tokens of highest score of $b$",
        "scores are tie-free, exchangeable over tokens and independent between experts",
    ),
    source="new; the capacity is MoMa section 4.1: k_e, the rule MoMa eq. 1 (arXiv 2407.21770 v3)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda e, c, lib: (1 - c) ** e),
    mutant=side(lambda e, c, lib: lib.exp(-e * c)),
    mutation="the limit of many experts, exp(-Ec), in place of (1-c)^E",
)


@claim.derivation("one expert leaves out C(b-1, k)/C(b, k); independent experts multiply")
def counting(s: SimpleNamespace) -> Outcome:
    b, k, e, f = sp.symbols("b k E F", positive=True, integer=True)
    left = sp.gammasimp((sp.binomial(b - 1, k) / sp.binomial(b, k)).rewrite(sp.gamma))
    share = s.share
    points = [{b: 7, k: 3}, {b: 9, k: 2}]
    more = [{b: 7, k: 3, e: 2, f: 3}]
    return every(
        [
            identity(left, share(1, k / b, sp), points=points, name="one expert"),
            identity(sp.powsimp(share(e, k / b, sp) * share(f, k / b, sp)), share(e + f, k / b, sp), points=more),
        ]
    )


@claim.certificate("all choices of small batches, counted")
def counted(s: SimpleNamespace) -> Outcome:
    for b, k, e in ((4, 2, 2), (4, 1, 3), (5, 2, 3), (6, 3, 2)):
        sets = list(itertools.combinations(range(b), k))
        found = [0] * (e + 1)
        for chosen in itertools.product(sets, repeat=e):
            found[sum(0 in one for one in chosen)] += 1
        exact = Fraction(found[0], sum(found))
        told = sp.nsimplify(s.share(e, sp.Rational(k, b), sp))
        if told != sp.Rational(exact.numerator, exact.denominator):
            return fails(f"b={b}, k={k}, E={e}: counted {exact}, claimed {told}")
        law = experts_per_token(e, k / b)
        if max(abs(law[j] - found[j] / sum(found)) for j in range(e + 1)) > 1e-14:
            return fails(f"b={b}, k={k}, E={e}: the binomial law is off")
    return holds("four batches: shares and numbers of experts as claimed")


@claim.reference("the package against 50 digits")
def digits(s: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(50):
        for e in (1, 2, 4, 8, 64, 1000, 10**6):
            for c in (1 / e, 1e-9, 0.3, 0.999):
                wanted = s.share(e, mpmath.mpf(c), mpmath)
                value = float(untouched_share(e, c))
                if wanted > 1e-300:
                    worst = max(worst, float(abs(value - wanted) / wanted))
    text = f"largest relative error {worst:.2g}"
    return holds(text) if worst < 1e-12 else fails(text)


def sample(rng: np.random.Generator, trials: int, *, tokens: int, experts: int, takes: int) -> dict[str, int]:
    """Scores drawn; the first token is untouched if at least `takes` others score above it at every expert."""
    count = 0
    for start in range(0, trials, 5000):
        scores = rng.random((min(5000, trials - start), tokens, experts))
        above = (scores > scores[:, :1]).sum(axis=1)
        count += int((above >= takes).all(axis=1).sum())
    return {"untouched": count}


claim.simulate(
    sample,
    cases=[{"tokens": 16, "experts": 4, "takes": 4}],
    law=lambda s, *, tokens, experts, takes: {"untouched": float(s.share(experts, takes / tokens, np))},
    trials=100_000,
)
