"""LocMoE's runs on clusters: what would be needed to repeat them.

What their times imply is checked in locmoe_times.
"""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="Timings, assignments, perplexity and scores of LocMoE's runs",
    statement="time per epoch 12.68 % to 22.24 % below hash and switch routers on 64, 128 and 256 devices, its "
    "composition, assignments of "
    "experts over training, perplexity, an affinity of about .03, and manual scores of ten tasks",
    source="LocMoE figures 2 and 7 to 14: cluster runs; LocMoE text: 31.18 %, fewer class-discriminative tokens to learn, "
    "accuracy within the critical limit (arXiv 2401.13920)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    reason="The model (PanGu-Sigma), its corpus, the clusters (Ascend 910A) and the graders are not available. The "
    "printed times are "
    "checked against each other in locmoe_times, the capacity bound at the measured affinity in "
    "locmoe_measured_affinity.",
)
