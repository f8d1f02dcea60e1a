"""Training in phases: hit rates, accuracy and least capacities along one training, foretold by the laws.

The samples are those of `planted_training`: one of s tokens bears a class, and expert i of n has one linear detector, of
class i. The background is independent; or has a mean, the same for all samples (skewed loads, still binomial); or shares
a component within each sample (loads beyond binomial, N11). Routers:

    free        gates trained freely, by cosine
    dense       gates trained freely, by inner product
    orthogonal  fixed GrAP gates after a trained orthogonal map
    embedding   fixed GrAP gates on trained embeddings of the tokens, which the detectors see as well

At each checkpoint fresh samples give the laws (see `planted_laws`), and others what the rules, whichever of them trains,
do: success at the training capacity, the least capacity C* for a share of the hit rate, accuracy, and how often the best
assignment of experts to classes is met. "law" is the law for independent tokens, "N11" its beta-binomial repair, "mixture"
the exact one from the counts. When hit rate and accuracy have made half their way is read off the training samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from resonance_theory.evidence.studies.training import Arm
from simulations import planted_laws
from simulations.digits_mosaics import descend, one_thread
from simulations.planted_laws import RULES, binomial, least, repaired
from simulations.planted_training import draw, weigh

PACKAGES = ("torch",)
PER = 10_000
WINDOW = 20  # training steps over which hit rate and accuracy are averaged
MOVED = 0.1  # a rise below this is none


class Network(NamedTuple):
    """gate: tokens (samples, s, d) -> (what the detectors see, affinities (samples, s, n)); with all that is trained."""

    gate: Any
    detectors: Any
    offset: Any
    trained: list[Any]
    scale: float


def network(kind: str, dim: int, experts: int, scale: float, seed: int) -> Network:
    import torch

    from resonance_theory.nn import gates

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detectors = (torch.randn(dim, experts) / dim**0.5).requires_grad_()
        offset = torch.zeros(experts, requires_grad=True)
        router: Any
        if kind == "embedding":
            embedding = torch.nn.Linear(dim, dim, bias=False)
            torch.nn.init.orthogonal_(embedding.weight)
            router = torch.nn.Sequential(embedding, gates.build("grap", dim, experts))
        else:
            router = gates.build("orthogonal" if kind == "orthogonal" else "linear", dim, experts)

    def gate(x: Any) -> tuple[Any, Any]:
        if kind == "embedding":
            seen = router[0](x)
            return seen, router[1](seen)
        if kind == "free":
            return x, router(x) / router.weight.norm(dim=1) / x.norm(dim=-1, keepdim=True)
        return x, router(x)

    trained = [*router.parameters(), detectors, offset]
    return Network(gate, detectors, offset, trained, 1.0 if kind == "dense" else scale)


def forward(net: Network, x: np.ndarray, rule: str, capacity: int) -> tuple[Any, np.ndarray]:
    """(logits, affinities): logit i sums sigmoid(scale * affinity) v_i.x over the tokens that expert i keeps."""
    import torch

    seen, affinity = net.gate(torch.from_numpy(x))
    undrawn = np.random.default_rng(0)  # these rules draw nothing
    summed = weigh(affinity, seen @ net.detectors, rule, capacity, net.scale, undrawn)[0]
    return summed + net.offset, affinity.detach().numpy()


def pushed(
    rng: np.random.Generator, size: int, push: np.ndarray, *shape: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples of `draw` with the mean `push` added to their background."""
    x, place, label = draw(rng, size, *shape)
    x += push
    x[np.arange(size), place] -= push
    return x, place, label


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
    found = planted_laws.foretell(scores, *first[1:])
    table, curves = planted_laws.observe(affinity, *second[1:])
    _, tokens, experts = affinity.shape
    sizes: dict[str, Any] = {"tokens": tokens, "experts": experts}
    classes = np.bincount(second[2], minlength=experts) / len(second[2])
    matched = linear_sum_assignment(table, maximize=True)
    hit, foretold_hit = float(classes @ table.diagonal()), float(found.share @ found.hit)
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
    goal: dict[str, Any] = {"target": target * foretold_hit}
    for name in RULES:
        law = found.laws[name]
        out[name] = float(curves[name][capacity - 1])
        out[f"{name} C*"] = least(curves[name], target * hit)
        out[f"{name} mixture"] = float(law.curve[capacity - 1])
        out[f"{name} C* mixture"] = least(law.curve, target * foretold_hit)
        for kind, function in (("law", binomial), ("N11", repaired)):
            out[f"{name} {kind}"] = function(name, law, "success", **sizes, capacity=capacity)
            out[f"{name} C* {kind}"] = function(name, law, "least_capacity", **sizes, **goal) if foretold_hit else 1
    out["switch"] = max(out["token_choice"], out["expert_choice"])  # the better of the two at this stage
    for kind in ("", " law", " N11", " mixture"):
        out[f"C* ratio{kind}"] = out[f"resonance C*{kind}"] / out[f"token_choice C*{kind}"]
    for kind, tail in (("mean rho", found.rho * found.load), ("mean h", found.h)):
        law = planted_laws.at_mean(found, tail)
        out[f"resonance C* {kind}"] = (
            binomial("resonance", law, "least_capacity", **sizes, **goal) if foretold_hit else 1
        )
    return out


