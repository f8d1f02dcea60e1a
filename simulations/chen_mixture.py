"""Training: a published mixture of experts, rerun as a check of the training code, and then with other routing rules.

Data, network and training are those of `_chen`. The published code and the published text differ in six details
(`DETAILS`), and the result depends on them: both are run. Every network is tested with the router's noise, as the code
does, and without. Then the code's network is trained with each rule and a capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from simulations import _chen
from simulations._chen import DETAILS, PACKAGES, PER
from simulations._rules import RULES
from simulations._training import Counts, counts, one_thread, parameters, takes

__all__ = ["PACKAGES", "arms"]


@dataclass(frozen=True, kw_only=True)
class Training(_chen.Mixture):
    """cubic: the experts' activation, else linear; steps: at most; the others: `DETAILS`."""

    cubic: bool
    steps: int
    scale: float
    two_outputs: bool
    softmaxed: bool
    bias: bool
    logit_gate: bool
    early_stop: bool

    @property
    def details(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in DETAILS["code"]}


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train initialisations side by side and test them."""
    import torch

    training, test = s.draw()
    weight_rng, *noise_rngs = rng.spawn(1 + runs)
    network = _chen.start(weight_rng, runs, s.experts, s.dim, s.filters, s.size)
    with one_thread():
        *_, state = _chen.learn(network, noise_rngs, training, s, cubic=s.cubic, steps=s.steps, details=s.details)
        x, label = _chen.read(test, s.cubic, s.details)
        noisy = state.noise(s.examples, s.rule)
        with torch.no_grad():
            z, kept = _chen.outputs(network, x, noisy, s.rule, s.capacity, s.cubic, s.details)
            quiet, _ = _chen.outputs(network, x, torch.zeros_like(noisy), s.rule, s.capacity, s.cubic, s.details)
            free, _ = _chen.outputs(network, x, noisy, "token_choice", s.examples, s.cubic, s.details)
    processed = np.zeros((runs, s.examples), dtype=bool)
    processed[kept.sample, kept.token] = True
    right = {"accuracy": z, "accuracy without noise": quiet, "accuracy without capacity": free}
    measured = {
        **{name: (each * label > 0).numpy().mean(axis=1) for name, each in right.items()},
        "processed": processed.mean(axis=1),
        "dispatches": kept.kept.sum(axis=1) / s.examples,
        "entropy": np.array([_chen.dispatched(kept, run, test[2], s.clusters) for run in range(runs)]),
        **state.ended,
    }
    return counts((dict(zip(measured, values)) for values in zip(*measured.values())), PER)


def arms(settings: dict[str, Any]) -> list[Arm]:
    def arm(label: str, details: str, **own: Any) -> Arm:
        return Arm(label, train, parameters(Training, settings, **DETAILS[details], **own), PER)

    published = {"rule": "token_choice", "capacity": settings["examples"]}  # top-1, nobody is dropped
    result = [
        arm(f"{kind}, as in the {name}", name, **published, cubic=kind == "cubic")
        for name in DETAILS
        for kind in ("cubic", "linear")
    ]
    for factor in settings["capacity_factors"]:
        capacity = round(factor * settings["examples"] / settings["experts"])
        result += [arm(f"{r}, capacity {factor:g}", "code", rule=r, capacity=capacity, cubic=True) for r in RULES]
    return result
