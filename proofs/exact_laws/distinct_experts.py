"""How many distinct experts a batch reads: the mean needs the rates alone, correlation lowers it.

Expert e is missed by all B tokens with probability (1 - π_e)^B, whatever a token's choices have in common, so
E D = Σ {1 - (1 - π_e)^B}. With a load that is Beta(π/κ', (1-π)/κ'), κ' = κ/(1-κ), the probability to be missed is
E (1-P)^B = Π_{j<B} (1 - π + κ' j)/(1 + κ' j) >= (1-π)^B: each factor is at least 1 - π. Among rates of one sum uniform ones
have the largest mean, for 1 - (1-x)^B is concave.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product
from math import prod

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.loads import distinct_experts, distinct_variance
from resonance_theory.tokens import routing


@dataclass(frozen=True)
class Side:
    """`more` is added to the tokens of the batch."""

    more: int


claim = Claim(
    title="Distinct experts of a batch: exact mean, which correlation and skew lower",
    statement=r"$E\,D=\sum_e\{1-\prod_{j<B}\frac{1-\pi_e+\kappa'j}{1+\kappa'j}\}\leq\sum_e\{1-(1-\pi_e)^B\}$ "
    r"$\leq n\{1-(1-k/n)^B\}$, $\kappa'=\frac{\kappa}{1-\kappa}$; for $\kappa=0$ "
    r"$\mathrm{Var}\,D=\sum_{e,f}\{(1-\pi_e-\pi_f+\pi_{ef})^B-(1-\pi_e)^B(1-\pi_f)^B\}$",
    hypotheses=(
        r"$B$ tokens choose $k$ distinct experts with rates $\pi_e$, $\sum_e\pi_e=k$, both $e$ and $f$ with $\pi_{ef}$",
        r"independent, or the load of each expert beta-distributed with intra-batch correlation $\kappa$",
    ),
    source="new; the uniform case is used by inference simulators",
    kind="equality",
    expected=Verdict.PROVED,
    truth=Side(0),
    mutant=Side(1),
    mutation="one token more in the batch",
)


@claim.derivation("the missed mass of a beta load, by induction in B: one factor a token")
def beta_moments(side: Side) -> Outcome:
    """E (1-P)^B of Beta(a, b) is Γ(b+B)Γ(a+b)/(Γ(b)Γ(a+b+B)): its ratio from B to B + 1, and its start."""
    a, b, size = sp.symbols("a b B", positive=True)

    def missed(n: sp.Expr) -> sp.Expr:
        return sp.gamma(b + n) * sp.gamma(a + b) / (sp.gamma(b) * sp.gamma(a + b + n))

    spread, rate = 1 / (a + b), a / (a + b)
    factor = (1 - rate + spread * (size + side.more)) / (1 + spread * (size + side.more))
    step = sp.gammasimp(missed(size + 1) / missed(size))
    points = [{a: 2, b: 3, size: 4}]
    return every([identity(step, factor, points=points, name="one token more"), identity(missed(sp.Integer(0)), 1)])


@claim.certificate("each factor is at least 1 - π, for all rates, correlations and tokens")
def correlation_lowers(side: Side) -> Outcome:
    """(1-π+κ'j) - (1-π)(1+κ'j) = π κ' j >= 0; `more` shifts the index of the left factor's numerator alone."""
    rate, spread, j = sp.symbols("pi kappa j", nonnegative=True)
    slack = sp.expand((1 - rate + spread * (j - side.more)) - (1 - rate) * (1 + spread * j))
    return nonnegative_polynomial(slack, {rate: 0, spread: 0, j: 0})


@claim.reference("every batch of every set, in exact rationals; mean and variance of the package")
def every_batch(side: Side) -> Outcome:
    worst, checked = 0.0, 0
    for weight in ([Fraction(1)] * 4, [Fraction(3), Fraction(2), Fraction(1), Fraction(1, 4)]):
        sets = {frozenset(s): prod((weight[e] for e in s), start=Fraction(1)) for s in combinations(range(4), 2)}
        total = sum(sets.values())
        rates = [sum((w for s, w in sets.items() if e in s), Fraction(0)) / total for e in range(4)]
        for batch in (1, 2, 3):
            mean = square = Fraction(0)
            for drawn in product(sets, repeat=batch):
                chance = prod((sets[s] / total for s in drawn), start=Fraction(1))
                count = len(frozenset().union(*drawn))
                mean, square = mean + chance * count, square + chance * count**2
            claimed = sum(1 - (1 - p) ** (batch + side.more) for p in rates)
            if claimed != mean or mean > 4 * (1 - Fraction(1, 2) ** batch):
                return fails(f"B={batch}: {float(mean):.6f} of the batches, {float(claimed):.6f} claimed")
            floats = [float(p) for p in rates]
            worst = max(worst, abs(float(distinct_experts(batch, floats)) / float(mean) - 1))
            worst = max(worst, abs(float(distinct_variance(batch, floats)) - float(square - mean**2)))
            checked += 1
    return (
        holds(f"{checked} batches; the package errs by {worst:.1e}") if worst < 1e-12 else fails(f"error {worst:.1e}")
    )


def sample(rng: np.random.Generator, trials: int, *, batch: int, correlation: float) -> dict[str, int]:
    """Whether one expert is read, of batches that are one document each."""
    rates = [0.8, 0.5, 0.4, 0.2, 0.1]
    choices = routing(rng, trials * batch, rates, lengths=[batch] * trials, correlation=correlation)[:, 0]
    read = [int((choices == e).any(axis=1).reshape(trials, batch).any(axis=1).sum()) for e in (1, 4)]
    return {"second expert": read[0], "fifth expert": read[1]}


def law(side: Side, *, batch: int, correlation: float) -> dict[str, float]:
    def read(rate: float) -> float:
        return float(distinct_experts(batch + side.more, [rate], correlation))

    return {"second expert": read(0.5), "fifth expert": read(0.1)}


claim.simulate(
    sample,
    cases=[{"batch": 4, "correlation": 0.0}, {"batch": 8, "correlation": 0.2}],
    law=law,
    trials=60_000,
    full=1_000_000,
)