def train(
    rng: np.random.Generator,
    trials: int,
    *,
    gate: str,
    rule: str,
    shared: float,
    mean: float,
    checkpoints: list[int],
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    capacity: int,
    target: float,
    batch: int,
    rate: float,
    scale: float,
    samples: int,
) -> dict[str, int]:
    """Train `trials` routers, one after the other, by one rule; measurements at each checkpoint in units of 1/PER."""
    import torch

    shape = (tokens, dim, experts, signal, shared)

    def one(stream: np.random.Generator) -> dict[str, float]:
        weight_rng, data_rng, test_rng = stream.spawn(3)
        direction = weight_rng.standard_normal(dim, dtype=np.float32)
        push = mean * direction / np.linalg.norm(direction)
        net = network(gate, dim, experts, scale, int(weight_rng.integers(2**62)))
        measured: dict[int, dict[str, float]] = {}
        hits: list[float] = []
        right: list[float] = []

        def loss() -> Any:
            x, place, label = pushed(data_rng, batch, push, *shape)
            logits, affinity = forward(net, x, rule, capacity)
            hits.append((affinity[np.arange(batch), place].argmax(axis=-1) == label).mean())
            right.append((logits.detach().argmax(dim=-1).numpy() == label).mean())
            return torch.nn.functional.cross_entropy(logits, torch.from_numpy(label))

        for step in descend(net.trained, loss, checkpoints[-1], rate, fall=False):
            if step in checkpoints:
                first, second = (pushed(test_rng, samples, push, *shape) for _ in range(2))
                measured[step] = checkpoint(net, first, second, rule, capacity, target)
        values = {f"{name} @{step}": v for step, out in measured.items() for name, v in out.items()}
        start, end = measured[checkpoints[0]], measured[checkpoints[-1]]
        for name in start:
            values[f"{name} mean"] = float(np.mean([out[name] for out in measured.values()]))
        for kind in ("", " law", " N11", " mixture"):
            values[f"C* fall{kind}"] = end[f"resonance C*{kind}"] / start[f"resonance C*{kind}"]
        values["published"] = 0.6  # "40 % fewer tokens": capacities fall to this share
        for name, curve in (("hit", hits), ("accuracy", right)):
            values[f"half way {name}"], values[f"moved {name}"] = half_way(np.array(curve))
        return values

    return each_run(rng, trials, PER, one)


def each_run(
    rng: np.random.Generator, trials: int, per: int, one: Callable[[np.random.Generator], dict[str, float]]
) -> dict[str, int]:
    """Measurements of runs, one after the other, each on its own stream, in units of 1/per."""
    counts: dict[str, int] = {}
    with one_thread():
        for run, stream in enumerate(rng.spawn(trials)):
            counts |= {f"{name}/{run}": round(value * per) for name, value in one(stream).items()}
    return counts


def background_of(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Arguments `shared` and `mean` of each kind of background."""
    return {
        "independent": {"shared": 0.0, "mean": 0.0},
        "skewed": {"shared": 0.0, "mean": settings["mean"]},
        "correlated": {"shared": settings["shared"], "mean": 0.0},
    }


def arms(settings: dict[str, Any]) -> list[Arm]:
    common = (
        "checkpoints",
        "tokens",
        "dim",
        "experts",
        "signal",
        "capacity",
        "target",
        "batch",
        "rate",
        "scale",
        "samples",
    )
    fixed = {key: settings[key] for key in common}
    backgrounds = background_of(settings)
    return [
        Arm(f"{gate}, {background}, {rule}", train, fixed | backgrounds[background] | {"gate": gate, "rule": rule}, PER)
        for gate, background, rule in settings["arms"]
    ]
