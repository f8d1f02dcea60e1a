"""Training: do groups of experts, one a modality, beat mixed experts at equal operations, and what do router errors cost?

Tokens of two populations ("text", "image") have different means and different functions to learn; each population falls
into clusters of its own. A layer of small networks learns them by expert choice: eight mixed experts, four and four in groups
(`systems.modality_groups`), one and one, or a single dense one. A token costs one expert on average in every arm. "error" is
the mean square error on fresh tokens, routed as in training, over the targets' variance.

At the end, for arms with several experts, a share of the decisions (token, expert) is flipped at random; and
`systems.causal_router` is trained on the choices and used alone, as a causal model must.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from simulations._training import Counts, descend, each_run, parameters, takes

PACKAGES = ("torch",)
PER = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Training:
    """layout: experts of each group, [8] for mixed ones; noise: shares of decisions that are flipped."""

    layout: list[int]
    dim: int
    hidden: int
    clusters: int
    spread: float
    apart: float
    steps: int
    batch: int
    rate: float
    router_steps: int
    noise: list[float]
    test_tokens: int


class World:
    """Tokens of two populations, in equal numbers, and what is to be learned of them."""

    def __init__(self, rng: np.random.Generator, data: np.random.Generator, s: Training) -> None:
        self.data, self.settings = data, s
        mean = s.apart * rng.standard_normal((2, 1, s.dim))
        self.centre = mean + rng.standard_normal((2, s.clusters, s.dim))
        self.map = rng.standard_normal((2, s.clusters, s.dim, s.dim)) / np.sqrt(s.dim)

    def draw(self, count: int) -> tuple[Any, Any, np.ndarray]:
        """(tokens, targets, modality), each modality half of them."""
        import torch

        kind = np.arange(count) % 2
        cluster = self.data.integers(0, self.settings.clusters, count)
        x = self.centre[kind, cluster] + self.settings.spread * self.data.standard_normal((count, self.settings.dim))
        y = np.einsum("nij,nj->ni", self.map[kind, cluster], x)
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32)), kind


def groups(kind: np.ndarray, layout: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Group of each token and of each expert."""
    return kind if len(layout) == 2 else np.zeros_like(kind), np.repeat(np.arange(len(layout)), layout)


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train layers one after the other; every arm sees the same tokens and targets."""
    import torch
    from torch import nn

    from resonance_theory.nn import FeedForwardExperts
    from resonance_theory.systems.causal_router import CausalRouter
    from resonance_theory.systems.modality_groups import choose_in_groups

    def one(stream: np.random.Generator) -> dict[str, float]:
        first, data, weight, flips = stream.spawn(4)
        world = World(first, data, s)
        torch.manual_seed(int(weight.integers(2**31)))
        n = sum(s.layout)
        experts, gate = FeedForwardExperts(s.dim, s.hidden, n), nn.Linear(s.dim, n, bias=False)

        def choose(x: Any, kind: np.ndarray) -> Any:
            scores = gate(x).detach().numpy().astype(np.float64)
            return torch.from_numpy(choose_in_groups(scores, *groups(kind, s.layout)))

        def output(x: Any, taken: Any) -> Any:
            each = experts(x.expand(n, *x.shape))
            return torch.einsum("ne,end->nd", taken * gate(x).sigmoid(), each)

        def error(x: Any, y: Any, taken: Any) -> Any:
            return (output(x, taken) - y).square().mean()

        def loss() -> Any:
            x, y, kind = world.draw(s.batch)
            return error(x, y, choose(x, kind))

        for _ in descend([*experts.parameters(), *gate.parameters()], loss, s.steps, s.rate):
            pass
        found = {}
        with torch.no_grad():
            x, y, kind = world.draw(s.test_tokens)
            whole, taken = float(y.square().mean()), choose(x, kind)
            found["error"] = float(error(x, y, taken)) / whole
            for name, value in zip(("text", "image"), (0, 1)):
                mine = torch.from_numpy(kind == value)
                found[f"error {name}"] = float((output(x, taken) - y)[mine].square().mean()) / whole
            found["untouched"] = float((~taken.any(1)).float().mean())
        if n == 1:
            return found
        token_group, expert_group = groups(kind, s.layout)
        inside = torch.from_numpy(token_group[:, None] == expert_group)
        drawn = torch.from_numpy(flips.random(taken.shape))
        for share in s.noise:
            flipped = torch.where((drawn < share) & inside, ~taken, taken)
            with torch.no_grad():
                found[f"error, noise {share:g}"] = float(error(x, y, flipped)) / whole
        router = CausalRouter(s.dim, n)

        def router_loss() -> Any:
            fresh, _, modality = world.draw(s.batch)
            return router.loss(fresh, choose(fresh, modality))

        for _ in descend(list(router.parameters()), router_loss, s.router_steps, s.rate):
            pass
        with torch.no_grad():
            told = router.select(x) & inside
            found["wrong decisions"] = float((told != taken)[inside].float().mean())
            found["error, causal"] = float(error(x, y, told)) / whole
        return found

    return each_run(rng, runs, PER, one)


def arms(settings: dict[str, Any]) -> list[Arm]:
    return [
        Arm(label, train, parameters(Training, settings, layout=layout), PER)
        for label, layout in (("dense", [1]), ("1 + 1", [1, 1]), ("8 mixed", [8]), ("4 + 4", [4, 4]))
    ]
