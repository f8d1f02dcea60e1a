"""MC-MoE's scores of quantised Mixtral models: what would be needed to repeat them."""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="Mixtral at 2.54 bits beats 13b dense models in floating point",
    statement="quantised Mixtral 8x7b at 2.54 bits scores above LLaMA2-13b on eight tasks",
    source="MC-MoE abstract: 13b; MC-MoE table 3; MC-MoE appendix A.8 (arXiv 2410.06270)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("quantised_experts",),
    reason="quantising Mixtral 8x7b needs two GPUs of 80 GB, which are not at hand.",
)
