"""Asynchronous federated learning with contracts: the published scores, and why they cannot be repeated.

Only the abstract and the introduction are known here. The study asynchronous_federated puts the ideas that they name
(asynchronous updates weighted by staleness and quality, access control) to a test on scikit-learn's digits with
poisoned clients; it is no repeat.
"""

from __future__ import annotations

from resonance_theory.evidence.claims.claim import Claim, Verdict

claim = Claim(
    title="Scores of asynchronous federated learning with contract incentives on MNIST",
    statement="accuracy above FedAvg by 3.12 % and FedProx by 5.84 % without attack, above ideal local SGD by 1.35 % under "
    "attack",
    source="async FL abstract: 3.12 %, 5.84 %, 1.35 % (arXiv 2310.06448)",
    kind="empirical",
    expected=Verdict.NOT_REPRODUCIBLE,
    studies=("asynchronous_federated",),
    reason="the paper's text and code are not available to us: neither contract items, utilities, staleness weights, attack nor "
    "settings are known. It is no Mixture-of-Experts method; admission by quality resembles a router's choice by analogy only.",
)
