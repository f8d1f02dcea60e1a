"""SCMoE's scores with Mixtral 8x7B: what would be needed to repeat them."""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="SCMoE's scores on four benchmarks with Mixtral 8x7B and DeepSeekMoE-16B",
    statement="GSM8K 61.79 to 66.94, StrategyQA 72.83 to 76.29, MBPP 46.20 to 48.80, HumanEval 33.54 to 41.46; major@20 "
    "75.59 to 78.31",
    source="SCMoE table 1; SCMoE table 4; SCMoE table 6: unchosen experts by rank (arXiv 2405.14507)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("self_contrast",),
    reason="inference of models of 16 and 47 billion parameters over 4,273 questions is out of reach here. The study "
    "self_contrast runs the rule on a small trained language model.",
)
