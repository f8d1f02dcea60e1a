"""MoE++'s scores after 100 billion and 1 trillion tokens: what would be needed to repeat them."""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="MoE++ models score as printed after 100 billion and 1 trillion tokens",
    statement="MoE++ 7B after 1 trillion tokens averages more than dense models of 2 to 3 times its activated parameters",
    source="MoE++ table 4: 1T tokens; MoE++ section 4.2: 57% of the cost (arXiv 2410.07348)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("zero_computation",),
    reason="training on 100 billion tokens on 32 GPUs is out of reach, and the training code is not published.",
)
