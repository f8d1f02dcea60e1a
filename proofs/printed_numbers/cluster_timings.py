"""ETR's timings on clusters: what would be needed to repeat them.

What they imply is checked in step_time_bound and ffn_speedup, with the explicit model step_time.
"""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="Timings, operator profiles and memory traces of ETR on Ascend clusters",
    statement="time per iteration 2.9 % to 13.3 % below LocMoE, operator times (FFN MatMul 17x, Cube 2.6x), the "
    "composition of the step, "
    "equal perplexity curves, and memory 2.86 % to 10.5 % below LocMoE on 32, 64 and 256 devices",
    source="ETR figures 4 to 8: cluster timings, perplexity and memory (arXiv 2406.00023 v4)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    reason="The clusters (Ascend 910B3), the training code and its fused communication kernels are not available, "
    "and no table of the "
    "measured seconds is printed. Shares and cuts that the savings need are proved in step_time_bound and ffn_speedup.",
)
