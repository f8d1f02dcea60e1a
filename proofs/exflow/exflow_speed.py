"""ExFlow's speeds and reductions on its own models: what would be needed to repeat them."""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="ExFlow's throughput and its reductions of crossings",
    statement="up to 2.2x the throughput of DeepSpeed-MoE; up to 67 % less cross-GPU routing latency; models of 8 to 64 experts",
    source="ExFlow abstract: 67 %; ExFlow abstract: 2.2x (arXiv 2401.08383)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("affinity_placement",),
    reason="neither the GPT models nor their traces are published, and the runs need 4 to 64 linked A100 GPUs.",
)
