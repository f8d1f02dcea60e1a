"""A median threshold prunes half of the second experts, a quarter of all expert evaluations; the paper measures 15 %.

MC-MoE sets μ to the median of w₁/w₀ over calibration tokens and prunes where w₁/w₀ < μ. Of n tokens with distinct ratios
floor(n/2) or less are below the median, half of them in the limit. Each has one of its two evaluations pruned: 1/4 of all. If m
tokens in a hundred are protected, 1/4 (1 - m) is left at most where protection is independent. The printed 15 % would be a
quantile of 0.30.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.expert_pruning import prune_second, pruning_threshold


@dataclass(frozen=True)
class Side:
    """Share of the expert evaluations that a median threshold prunes."""

    share: Fraction


claim = Claim(
    title="A median threshold prunes a quarter of the expert evaluations, not 15 %",
    statement=r"$P(w_1/w_0<\mathrm{median})=1/2$, so $1/4$ of the evaluations of two experts a token",
    hypotheses=("ratios without ties", "new tokens have the law of the calibration tokens"),
    source="MC-MoE eq. 5: median; MC-MoE section 3.3.1: 15%; MC-MoE abstract: 15% (arXiv 2410.06270)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=Side(Fraction(1, 4)),
    mutant=Side(Fraction(1, 2)),
    mutation="the share of second experts taken for that of all evaluations",
    printed=Side(Fraction(15, 100)),
    correction="Printed: the median threshold and a reduction of 15 %. A median prunes 25 % of the "
    "evaluations; 15 % is the 0.30 quantile.",
)


@claim.certificate("every order of few ratios")
def counted(side: Side) -> Outcome:
    for n in (2, 4, 6, 100):
        ratios = [Fraction(i + 1, n + 1) for i in range(n)]
        middle = ratios[n // 2]
        pruned = Fraction(sum(r < middle for r in ratios), 2 * n)
        if pruned != side.share:
            return fails(f"{n} tokens: {pruned} of the evaluations, claimed {side.share}")
    return holds("2, 4, 6 and 100 tokens")


@claim.counterexample("the package's threshold on 100,000 tokens of a softmax gate")
def measured(side: Side) -> Outcome:
    rng = np.random.default_rng(0)
    logits = np.sort(rng.normal(size=(100_000, 8)), axis=1)[:, :-3:-1]
    weight = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mu = pruning_threshold(weight[:, 0], weight[:, 1])
    pruned = prune_second(weight[:, 0], weight[:, 1], mu).mean() / 2
    text = f"{pruned:.4f} of the evaluations at μ = {mu:.3f}, claimed {float(side.share):.4f}"
    return holds(text) if abs(pruned - side.share) < 1e-4 else fails(text)


def sample(rng: np.random.Generator, trials: int, *, calibration: int) -> dict[str, int]:
    """Fresh evaluations, the first or the second of a token, under a threshold from other tokens each time."""
    count = 0
    for start in range(0, trials, 2000):
        batch = min(2000, trials - start)
        ratio = np.exp(
            -np.abs(np.diff(np.sort(rng.normal(size=(batch, calibration + 1, 8)), axis=2)[..., -2:], axis=2))
        )[..., 0]
        below = ratio[:, 0] < np.sort(ratio[:, 1:], axis=1)[:, calibration // 2]
        count += int((below & (rng.random(batch) < 0.5)).sum())
    return {"pruned": count}


# the median of 31 others has fresh ratios below it with probability 16/32
claim.simulate(
    sample, cases=[{"calibration": 31}], law=lambda side, *, calibration: {"pruned": float(side.share)}, trials=60_000
)
