"""Training: do the exact laws, fed with what a trained router does to one token, predict what it does to whole samples?

Samples are those of `_planted`. Gates and one linear detector per expert learn the class through resonance: logit i is the
sum of sigmoid(scale * cosine) v_i.x over the tokens that expert i keeps. Each arm stops after another number of steps.

Then, on one set of fresh samples, single tokens are measured: hit rate, shares pi_i of background, and for each planted
token the tails q and h of its affinity among the background of all samples. The exact laws turn these into success rates,
which are compared with the rates of the three routers on a second set of samples. "scalar" puts the mean q or h of each
class into the same law. Background tokens are independent, or share a component within their sample: then the single-token
measurements are as before, but the counts are no longer binomial, and the laws must fail (claim: dependent_counts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from resonance_theory.rules import Rates, expert_choice, resonance
from simulations._planted import Sizes, cosine, draw, weigh
from simulations._rules import RULES, route, success
from simulations._training import Counts, counts, cross_entropy, descend, one_thread, parameters, takes

PACKAGES = ("torch",)
PER = 1_000_000


def predict(affinity: np.ndarray, place: np.ndarray, label: np.ndarray, capacity: int) -> dict[str, float]:
    """Single-token measurements on these samples, and the success rates that the laws make of them."""
    samples, tokens, experts = affinity.shape
    planted = affinity[np.arange(samples), place]
    others = np.ones((samples, tokens), dtype=bool)
    others[np.arange(samples), place] = False
    background = affinity[others]
    choice = background.argmax(axis=1)
    parts: list[dict[str, float]] = []
    for i in range(experts):
        mine = label == i
        value = planted[mine, i]
        hit = (planted[mine].argmax(axis=1) == i).astype(float)
        candidates = np.sort(background[choice == i, i])
        everyone = np.sort(background[:, i])
        q = 1 - np.searchsorted(everyone, value) / len(background)
        h = (len(candidates) - np.searchsorted(candidates, value)) / len(background)
        weight, p, load = np.full(len(value), 1 / len(value)), hit.mean(), len(candidates) / len(background)
        rates = Rates(hit=hit, load=load, false_positive=q, candidate_tail=h, weight=weight)
        mean = Rates(hit=p, false_positive=q.mean(), candidate_tail=h.mean())
        found = {
            **{f"{rule} law": rate for rule, rate in success(tokens, capacity, rates).items()},
            "expert_choice scalar": expert_choice.success(tokens, capacity, mean),
            "resonance scalar": resonance.success(tokens, capacity, mean),
            "hit": p,
            "q": q.mean(),
            "h": h.mean(),
            "rho given hit": (h * hit).sum() / max(hit.sum(), 1) / load if load else 0.0,
            "heaviest share": load,
        }
        parts.append({key: float(v) for key, v in found.items()})
    shares = np.bincount(label, minlength=experts) / samples
    averaged = {key: float(shares @ np.array([part[key] for part in parts])) for key in parts[0]}
    return averaged | {"heaviest share": max(part["heaviest share"] for part in parts)}


def routed(affinity: np.ndarray, place: np.ndarray, label: np.ndarray, capacity: int) -> dict[str, float]:
    """Success rates of the routers themselves on these samples."""
    kept = {rule: route(rule, affinity, capacity).contains(place[:, None], label[:, None]) for rule in RULES}
    return {rule: float(found.mean()) for rule, found in kept.items()}


@dataclass(frozen=True, kw_only=True)
class Training(Sizes):
    steps: int


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train routers side by side for so many steps and measure them."""
    import torch

    weight_rng, data_rng, test_rng = rng.spawn(3)
    gates, detectors = (
        torch.from_numpy(weight_rng.standard_normal((runs, s.dim, s.experts), dtype=np.float32)).requires_grad_()
        for _ in range(2)
    )
    detectors.data *= s.dim**-0.5
    offset = torch.zeros(runs, 1, s.experts, requires_grad=True)

    def loss() -> Any:
        drawn = [draw(data_rng, s.batch, *s.shape) for _ in range(runs)]
        x = torch.from_numpy(np.stack([d[0] for d in drawn])).flatten(1, 2)
        label = np.stack([d[2] for d in drawn])
        unit = gates / gates.norm(dim=1, keepdim=True)
        affinity = (torch.bmm(x, unit) / x.norm(dim=-1, keepdim=True)).reshape(runs * s.batch, s.tokens, s.experts)
        detected = torch.bmm(x, detectors).reshape(affinity.shape)
        summed = weigh(affinity, detected, "resonance", s.capacity, s.scale, weight_rng)[0]
        return cross_entropy(summed.reshape(runs, s.batch, s.experts) + offset, label)

    with one_thread():
        for _ in descend([gates, detectors, offset], loss, s.steps, s.rate, fall=False):
            pass

    measured: list[dict[str, float]] = []
    for learned in gates.detach().numpy():
        found: dict[str, float] = {}
        for function in (predict, routed):  # two independent sets of samples
            x_test, place, label_test = draw(test_rng, s.samples, *s.shape)
            found |= function(cosine(x_test, learned), place, label_test, s.capacity)
        measured.append(found)
    return counts(measured, PER)


def arms(settings: dict[str, Any]) -> list[Arm]:
    return [
        Arm(f"{name}, {steps} steps", train, parameters(Training, settings, shared=shared, steps=steps), PER)
        for name, shared in (("independent", 0.0), ("correlated", settings["shared"]))
        for steps in settings["steps"]
    ]
