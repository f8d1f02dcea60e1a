"""MoMa's sensitivity of mixture of depths to errors of the router, above .5 %: what would be needed to repeat it.

The study modality_groups measures on a toy how the loss grows with the share of wrong decisions, for groups of experts.
"""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="Mixture of depths loses to MoMa above a router noise of .5 %",
    statement="with router noise above .5 % the 635M model with mixture of depths is worse than the 435M model without",
    source="MoMa section 4.6: noise above 0.5 %; MoMa eq. 3: auxiliary router (arXiv 2407.21770 v3)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("modality_groups",),
    reason="neither models nor data are published, and pre-training on 1 trillion tokens is out of reach.",
)
