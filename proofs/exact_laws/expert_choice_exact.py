"""Section 3. The exact law of expert choice: F(q) at a fixed affinity, averaged over the affinity, never at averaged q.

At a tie-free affinity a of the discriminative token each of the s-1 others has a larger one independently with probability
q(a), so the number of those is Bin(s-1, q(a)) and the token is taken if it is at most C-1. F'(q) = -(s-1) b(s-2, C-1; q) < 0
by telescoping, the density of Beta(C, s-C): F(q) = P(V > q). F is neither convex nor concave, so E F(q) and F(E q) differ:
for planted tokens with d = 64, n = 8, θ = 2.5, s = 256, C = 12 the truth is .780 and the plug-in .683.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from types import SimpleNamespace

import flint
import numpy as np
import sympy as sp
from scipy import stats

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice
from resonance_theory.tokens import Rates, samplers

s, C, j = sp.symbols("s C j", integer=True, positive=True)
q = sp.symbols("q", positive=True)
POINTS = [{s: 9, C: 4, j: 3, q: sp.Rational(2, 7)}]


def side(rivals: int) -> SimpleNamespace:
    """The number of independent rivals is s + `rivals`."""
    return SimpleNamespace(rivals=rivals)


claim = Claim(
    title="Exact success rate of expert choice",
    statement=r"$P_{ECR}=\frac1n\sum_iE\,F(q_i(\delta_o))$, $F(q)=P(\mathrm{Bin}(s-1,q)\leq C-1)=P(\mathrm{Beta}(C,s-C)>q)$",
    hypotheses=(r"background tokens independent of each other and of $o$; no ties; $1\leq C<s$",),
    source="exact law behind ETR Theorem 5, eq. 12",
    kind="equality",
    expected=Verdict.PROVED,
    studies=_skewed.STUDIES,
    truth=side(-1),
    mutant=side(0),
    mutation="s rivals instead of s - 1",
)


def mass(m: sp.Expr, i: sp.Expr) -> sp.Expr:
    return sp.binomial(m, i) * q**i * (1 - q) ** (m - i)


@claim.derivation("F'(q) telescopes to minus the density of Beta(C, s-C), and F falls from 1 to 0")
def f_q_telescopes_minus_density(side: SimpleNamespace) -> Outcome:
    m = s + side.rivals
    # d/dq b(m,j) = m (b(m-1,j-1) - b(m-1,j)): summed over j <= C-1 what remains is -m b(m-1, C-1)
    slope = (sp.diff(mass(m, j), q), m * (mass(m - 1, j - 1) - mass(m - 1, j)))
    density = sp.gamma(s) / (sp.gamma(C) * sp.gamma(s - C)) * q ** (C - 1) * (1 - q) ** (s - C - 1)
    return every(
        [
            identity(*slope, points=POINTS, unit=mass(s, j), name="d/dq b(m,j) - m (b(m-1,j-1) - b(m-1,j))"),
            identity(m * mass(m - 1, C - 1), density, points=POINTS, unit=density, name="m b(m-1,C-1) - Beta density"),
        ]
    )


def exact(tokens: int, capacity: int, chance: Fraction, rivals: int) -> Fraction:
    m = tokens + rivals
    return sum((comb(m, i) * chance**i * (1 - chance) ** (m - i) for i in range(min(capacity, m + 1))), Fraction(0))


@claim.reference("the package against exact rationals and 60-digit incomplete beta functions, s up to 10^9")
def package_exact_rationals_digit_incomplete(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    for tokens in (2, 3, 7, 40):
        for capacity in range(1, tokens):
            for numerator in (1, 5, 12):
                chance = Fraction(numerator, 16)  # exact as a double
                value = exact(tokens, capacity, chance, side.rivals)
                ours = float(expert_choice.success(tokens, capacity, Rates(false_positive=float(chance))))
                worst = max(worst, abs(ours / float(value) - 1))
                if worst > 1e-12:
                    return fails(f"s={tokens}, C={capacity}, q={chance}: {ours:.12g}, exactly {float(value):.12g}")
    saved, flint.ctx.dps = flint.ctx.dps, 60
    try:
        for tokens, capacity, chance_float in (
            (10**9, 250_020_000, 0.25),
            (10**6, 1, 2.0**-20),
            (10**9, 260_000_000, 0.25),
        ):
            failure = flint.arb(chance_float).beta_lower(
                capacity, tokens + side.rivals - capacity + 1, regularized=True
            )
            rate = float(expert_choice.failure(tokens, capacity, Rates(false_positive=chance_float)))
            log_ours = float(expert_choice.log_failure(tokens, capacity, Rates(false_positive=chance_float)))
            close = abs(float(failure.log().mid()) - log_ours) / max(1.0, abs(log_ours))
            worst = max(worst, close)
            if close > 1e-12:
                return fails(f"s={tokens}, C={capacity}: failure {rate:.6g}, exactly {float(failure.mid()):.6g}")
    finally:
        flint.ctx.dps = saved
    return holds(f"all agree to {worst:.0e}")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, dim: int, experts: int, signal: float, capacity: int
) -> dict[str, int]:
    """Planted tokens through the router."""
    done, step = 0, max(1, 2_000_000 // (tokens * experts))
    for start in range(0, trials, step):
        drawn = samplers.planted_affinity(rng, min(step, trials - start), tokens, dim, experts, signal)
        done += int(
            np.count_nonzero(expert_choice.route(drawn.values, capacity).contains(drawn.position, drawn.expert))
        )
    return {"success": done}


def law(
    side: SimpleNamespace, *, tokens: int, dim: int, experts: int, signal: float, capacity: int
) -> dict[str, float]:
    nodes = Rates.planted(signal, dim, experts)
    return {"success": float(nodes.weight @ stats.binom.cdf(capacity - 1, tokens + side.rivals, nodes.false_positive))}


claim.simulate(
    sample,
    cases=[
        {"tokens": 6, "dim": 4, "experts": 2, "signal": 1.0, "capacity": 2},
        {"tokens": 8, "dim": 64, "experts": 8, "signal": 0.5, "capacity": 3},
    ],
    law=law,
    trials=60_000,
)


def sample_skewed(rng: np.random.Generator, trials: int, *, tokens: int, boost: float, capacity: int) -> dict[str, int]:
    scores, position, expert = _skewed.sample(rng, trials, tokens, boost)
    return {"success": int(np.count_nonzero(expert_choice.route(scores, capacity).contains(position, expert)))}


def law_skewed(side: SimpleNamespace, *, tokens: int, boost: float, capacity: int) -> dict[str, float]:
    nodes = _skewed.rates(boost)
    place = stats.binom.cdf(capacity - 1, tokens + side.rivals, nodes.false_positive)
    return {"success": float(nodes.weight @ place)}


claim.simulate(
    sample_skewed,
    cases=[{"tokens": 8, "boost": 1.0, "capacity": 2}],
    law=law_skewed,
    trials=60_000,
    name="Monte Carlo, experts that attract unequally",
)
