"""ETR's benchmark scores: what would be needed to repeat them.

The tables are checked for consistency in published_averages and published_gains.
"""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="Benchmark scores of the trained models of ETR",
    statement="scores on GDAD, TeleQnA, MMLU, GPQA and HumanEval after training with each routing rule: GDAD "
    "average 52.8 (baseline), "
    "59.0, 56.3, 61.5; TeleQnA 62.1, 67.6, 61.8, 68.8; GPQA 29.2, 30.3, 32.5, 33.5; HumanEval 40.2, 52.8, 57.6, 67.8",
    source="ETR tables 1, 2, 3 and figure 12: downstream scores, planning 26.8 % (arXiv 2406.00023 v4)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("language_model",),
    reason="GDAD (18,060 questions) and the training corpus are private, the weights are not published, and "
    "pre-training a model of "
    "46.7 billion parameters is out of reach. What the printed tables imply is checked in published_averages and "
    "published_gains.",
)
