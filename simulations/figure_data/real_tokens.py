"""The audit of the embedded hidden states, cut to what its figure shows: drops measured and predicted, by layer."""

from __future__ import annotations

from typing import Any

from resonance_theory import audit

MODELS = ("uniform", "measured_load", "beta_binomial", "blocks")


def compute() -> dict[str, Any]:
    report = audit.audit(audit.example())
    layers = []
    for layer in report.layers:
        entry: dict[str, Any] = {"name": layer.name, "sequences": layer.sequences, "tokens": layer.tokens}
        for routing in layer.routings:
            drops = routing.drops
            entry[routing.name] = {
                "measured": [drop.measured.value for drop in drops],
                "error": [drop.measured.error for drop in drops],
                **{model: [getattr(drop, model) for drop in drops] for model in MODELS},
            }
        layers.append(entry)
    return {"experts": report.experts, "dim": report.layers[0].dim, "models": list(MODELS), "layers": layers}
