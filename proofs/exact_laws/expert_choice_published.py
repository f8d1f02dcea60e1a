"""ETR Theorem 5, eq. 12: bounds of expert choice's success rate, with their conditions stated and the gap filled.

With X_i ~ Bin(s-1, q_i) expert i fails if X_i >= C. If C >= 2(s-1)q_i the failure is at most exp(-3C/16); if
C <= (s-1)q_i/2 the success is at most exp(-(s-1)q_i/8) (chernoff_multiplicative). Each condition must hold for the expert it
is used for: holding for the average q is not enough, since experts with q_i above C/(s-1) fail however small the others' q.
Between (s-1)q_i/2 and 2(s-1)q_i nothing is printed; the KL rates (expert_choice_kl) bound every capacity from one side.
The constant 3/16 = .1875 improves to ln 2 - 1/2 = .1931, and 1/8 = .125 to (1 - ln 2)/2 = .1534.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from proofs.exact_laws import chernoff_multiplicative as chernoff
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.rules import Rates, expert_choice


def side(up: str, down: str, *, averaged: bool = False) -> SimpleNamespace:
    """Lower bound claimed from C >= up (s-1) q_i, upper from C <= down (s-1) q_i; `averaged`: conditions on mean q only."""
    above, below = chernoff.side(up, down).above, chernoff.side(up, down).below

    def bounds(tokens: float, capacity: float, q: np.ndarray) -> tuple[float, float]:
        mean = (tokens - 1) * (np.full_like(q, q.mean()) if averaged else q)
        lower = np.where(capacity >= above * mean, 1 - np.exp(-3 * capacity / 16), 0.0)
        upper = np.where(capacity <= below * mean, np.exp(-(tokens - 1) * q / 8), 1.0)
        return float(lower.mean()), float(upper.mean())

    return SimpleNamespace(up=up, down=down, bounds=bounds)


claim = Claim(
    title="The printed bounds of expert choice's success rate, with the condition for every expert",
    statement=r"$P_{ECR}=\frac1n\sum_iF(q_i)$ with $F(q_i)\geq 1-e^{-3C/16}$ if $C\geq 2(s-1)q_i$ and "
    r"$F(q_i)\leq e^{-(s-1)q_i/8}$ if $C\leq (s-1)q_i/2$, each condition for that expert $i$",
    hypotheses=(r"fixed affinities, $q_i$ the false-positive rate of expert $i$",),
    source="ETR Theorem 5, eq. 12 (arXiv 2406.00023)",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=side("2", "1/2"),
    mutant=side("3/2", "3/4"),
    mutation="conditions relaxed to C >= 3(s-1)q/2 and C <= 3(s-1)q/4",
    printed=side("2", "1/2", averaged=True),
    correction=r"The conditions must hold for every expert, not for the average rate: with $q=(0,\frac12)$, $s=101$, $C=50$ the "
    r"average is $\frac14$ and $C\geq 2(s-1)\bar q$, so the bound reads $.9999$, but the truth is $.730$. Between "
    r"$(s-1)q/2$ and $2(s-1)q$ nothing is printed; the KL rates cover every capacity.",
    lemmas=("multiplicative Chernoff tails (chernoff_multiplicative)",),
)


@claim.certificate("Chernoff's exponents on the claimed ranges are at least 3/16 and 1/8")
def chernoff_s_exponents_claimed_ranges(side: SimpleNamespace) -> Outcome:
    # Failure is {X >= C} with C >= up μ; success {X <= C-1} is inside {X <= C} with C <= down μ, μ = (s-1) q.
    (check,) = (c for c in chernoff.claim.checks if c.kind == "certificate")
    return check.run(chernoff.side(side.up, side.down))


@claim.counterexample("q = (0, 1/2), s = 101, C = 50")
def q_s_c(side: SimpleNamespace) -> Outcome:
    q = np.array([0.0, 0.5])
    exact = float(expert_choice.success(101, 50, Rates(false_positive=q)).mean())
    lower, upper = side.bounds(101, 50, q)
    text = f"claims [{lower:.4f}, {upper:.4f}], the truth is {exact:.4f}"
    return holds(text) if lower <= exact <= upper else fails(text)


@claim.reference("random experts: the exact average between the bounds, 3000 settings")
def random_experts_exact_average_between(side: SimpleNamespace) -> Outcome:
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
