"""Start of a new claim: copy this file to `proofs/<claim>.py`, where the file's name becomes the claim's id.

TAG. One sentence that says what is true and why.

Nothing else needs editing: `resonance claims` lists it, `resonance verify <claim>` runs it, the tests discover it.
The example is small but complete; every check runs with `claim.truth` (must hold) and with `claim.mutant` (must fail).
"""

from __future__ import annotations

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome

p = sp.symbols("p", real=True)

claim = Claim(
    title="Two fair coins agree at least as often as they differ",
    statement=r"$p^2+(1-p)^2\ge \frac12$",
    hypotheses=(r"$0\le p\le 1$",),
    source="example",
    kind="bound",
    expected=Verdict.PROVED,
    truth=sp.Rational(1, 2),
    mutant=sp.Rational(51, 100),
    mutation="51/100 in place of 1/2",
)


@claim.certificate("a square")
def square(bound: sp.Rational) -> Outcome:
    t = sp.symbols("t", real=True)  # t = (2p-1)^2 >= 0
    slack = sp.expand(p**2 + (1 - p) ** 2 - bound).subs(p**2, (t - 1) / 4 + p)
    return nonnegative_polynomial(sp.expand(slack), {t: 0})


def sample(rng: np.random.Generator, trials: int, *, probability: float) -> dict[str, int]:
    coins = rng.random((trials, 2)) < probability
    return {"agree": int(np.count_nonzero(coins[:, 0] == coins[:, 1]))}


claim.simulate(
    sample,
    cases=[{"probability": 0.55}],  # .505: above the bound, below the mutant
    law=lambda bound, *, probability: {"agree": float(bound)},
    relation="at_least",
    trials=2_000_000,
)
