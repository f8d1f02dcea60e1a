"""AdapMoE's "without accuracy degradation": no loss on MMLU is told from chance, and one of a point hardly could be.

The released accuracies are whole counts of 14,042 questions: 9,743 right with two experts, 9,751 at T = 0.005, 9,731 at T =
0.013, where 41 % of the decisions use one. The two runs answer the same questions, but which answers changed is not published.
If D of them did, the difference has a standard deviation of at most sqrt(D). Treated as independent samples, whose standard
error is 77.2 answers, no difference (at most 12) is significant; and a true loss of 151 answers, 1.08 points, would be told
from 0 only half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from proofs.adapmoe._mixtral import QUESTIONS, RIGHT_ANSWERS
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds

LEVEL = 1.959963984540054  # of the normal law, two-sided 5 %


@dataclass(frozen=True)
class Side:
    """Thresholds whose difference to two experts is significant, and the smallest loss seen half of the time, in answers."""

    significant: int
    detectable: int


claim = Claim(
    title="No threshold of AdapMoE loses accuracy that MMLU shows; a loss of 1.08 points would show half of the time",
    statement="of six thresholds none differs from two experts by more than 12 answers of 14,042, where 151 would be significant",
    hypotheses=(
        "right answers as in the released code",
        "the two runs taken as independent samples: the paired counts are not published",
    ),
    source="AdapMoE abstract: accuracy (arXiv 2408.10284); AdapMoE released code: MMLU (PKU-SEC-Lab/AdapMoE at 2cfe8df)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=Side(0, 151),
    mutant=Side(6, 12),
    mutation="every difference taken for a change",
)


def error() -> float:
    """Standard error of a difference of two counts."""
    p = RIGHT_ANSWERS["0"] / QUESTIONS
    return sqrt(2 * QUESTIONS * p * (1 - p))


@claim.certificate("differences in answers against their standard error")
def differences(side: Side) -> Outcome:
    gaps = [count - RIGHT_ANSWERS["0"] for t, count in RIGHT_ANSWERS.items() if t != "0"]
    seen = sum(abs(gap) > LEVEL * error() for gap in gaps)
    text = f"differences {gaps} answers, standard error {error():.1f}: {seen} significant, claimed {side.significant}"
    return holds(text) if seen == side.significant else fails(text)


@claim.certificate("the loss that would be seen half of the time")
def detectable(side: Side) -> Outcome:
    least = int(LEVEL * error())
    text = f"{least} answers, {100 * least / QUESTIONS:.2f} points, claimed {side.detectable}"
    return holds(text) if least == side.detectable else fails(text)
