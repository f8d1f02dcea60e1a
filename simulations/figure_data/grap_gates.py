"""GrAP gates, one planted token seen through them, and the affinities' densities and tails (ETR eq. 2-3, G1-G4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory import gates
from resonance_theory.tokens import candidates, caps, samplers, signals


def compute() -> dict[str, Any]:
    dim, experts, signal = 64, 8, 2.5
    rng = np.random.Generator(np.random.Philox(5))
    drawn = samplers.planted(rng, 1, 1, dim, experts, 2 * signal)
    affinity = np.linspace(-0.4, 0.8, 121)
    above = np.linspace(0.0, 0.8, 81)
    return {
        "dim": dim,
        "experts": experts,
        "signal": signal,
        "gates": gates.grap_gates(dim, experts),
        "token": drawn.values[0, 0],
        "token_signal": 2 * signal,
        "token_expert": int(drawn.expert[0]),
        "token_affinity": gates.affinity(drawn.values, experts)[0, 0],
        "affinity": affinity,
        "density_irrelevant": signals.affinity_density(affinity, 0.0, dim),
        "density_discriminative": signals.affinity_density(affinity, signal, dim),
        "tail_affinity": above,
        "false_positive": caps.cap(above, dim),
        "candidate_tail": candidates.candidate_tail(above, dim, experts),
        "discriminative_tail": signals.affinity_tail(above, signal, dim),
    }
