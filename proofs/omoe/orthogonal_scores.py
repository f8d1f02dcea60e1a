"""OMoE's scores and the similarity of experts up to 99 %: what would be needed to repeat them.

The study orthogonal_experts trains near-copies of experts with and without the projection, and a control with random
subspaces.
"""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="OMoE's gains on GLUE, SuperGLUE, question answering and entity recognition",
    statement="experts' representations are similar up to 99 % in a well-performed model; the orthogonal optimizer improves "
    "fine-tuning on four groups of tasks",
    source="OMoE abstract: up to 99 %; OMoE abstract: GLUE, SuperGLUE (arXiv 2310.09762)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("orthogonal_experts",),
    reason="only the abstract is known here: models, lengths of the phases, the ridge and all scores are in a text that is not "
    "available to us.",
)
