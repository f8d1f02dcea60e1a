"""Training in phases: hit rates, accuracy and least capacities along one training, predicted by the laws.

Samples, backgrounds and routers are those of `_planted`. At each checkpoint fresh samples give the laws (see
`_planted_laws`), and others what the rules, whichever of them trains, do: success at the training capacity, the least
capacity C* for a share of the hit rate, accuracy, and how often the best assignment of experts to classes is met. "law" is
the law for independent tokens, "N11" its beta-binomial repair (claim: dependent_counts), "mixture" the exact one from the
counts. When hit rate and accuracy have made half their way is read off the training samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from resonance_theory.evidence.studies.training import Arm
from resonance_theory.rules import Rates, Rule
from simulations import _planted_laws
from simulations._planted import Gated, Network, background_of, draw, start, weigh
from simulations._planted_laws import binomial, least, repaired
from simulations._rules import RULES
from simulations._training import Counts, descend, each_run, parameters, takes

PACKAGES = ("torch",)
PER = 10_000
WINDOW = 20  # training steps over which hit rate and accuracy are averaged
MOVED = 0.1  # a rise below this is none


def forward(net: Network, x: np.ndarray, rule: str, capacity: int) -> tuple[Any, np.ndarray]:
    """(logits, affinities): logit i sums sigmoid(scale * affinity) v_i.x over the tokens that expert i keeps."""
    import torch

    seen, affinity = net.gate(torch.from_numpy(x))
    undrawn = np.random.default_rng(0)  # these rules draw nothing
    summed = weigh(affinity, seen @ net.detectors, rule, capacity, net.scale, undrawn)[0]
    return summed + net.offset, affinity.detach().numpy()


def half_way(value: np.ndarray) -> tuple[float, bool]:
    """(step at which the running mean has made half the way from its first value to its highest, whether it rose).

    Without a rise the step is the last one.
    """
    mean = np.convolve(value, np.full(WINDOW, 1 / WINDOW), mode="valid")
    rise = mean.max() - mean[0]
    if rise < MOVED:
        return float(len(value)), False
    return float((mean >= mean[0] + rise / 2).argmax() + WINDOW / 2), True


def checkpoint(
    net: Network, first: tuple[Any, ...], second: tuple[Any, ...], rule: str, capacity: int, target: float
) -> dict[str, float]:
    """All measurements; the laws know the first set of samples only, the routers and the accuracy the second."""
    import torch

    with torch.no_grad():
        scores = net.gate(torch.from_numpy(first[0]))[1].numpy()
        logits, affinity = forward(net, second[0], rule, capacity)
    found = _planted_laws.predict(scores, *first[1:])
    table, curves = _planted_laws.observe(affinity, *second[1:])
    _, tokens, experts = affinity.shape
    classes = np.bincount(second[2], minlength=experts) / len(second[2])
    matched = linear_sum_assignment(table, maximize=True)
    hit, predicted_hit = float(classes @ table.diagonal()), float(found.share @ found.hit)
    out = {
        "accuracy": float((logits.argmax(dim=-1).numpy() == second[2]).mean()),
        "hit": hit,
        "matched": float(table[matched].mean()),
        "undefined": float(np.isnan(found.rho).mean()),
        "dispersion": found.dispersion,
        "unit": 1.0,  # what the dispersion is for binomial loads
        "q": float(found.share @ found.q),
        "h": float(found.share @ found.h),
    }
    values, weights = found.percentile
    order = np.argsort(values)
    mass = weights[order].cumsum()
    for level in (0.1, 0.5, 0.9):
        at = np.searchsorted(mass, level * mass[-1]) if len(mass) else 0
        out[f"rho {level:g}"] = float(values[order][at]) if len(mass) else 0.0
    out["rho"] = float(weights @ values / mass[-1]) if len(mass) else 0.0
    for i in range(experts):
        by_class = {"hit": table[i, i], "load": found.load[i], "h": found.h[i], "rho": np.nan_to_num(found.rho[i])}
        out |= {f"{name} {i}": float(value) for name, value in by_class.items()}
    goal = target * predicted_hit

    def least_by(read: Rule, rates: Rates) -> float:
        return float(read.least_capacity(goal, tokens, rates)) if predicted_hit else 1.0

    for name in RULES:
        law = found.laws[name]
        out[name] = float(curves[name][capacity - 1])
        out[f"{name} C*"] = least(curves[name], target * hit)
        out[f"{name} mixture"] = float(law.curve[capacity - 1])
        out[f"{name} C* mixture"] = least(law.curve, goal)
        for kind, function in (("law", binomial), ("N11", repaired)):
            read, rates = function(name, law)
            out[f"{name} {kind}"] = float(read.success(tokens, capacity, rates))
            out[f"{name} C* {kind}"] = least_by(read, rates)
    out["switch"] = max(out["token_choice"], out["expert_choice"])  # the better of the two at this stage
    for kind in ("", " law", " N11", " mixture"):
        out[f"C* ratio{kind}"] = out[f"resonance C*{kind}"] / out[f"token_choice C*{kind}"]
    for kind, tail in (("mean rho", found.rho * found.load), ("mean h", found.h)):
        law = _planted_laws.at_mean(found, tail)
        out[f"resonance C* {kind}"] = least_by(*binomial("resonance", law))
    return out


@dataclass(frozen=True, kw_only=True)
class Training(Gated):
    """target: C* is the least capacity with this share of the hit rate."""

    target: float


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train routers, one after the other, by one rule, and measure them at each checkpoint."""
    import torch

    def one(stream: np.random.Generator) -> dict[str, float]:
        weight_rng, data_rng, test_rng = stream.spawn(3)
        push, net = start(weight_rng, s)
        measured: dict[int, dict[str, float]] = {}
        hits: list[float] = []
        right: list[float] = []

        def loss() -> Any:
            x, place, label = draw(data_rng, s.batch, *s.shape, push)
            logits, affinity = forward(net, x, s.rule, s.capacity)
            hits.append((affinity[np.arange(s.batch), place].argmax(axis=-1) == label).mean())
            right.append((logits.detach().argmax(dim=-1).numpy() == label).mean())
            return torch.nn.functional.cross_entropy(logits, torch.from_numpy(label))

        for step in descend(net.trained, loss, s.checkpoints[-1], s.rate, fall=False):
            if step in s.checkpoints:
                first, second = (draw(test_rng, s.samples, *s.shape, push) for _ in range(2))
                measured[step] = checkpoint(net, first, second, s.rule, s.capacity, s.target)
        values = {f"{name} @{step}": v for step, out in measured.items() for name, v in out.items()}
        before, end = measured[s.checkpoints[0]], measured[s.checkpoints[-1]]
        for name in before:
            values[f"{name} mean"] = float(np.mean([out[name] for out in measured.values()]))
        for kind in ("", " law", " N11", " mixture"):
            values[f"C* fall{kind}"] = end[f"resonance C*{kind}"] / before[f"resonance C*{kind}"]
        values["published"] = 0.6  # "40 % fewer tokens": capacities fall to this share
        for name, curve in (("hit", hits), ("accuracy", right)):
            values[f"half way {name}"], values[f"moved {name}"] = half_way(np.array(curve))
        return values

    return each_run(rng, runs, PER, one)


def arms(settings: dict[str, Any]) -> list[Arm]:
    backgrounds = background_of(settings)
    return [
        Arm(
            f"{gate}, {background}, {rule}",
            train,
            parameters(Training, settings, gate=gate, rule=rule, **backgrounds[background]),
            PER,
        )
        for gate, background, rule in settings["arms"]
    ]
