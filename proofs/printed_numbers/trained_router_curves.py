"""Curves that ETR measured on its trained routers: what would be needed to repeat them.

The index itself has closed forms on stated distributions: calinski_harabasz_token_choice and its neighbours.
"""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="Calinski-Harabasz, load and token-correlation curves of ETR's trained models",
    statement="the Calinski-Harabasz index over training is highest for bidirectional selection; the locality loss "
    "balances the loads; tokens "
    "are uncorrelated before and correlated above .8 after training (8192 tokens of one sample)",
    source="ETR figures 9, 10, 11 and 13: curves of trained models (arXiv 2406.00023 v4)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("homogenization_training", "chen_homogenization", "planted_phases", "language_model"),
    reason="They need the trained weights and the private corpus, and the figures print no numbers. Exact values "
    "of the index on stated "
    "token distributions, and correlations of evolving ones, are claims of their own.",
)
