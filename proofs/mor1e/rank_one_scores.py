"""T-REX's mean accuracy over 14 datasets: what would be needed to repeat it.

The study rank_one_experts compares the layer with LoRA and with a mixture of LoRA at equal parameters, on a toy of many
tasks.
"""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="T-REX's accuracy over other LoRA methods on 14 datasets",
    statement="up to 1.78 % mean accuracy (v1, as MoR1E: 2.15 %) above other LoRA-based methods",
    source="T-REX abstract: 1.78 %; T-REX abstract v1: 2.15 % (arXiv 2404.08985)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("rank_one_experts",),
    reason="fine-tuning a model of 13 billion parameters on 14 datasets is out of reach here; only abstract and code are known.",
)
