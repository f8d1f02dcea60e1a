"""AdapMoE's 1.35x: what would be needed to repeat it."""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="AdapMoE decodes Mixtral 1.35 times as fast on edge devices",
    statement="1.35x speedup over existing techniques without accuracy degradation",
    source="AdapMoE abstract: 1.35x (arXiv 2408.10284)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("expert_cache",),
    reason="it needs Mixtral-8x7B on a GPU with less memory than the model, which is not at hand.",
)
