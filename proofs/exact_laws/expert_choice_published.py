"""ETR Theorem 5, eq. 12: bounds of expert choice's success rate, as the theorem and as its proof print them.

With X_i ~ Bin(s-1, q_i) expert i succeeds if X_i <= C-1. The theorem asks, for all i, for C >= 2 s q_i (success at least
1 - exp(-3C/16)) and for C <= (s-1) q_i/2 (success at most exp(-(s-1) q_i/8)); the appendix asks for C >= 2(s-1) q_i and
C - 1 <= (s-1) q_i/2 only. All are true, by chernoff_multiplicative with the mean (s-1) q_i at the counts C and C-1. One step of
the proof falls short: (19) bounds P(X_i < C-1), while success is X_i <= C-1; the bound that it gets holds for that event too.
Between (s-1) q_i/2 and 2(s-1) q_i nothing is printed; the KL rates (expert_choice_kl) bound every capacity from one side.
The constant 3/16 = .1875 improves to ln 2 - 1/2 = .1931, and 1/8 = .125 to (1 - ln 2)/2 = .1534.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from proofs.exact_laws import chernoff_multiplicative as chernoff
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.rules import Rates, expert_choice


@dataclass(frozen=True)
class Side:
    """Lower bound claimed from C >= up (s-1) q_i, upper from C - 1 <= down (s-1) q_i."""

    up: str
    down: str

    def bounds(self, tokens: float, capacity: float, q: np.ndarray) -> tuple[float, float]:
        mean = (tokens - 1) * q
        lower = np.where(capacity >= float(Fraction(self.up)) * mean, 1 - np.exp(-3 * capacity / 16), 0.0)
        upper = np.where(capacity - 1 <= float(Fraction(self.down)) * mean, np.exp(-mean / 8), 1.0)
        return float(lower.mean()), float(upper.mean())


claim = Claim(
    title="The printed bounds of expert choice's success rate, on the ranges of the theorem and of its proof",
    statement=r"$P_{ECR}=\frac1n\sum_iF(q_i)$ with $F(q_i)\geq 1-e^{-3C/16}$ if $C\geq 2(s-1)q_i$ (so if $C\geq 2sq_i$, as the "
    r"theorem asks) and $F(q_i)\leq e^{-(s-1)q_i/8}$ if $C-1\leq (s-1)q_i/2$ (so if $C\leq (s-1)q_i/2$), for each expert $i$",
    hypotheses=(r"fixed affinities, $q_i$ the false-positive rate of expert $i$",),
    source="ETR Theorem 5, eq. 12 (arXiv 2406.00023)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=Side("2", "1/2"),
    mutant=Side("3/2", "3/4"),
    mutation="conditions relaxed to C >= 3(s-1)q/2 and C - 1 <= 3(s-1)q/4",
    lemmas=("multiplicative Chernoff tails (chernoff_multiplicative)",),
)


@claim.certificate("Chernoff's exponents on the claimed ranges are at least 3/16 and 1/8")
def chernoff_s_exponents_claimed_ranges(side: Side) -> Outcome:
    # Failure is {X >= C} with C >= up μ; success is {X <= C-1} with C - 1 <= down μ, μ = (s-1) q.
    (check,) = (c for c in chernoff.claim.checks if c.kind == "certificate")
    return check.run(chernoff.side(side.up, side.down))


@claim.reference("random experts: the exact average between the bounds, 3000 settings")
def random_experts_exact_average_between(side: Side) -> Outcome:
    rng = np.random.default_rng(16)
    used = 0
    for _ in range(3000):
        tokens = int(10 ** rng.uniform(0.5, 4))
        capacity = int(rng.integers(1, tokens + 1))
        q = np.minimum(capacity / tokens * 10 ** rng.uniform(-0.5, 0.5, rng.integers(1, 6)), 1.0)
        lower, upper = side.bounds(tokens, capacity, q)
        used += (lower > 0) + (upper < 1)
        exact = float(expert_choice.success(tokens, capacity, Rates(false_positive=q)).mean())
        if not lower * (1 - 1e-12) <= exact <= upper * (1 + 1e-12):
            return fails(
                f"s={tokens}, C={capacity}, q={np.round(q, 4).tolist()}: {exact:.5f} not in [{lower:.5f}, {upper:.5f}]"
            )
    return holds(f"no violation; {used} of the bounds were not trivial")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, capacity: int, q: float) -> dict[str, int]:
    return {"failure": int(np.count_nonzero(rng.binomial(tokens - 1, q, trials) >= capacity))}


claim.simulate(
    sample,
    cases=[{"tokens": 401, "capacity": 60, "q": 0.1}, {"tokens": 41, "capacity": 8, "q": 0.1}],
    law=lambda side, *, tokens, capacity, q: {"failure": 1 - side.bounds(tokens, capacity, np.array([q]))[0]},
    relation="at_most",
)
