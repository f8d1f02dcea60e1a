"""LocMoE eq. 3 with Lemma 1: do gates ReLU(<w_i, x> + ε) send a token to the gate at the least angle?

Only where some projection is positive. ReLU keeps the order of what is above 0 and makes everything else 0, so a token with no
positive projection has all its gate values equal, a tie that carries no angle. Isotropic tokens and orthonormal gates: 2^-n of
them, as the n projections have independent signs; n = 2 a quarter, n = 8 .4 %, n = 16 .0015 %. A tie broken at random
picks the gate at the least angle with probability 1/n: Lemma 1 holds with probability 1 - 2^-n (1 - 1/n). Linear gates (as
top1_is_least_angle takes them) have no such tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np
import sympy as sp

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

n = sp.symbols("n", positive=True)


@dataclass(frozen=True)
class Side:
    """P(a token has no positive projection), in n."""

    tied: sp.Expr

    def at(self, experts: int) -> Fraction:
        return Fraction(str(sp.nsimplify(self.tied.subs(n, experts))))


claim = Claim(
    title="Gates with ReLU tie on tokens without a positive projection, 2^-n of isotropic ones",
    statement=r"$P(\mathrm{ReLU}\langle w_i,x\rangle=0\ \forall i)=2^{-n}$, and with ties broken at random the gate at the least "
    r"angle is chosen with probability $1-2^{-n}(1-\frac1n)$",
    hypotheses=(r"isotropic $x$, orthonormal gates, $n\leq d$, no bias",),
    source="LocMoE eq. 3 and Lemma 1: gates with ReLU (arXiv 2401.13920)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=Side(2**-n),
    mutant=Side(2 ** -(n + 1)),
    mutation="half as many tied tokens",
    printed=Side(sp.Integer(0) * n),
    correction=r"Printed: the gate with ReLU picks the least angle. Not for tokens without a positive projection, a quarter of "
    r"isotropic ones at $n=2$ and $2^{-n}$ in general; true of linear gates.",
    lemmas=("top1_is_least_angle",),
)


@claim.derivation("independent signs: the tied share satisfies P(n+1) = P(n)/2, P(1) = 1/2")
def independent_signs(side: Side) -> Outcome:
    return every(
        [
            identity(side.tied.subs(n, n + 1), side.tied / 2, name="P(n+1) - P(n)/2"),
            identity(side.tied.subs(n, 1), sp.Rational(1, 2), name="P(1) - 1/2"),
        ]
    )


@claim.counterexample("x = (-1, -2), gates e_1 and e_2")
def two_negative_projections(side: Side) -> Outcome:
    gates = np.maximum(np.array([-1.0, -2.0]), 0.0)
    text = f"gate values {gates.tolist()}, cosines -.447 and -.894; P(tie) claimed {side.at(2)}"
    return fails(text) if side.at(2) == 0 and gates[0] == gates[1] else holds(text)


@claim.reference("every sign pattern of n projections, n to 10, equally likely: the share without a positive one")
def sign_patterns(side: Side) -> Outcome:
    for experts in range(1, 11):
        tied = sum(max(signs) < 0 for signs in product((-1, 1), repeat=experts))
        if Fraction(tied, 2**experts) != side.at(experts):
            return fails(f"n={experts}: {tied} of {2**experts}, claimed {side.at(experts)}")
    return holds("1/2, 1/4, ..., 1/1024")


def sample(rng: np.random.Generator, trials: int, *, dim: int, experts: int) -> dict[str, int]:
    """Tokens with all gates 0, and tokens whose gates with ReLU, ties broken at random, name another than the least angle."""
    cosine = affinity(rng.standard_normal((trials, dim)), experts)
    gates = np.maximum(cosine, 0.0)
    best = gates == gates.max(axis=1, keepdims=True)
    chosen = np.where(best, rng.random(gates.shape), -1.0).argmax(axis=1)
    return {
        "tied": int(np.count_nonzero(gates.max(axis=1) == 0)),
        "other angle": int(np.count_nonzero(chosen != cosine.argmax(axis=1))),
    }


def law(side: Side, *, dim: int, experts: int) -> dict[str, float]:
    tied = float(side.at(experts))
    return {"tied": tied, "other angle": tied * (1 - 1 / experts)}


claim.simulate(
    sample,
    cases=[{"dim": 2, "experts": 2}, {"dim": 8, "experts": 4}],
    law=law,
    trials=100_000,
)
