"""Training: do the exact laws, fed with what a trained router does to one token, predict what it does to whole samples?

Samples of s tokens; one, at a random place, is theta u_i + z for the class i (orthonormal directions u), the others are
background. Gates and one linear detector per expert learn the class through resonance: logit i is the sum of
sigmoid(scale * cosine) v_i.x over the tokens that expert i keeps. Each arm stops after another number of steps.

Then, on one set of fresh samples, single tokens are measured: hit rate, shares pi_i of background, and for each planted
token the tails q and h of its affinity among the background of all samples. The laws turn these into success rates (N1,
section 3, N4), which are compared with the rates of the three routers on a second set of samples. "scalar" puts the mean
q or h of each class into the same law. Background tokens are independent, or share a component within their sample: then
the single-token measurements are as before, but the counts are no longer binomial (N11), and the laws must fail.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from resonance_theory.rules import expert_choice, resonance, token_choice
from simulations.digits_mosaics import cross_entropy, descend, keep, one_thread

PACKAGES = ("torch",)


def draw(
    rng: np.random.Generator, samples: int, tokens: int, dim: int, experts: int, signal: float, shared: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x (samples, tokens, dim), place, class); `shared` is the share of a background token's variance that its sample's
    other background tokens have in common with it."""
    x = np.sqrt(1 - shared) * rng.standard_normal((samples, tokens, dim), dtype=np.float32)
    x += np.sqrt(shared) * rng.standard_normal((samples, 1, dim), dtype=np.float32)
    place, label = rng.integers(0, tokens, samples), rng.integers(0, experts, samples)
    x[np.arange(samples), place] = rng.standard_normal((samples, dim), dtype=np.float32)
    x[np.arange(samples), place, label] += signal  # u_i is the i-th unit vector
    return x.astype(np.float32), place, label


def cosine(x: np.ndarray, gates: np.ndarray) -> np.ndarray:
    return (x @ (gates / np.linalg.norm(gates, axis=0))) / np.linalg.norm(x, axis=-1, keepdims=True)


def weigh(
    affinity: Any, detected: Any, rule: str, capacity: int, scale: float, rng: np.random.Generator
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Logits up to the offset (samples, experts), and (token, used) of `keep`; affinity, detected: (samples, s, experts)."""
    import torch

    token, used = keep(affinity.detach().numpy(), rule, capacity, rng)
    value = torch.sigmoid(scale * affinity) * detected
    kept = value.transpose(1, 2).gather(2, torch.from_numpy(token)) * torch.from_numpy(used)
    return kept.sum(dim=-1), token, used


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
        success = {
            "token_choice law": token_choice.success(tokens, experts, capacity, hit=p, load=load) if load else p,
            "expert_choice law": expert_choice.success(tokens, capacity, false_positive=q, weight=weight),
            "resonance law": resonance.success(tokens, capacity, hit=hit, candidate_tail=h, weight=weight),
            "expert_choice scalar": expert_choice.success(tokens, capacity, false_positive=q.mean()),
            "resonance scalar": resonance.success(tokens, capacity, hit=p, candidate_tail=h.mean()),
            "hit": p,
            "q": q.mean(),
            "h": h.mean(),
            "rho given hit": (h * hit).sum() / max(hit.sum(), 1) / load if load else 0.0,
            "heaviest share": load,
        }
        parts.append({key: float(v) for key, v in success.items()})
    shares = np.bincount(label, minlength=experts) / samples
    mean = {key: float(shares @ np.array([part[key] for part in parts])) for key in parts[0]}
    return mean | {"heaviest share": max(part["heaviest share"] for part in parts)}


def routed(affinity: np.ndarray, place: np.ndarray, label: np.ndarray, capacity: int) -> dict[str, float]:
    """Success rates of the routers themselves on these samples."""
    rules = {"token_choice": token_choice.route, "expert_choice": expert_choice.route, "resonance": resonance.route}
    return {
        rule: float(route(affinity, capacity).contains(place[:, None], label[:, None]).mean())
        for rule, route in rules.items()
    }


def train(
    rng: np.random.Generator,
    trials: int,
    *,
    shared: float,
    steps: int,
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    capacity: int,
    batch: int,
    rate: float,
    scale: float,
    samples: int,
) -> dict[str, int]:
    """Train `trials` routers side by side for so many steps; rates as whole numbers out of a million."""
    import torch

    weight_rng, data_rng, test_rng = rng.spawn(3)
    gates, detectors = (
        torch.from_numpy(weight_rng.standard_normal((trials, dim, experts), dtype=np.float32)).requires_grad_()
        for _ in range(2)
    )
    detectors.data *= dim**-0.5
    offset = torch.zeros(trials, 1, experts, requires_grad=True)
    shape = (tokens, dim, experts, signal, shared)

    def loss() -> Any:
        drawn = [draw(data_rng, batch, *shape) for _ in range(trials)]
        x = torch.from_numpy(np.stack([d[0] for d in drawn])).flatten(1, 2)
        label = np.stack([d[2] for d in drawn])
        unit = gates / gates.norm(dim=1, keepdim=True)
        affinity = (torch.bmm(x, unit) / x.norm(dim=-1, keepdim=True)).reshape(trials * batch, tokens, experts)
        detected = torch.bmm(x, detectors).reshape(affinity.shape)
        summed = weigh(affinity, detected, "resonance", capacity, scale, weight_rng)[0]
        return cross_entropy(summed.reshape(trials, batch, experts) + offset, label)

    with one_thread():
        for _ in descend([gates, detectors, offset], loss, steps, rate, fall=False):
            pass

    counts: dict[str, int] = {}
    for run, learned in enumerate(gates.detach().numpy()):
        measured: dict[str, float] = {}
        for function in (predict, routed):  # two independent sets of samples
            x_test, place, label_test = draw(test_rng, samples, *shape)
            measured |= function(cosine(x_test, learned), place, label_test, capacity)
        counts |= {f"{name}/{run}": round(value * 1_000_000) for name, value in measured.items()}
    return counts


def arms(settings: dict[str, Any]) -> list[Arm]:
    common = ("tokens", "dim", "experts", "signal", "capacity", "batch", "rate", "scale", "samples")
    fixed = {key: settings[key] for key in common}
    return [
        Arm(f"{name}, {steps} steps", train, fixed | {"shared": shared, "steps": steps}, 1_000_000)
        for name, shared in (("independent", 0.0), ("correlated", settings["shared"]))
        for steps in settings["steps"]
    ]
