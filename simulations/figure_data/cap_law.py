"""The cap law P(|cos| >= δ) against LocMoE's bound exp(-dδ²/(2-δ²)), and the waiting time that the bound is used for (G1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.tokens import candidates, caps

DIM, EXPERTS, SURE = 64, 8, 0.95


def exponent(dim: int, threshold: Any) -> Any:
    return dim * threshold**2 / (2 - threshold**2)


def compute() -> dict[str, Any]:
    threshold = np.linspace(0.005, 0.995, 199)
    dims = (2, 3, 4, 16, 64)
    short = np.linspace(0.02, 0.7, 69)
    some = EXPERTS * candidates.candidate_tail(short, DIM, EXPERTS)  # P(max_i δ_i >= δ)
    return {
        "threshold": threshold,
        "dims": list(dims),
        "bound_over_cap": [np.exp(-exponent(d, threshold) - np.log(2) - caps.log_cap(threshold, d)) for d in dims],
        "dim": DIM,
        "experts": EXPERTS,
        "sure": SURE,
        "waiting_threshold": short,
        "bound": np.exp(exponent(DIM, short)) / EXPERTS,
        "expected": 1 / some,
        "surely": np.ceil(np.log(1 - SURE) / np.log1p(-some)),
        "binds_from": float(np.sqrt(2 * np.log(EXPERTS) / (DIM + np.log(EXPERTS)))),
    }
