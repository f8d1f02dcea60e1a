"""Training: rank-one experts against LoRA and a mixture of LoRA at equal parameters, on a toy of many tasks.

A linear layer is frozen. Each of eight tasks changes it: y = W x + U_c x. The changes either lie on a grid of shared
vectors, U_c = Σ_ij R_cij b_j a_iᵀ, which is what rank-one experts can express, or are independent ones of rank 2, which
is what a mixture of LoRA can. A token carries its task's mean, and an embedding that is a noisy picture of the task;
k-means of the training embeddings gives the clusters of the prior. "drawn" starts from a random router in place of the
published one of zeros, which without a prior leaves all output vectors alike (claim: rank_one_symmetry). "error" is the
mean square error on fresh tokens over that of the frozen layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from simulations._training import Counts, descend, each_run, parameters, takes

PACKAGES = ("torch", "scikit-learn")
PER = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Training:
    """method: "lora", "mixture", "rank one", "rank one, drawn" or "rank one, prior"; world: "grid" or "separate"."""

    method: str
    world: str
    tasks: int
    dim: int
    inputs: int
    outputs: int
    lora_rank: int
    mixture_experts: int
    mixture_rank: int
    mean: float
    noise: float
    temperature: float
    steps: int
    batch: int
    rate: float
    test_tokens: int


def changes(rng: np.random.Generator, s: Training) -> np.ndarray:
    """The tasks' changes (tasks, dim, dim) of the frozen layer; of the size of its own weights."""
    shape = (s.tasks, s.dim, s.dim)
    if s.world == "grid":
        a, b = rng.standard_normal((s.inputs, s.dim)), rng.standard_normal((s.outputs, s.dim))
        weight = rng.dirichlet(np.full(s.inputs * s.outputs, 0.1), s.tasks).reshape(s.tasks, s.inputs, s.outputs)
        found = np.einsum("cij,jo,id->cod", weight, b, a)
    else:
        found = rng.standard_normal((s.tasks, s.dim, 2)) @ rng.standard_normal((s.tasks, 2, s.dim))
    return found * np.sqrt(s.dim) / np.linalg.norm(found.reshape(s.tasks, -1), axis=1).reshape(-1, 1, 1).clip(
        1e-9
    ) + np.zeros(shape)


def adapter(s: Training, base: Any) -> Any:
    """The layer to be trained, as a module x -> y."""
    import torch
    from torch import nn

    from resonance_theory.systems.rank_one_experts import RankOneExperts

    class Mixture(nn.Module):
        """LoRA experts mixed by a softmax router; one expert without a router is LoRA."""

        def __init__(self, experts: int, rank: int) -> None:
            super().__init__()
            self.base = base.requires_grad_(False)
            self.a = nn.Parameter(torch.randn(experts, s.dim, rank) / s.dim**0.5)
            self.b = nn.Parameter(torch.zeros(experts, rank, s.dim))
            self.router = nn.Linear(s.dim, experts, bias=False) if experts > 1 else None

        def forward(self, x: Any) -> Any:
            each = torch.einsum("nd,edr,ero->neo", x, self.a, self.b)
            if self.router is None:
                return self.base(x) + each[:, 0]
            return self.base(x) + (self.router(x).softmax(-1)[..., None] * each).sum(1)

    if s.method == "lora":
        return Mixture(1, s.lora_rank)
    if s.method == "mixture":
        return Mixture(s.mixture_experts, s.mixture_rank)
    layer = RankOneExperts(base, s.inputs, s.outputs)
    if s.method == "rank one, drawn" and layer.router is not None:
        nn.init.normal_(layer.router.weight, std=s.dim**-0.5)
    return layer


def groups(layer: Any, rate: float) -> list[dict[str, Any]]:
    """Parameters for Adam; those that enter as 100 times themselves, balance and gate, move at a hundredth of the rate."""
    named = [(name, p) for name, p in layer.named_parameters() if p.requires_grad]
    scaled = [p for name, p in named if name in ("balance", "gate")]
    rest = {"params": [p for name, p in named if name not in ("balance", "gate")]}
    return [rest, {"params": scaled, "lr": rate / 100}] if scaled else [rest]


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train layers one after the other; every arm of a world sees the same tasks and tokens."""
    import torch
    from sklearn.cluster import KMeans

    from resonance_theory.systems.rank_one_experts import cluster_prior

    def one(stream: np.random.Generator) -> dict[str, float]:
        world, data, weight = stream.spawn(3)
        change = changes(world, s)
        centre = s.mean * world.standard_normal((s.tasks, s.dim))
        picture = world.standard_normal((s.tasks, s.dim))

        def draw(count: int) -> tuple[Any, Any, Any]:
            task = data.integers(0, s.tasks, count)
            x = centre[task] + data.standard_normal((count, s.dim))
            moved = np.einsum("nod,nd->no", change[task], x)
            embedding = picture[task] + s.noise * data.standard_normal((count, s.dim))
            return tuple(torch.from_numpy(v.astype(np.float32)) for v in (x, moved, embedding))  # type: ignore[return-value]

        torch.manual_seed(int(weight.integers(2**31)))
        clusters = KMeans(s.inputs * s.outputs, n_init=1, random_state=0).fit(draw(2000)[2].numpy())
        centroids = torch.from_numpy(clusters.cluster_centers_)
        layer = adapter(s, torch.nn.Linear(s.dim, s.dim))

        def error(count: int) -> tuple[Any, Any]:
            x, moved, embedding = draw(count)
            if s.method == "rank one, prior":
                layer.prior = cluster_prior(embedding, centroids, s.temperature)
            return (layer(x) - layer.base(x).detach() - moved).square().mean(), moved.square().mean()

        for _ in descend(groups(layer, s.rate), lambda: error(s.batch)[0], s.steps, s.rate):
            pass
        with torch.no_grad():
            rest, whole = error(s.test_tokens)
        return {
            "error": float(rest / whole),
            "parameters": sum(p.numel() for p in layer.parameters() if p.requires_grad) / 1e4,
        }

    return each_run(rng, runs, PER, one)


def arms(settings: dict[str, Any]) -> list[Arm]:
    return [
        Arm(f"{method}, {world}", train, parameters(Training, settings, method=method, world=world), PER)
        for world in ("grid", "separate")
        for method in ("lora", "mixture", "rank one", "rank one, drawn", "rank one, prior")
    ]
