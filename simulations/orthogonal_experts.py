"""Training: does an optimizer that steps away from the other experts' inputs keep near-copies of experts apart?

Tokens of four clusters, each with its own linear map to learn, pass a mixture of four experts of two layers by a
learned Top-2 router. The experts start as near copies. One arm trains by Adam. The others are
`systems.orthogonal_optimizer` on the same Adam: averaged projectors, as OMoE's abstract says, the projector off all
others' inputs, and a control whose averaged projectors have the same eigenvalues along random directions. Clusters
spread in all dimensions, or each in a few of its own: only then is there room off the others' inputs. At the end
experts see the same test tokens: linear CKA of their outputs for pairs, the mean cosine of their outputs, and the test
loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory import homogenization
from resonance_theory.evidence.studies.training import Arm
from simulations._metrics import mean_of_pairs
from simulations._training import Counts, each_run, parameters, takes

PACKAGES = ("torch",)
PER = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Training:
    """projection: "none", "average", "joint", or "random" for the control; jitter: share of own weights at the start;
    rank: dimensions in which a cluster spreads."""

    projection: str
    rank: int
    clusters: int
    dim: int
    hidden: int
    experts: int
    spread: float
    jitter: float
    steps: int
    batch: int
    rate: float
    accumulate: int
    orthogonal: int
    ridge: float
    test_tokens: int


def network(s: Training, seed: int) -> Any:
    """Experts, near copies of the first one, and a router, as one torch module."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    up = nn.ModuleList(nn.Linear(s.dim, s.hidden) for _ in range(s.experts))
    down = nn.ModuleList(nn.Linear(s.hidden, s.dim) for _ in range(s.experts))
    with torch.no_grad():
        for layers in (up, down):
            for layer in layers[1:]:
                for weight, first in zip(layer.parameters(), layers[0].parameters()):
                    weight.copy_(first + s.jitter * weight)
    return nn.ModuleDict({"up": up, "down": down, "router": nn.Linear(s.dim, s.experts, bias=False)})


def outputs(net: Any, x: Any) -> list[Any]:
    """Outputs of every expert for every token."""
    return [down(up(x).relu()) for up, down in zip(net["up"], net["down"])]


def mixed(net: Any, x: Any) -> Any:
    """Top-2 mixture; an expert's layers see its own tokens only, as in a sparse layer."""
    import torch

    weight, expert = net["router"](x).softmax(-1).topk(2, dim=-1)
    weight = weight / weight.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    for e, (up, down) in enumerate(zip(net["up"], net["down"])):
        token, place = torch.nonzero(expert == e, as_tuple=True)
        if len(token):
            y = y.index_add(0, token, weight[token, place, None] * down(up(x[token]).relu()))
    return y


def optimizer_of(s: Training, net: Any, rng: np.random.Generator) -> Any:
    import torch

    from resonance_theory.systems.orthogonal_optimizer import OrthogonalExperts

    class Rotated(OrthogonalExperts):
        """The control: each projector turned by a random rotation."""

        def _projectors(self) -> None:
            super()._projectors()
            for key, p in self._projector.items():
                turn = torch.from_numpy(np.linalg.qr(rng.standard_normal(p.shape))[0]).to(p)
                self._projector[key] = turn @ p @ turn.T

    base = torch.optim.Adam(net.parameters(), lr=s.rate)
    experts = [list(pair) for pair in zip(net["up"], net["down"])]
    kind = Rotated if s.projection == "random" else OrthogonalExperts
    orthogonal = 0 if s.projection == "none" else s.orthogonal
    projection = "joint" if s.projection == "joint" else "average"
    return kind(base, experts, accumulate=s.accumulate, orthogonal=orthogonal, ridge=s.ridge, projection=projection)


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train networks one after the other; every arm sees the same tokens, maps and starting weights."""
    import torch

    def one(stream: np.random.Generator) -> dict[str, float]:
        world, data, weight, turn = stream.spawn(4)
        centres = world.standard_normal((s.clusters, s.dim))
        maps = world.standard_normal((s.clusters, s.dim, s.dim)) / np.sqrt(s.dim)

        planes = np.linalg.qr(world.standard_normal((s.clusters, s.dim, s.dim)))[0][..., : s.rank]

        def draw(count: int) -> tuple[Any, Any]:
            cluster = data.integers(0, s.clusters, count)
            x = centres[cluster] + s.spread * np.einsum(
                "ndr,nr->nd", planes[cluster], data.standard_normal((count, s.rank))
            )
            y = np.einsum("nij,nj->ni", maps[cluster], x)
            return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32))

        net = network(s, int(weight.integers(2**31)))
        optimizer = optimizer_of(s, net, turn)
        for _ in range(s.steps):
            x, y = draw(s.batch)
            optimizer.zero_grad()
            (mixed(net, x) - y).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            x, y = draw(s.test_tokens)
            each = [o.numpy().astype(np.float64) for o in outputs(net, x)]
            loss = float((mixed(net, x) - y).square().mean() / y.square().mean())
        cka = mean_of_pairs(homogenization.linear_cka, each)
        cosine = mean_of_pairs(mean_cosine, each)
        return {"loss": loss, "cka": cka, "distance": 1 - cosine}

    return each_run(rng, runs, PER, one)


def arms(settings: dict[str, Any]) -> list[Arm]:
    return [
        Arm(f"{label}, {world}", train, parameters(Training, settings, projection=projection, rank=rank), PER)
        for world, rank in (("full rank", settings["dim"]), ("low rank", settings["low_rank"]))
        for label, projection in (
            ("Adam", "none"),
            ("averaged projectors", "average"),
            ("joint projector", "joint"),
            ("random directions", "random"),
        )
    ]
