"""Training, then quantising: which measure of an expert should decide its bits, at equal budget?

A Top-2 layer of small networks learns the maps of clusters, some of which are seen more often than others. Its experts are then
rounded to 1, 2 or 3 bits, row by row: the sign times the mean size, or equal steps, as wide as is best for the row. The widths
sum to the budget and are chosen by `systems.allocate_bits` for different costs of an expert at b bits:

uniform: as even as can be. frequency, weight: times chosen, or sum of gate weights, times 4^-b. error: the squared error of the
layer's output where that expert alone is rounded. product: frequency times weight^1.5 times the error, MC-MoE's released
objective; product, squared: the same with the error squared, as printed. random: drawn.

A metric is the mean square error that rounding adds on fresh tokens, over the targets' mean square. "error" is that of the
layer in floating point. "second pruned" is the error that pruning adds where w1/w0 is below its median, "pruned" their share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from simulations._training import Counts, descend, each_run, parameters, takes

PACKAGES = ("torch",)
PER = 10_000_000
BITS = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Training:
    """budgets: bits of all experts together; skew: power by which later clusters are rarer."""

    budgets: list[int]
    experts: int
    dim: int
    hidden: int
    clusters: int
    skew: float
    spread: float
    steps: int
    batch: int
    rate: float
    calibration: int
    test_tokens: int


def rounded(weight: Any, bits: int) -> Any:
    """Rows (last axis) of a tensor at so many bits: signs, or equal steps about 0, each row's step with the least error."""
    import torch

    if bits == 1:
        return weight.sign() * weight.abs().mean(-1, keepdim=True)
    most = 2 ** (bits - 1) - 0.5  # levels -most, ..., -1/2, 1/2, ..., most
    best, least = weight, torch.full((*weight.shape[:-1], 1), torch.inf)
    for share in np.linspace(0.3, 1.0, 15):
        step = float(share) * weight.abs().amax(-1, keepdim=True) / most
        tried = ((weight / step - 0.5).round() + 0.5).clamp(-most, most) * step
        error = (tried - weight).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, tried, best), torch.minimum(error, least)
    return best


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    import torch
    from torch import nn

    from resonance_theory.nn import FeedForwardExperts
    from resonance_theory.systems.bit_allocation import allocate_bits
    from resonance_theory.systems.expert_pruning import pruning_threshold

    def one(stream: np.random.Generator) -> dict[str, float]:
        first, data, weight, draw = stream.spawn(4)
        centre = first.standard_normal((s.clusters, s.dim))
        maps = first.standard_normal((s.clusters, s.dim, s.dim)) / np.sqrt(s.dim)
        often = np.arange(1, s.clusters + 1.0) ** -s.skew

        def tokens(count: int) -> tuple[Any, Any]:
            cluster = data.choice(s.clusters, count, p=often / often.sum())
            x = centre[cluster] + s.spread * data.standard_normal((count, s.dim))
            y = np.einsum("ni,nij->nj", x, maps[cluster])
            return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32))

        torch.manual_seed(int(weight.integers(2**31)))
        gate, experts = nn.Linear(s.dim, s.experts, bias=False), FeedForwardExperts(s.dim, s.hidden, s.experts)

        def choose(x: Any) -> tuple[Any, Any]:
            value, chosen = gate(x).topk(2, dim=-1)
            return value.softmax(-1), chosen

        def output(x: Any, layer: Any = experts, keep: Any = None) -> Any:
            w, chosen = choose(x)
            w = w if keep is None else w * keep
            each = layer(x.expand(s.experts, *x.shape))  # (experts, tokens, dim)
            return (each.permute(1, 0, 2).gather(1, chosen[..., None].expand(-1, -1, s.dim)) * w[..., None]).sum(1)

        def loss() -> Any:
            x, y = tokens(s.batch)
            p = gate(x).softmax(-1)
            load = torch.bincount(choose(x)[1].flatten(), minlength=s.experts) / (2 * s.batch)
            return (output(x) - y).square().mean() + 0.01 * s.experts * (load * p.mean(0)).sum()

        for _ in descend([*gate.parameters(), *experts.parameters()], loss, s.steps, s.rate):
            pass

        @torch.no_grad()
        def at(widths: Any) -> Any:
            layer = FeedForwardExperts(s.dim, s.hidden, s.experts)
            layer.load_state_dict(experts.state_dict())
            for name in ("up", "down"):
                matrix = getattr(layer, name)
                for i, bits in enumerate(widths):
                    if bits:
                        matrix[i] = rounded(matrix[i].T, int(bits)).T
            return layer

        with torch.no_grad():
            x, _ = tokens(s.calibration)
            w, chosen = choose(x)
            times = np.bincount(chosen.flatten().numpy(), minlength=s.experts) + 1e-9
            mass = (
                np.bincount(chosen.flatten().numpy(), weights=w.flatten().double().numpy(), minlength=s.experts) + 1e-9
            )
            before = output(x)
            alone = np.array(
                [
                    [
                        float((output(x, at([b if j == i else 0 for j in range(s.experts)])) - before).norm())
                        for b in BITS
                    ]
                    for i in range(s.experts)
                ]
            )
            falling = 4.0 ** -np.array(BITS)
            costs = {
                "frequency": times[:, None] * falling,
                "weight": mass[:, None] * falling,
                "error": alone**2,
                "product": (times * mass**1.5)[:, None] * alone,
                "product, squared": (times * mass**1.5)[:, None] * alone**2,
                "uniform": np.ones((s.experts, 1)) * falling,
                "random": draw.random((s.experts, 3)),
            }
            x, y = tokens(s.test_tokens)
            scale, plain = float(y.square().mean()), output(x)
            found = {"error": float((plain - y).square().mean()) / scale}
            for budget in s.budgets:
                for name, cost in costs.items():
                    lost = (output(x, at(allocate_bits(cost, budget))) - y).square().mean() / scale
                    found[f"{name}, {budget} bits"] = float(lost) - found["error"]
            w, _ = choose(x)
            mu = pruning_threshold(*w.double().numpy().T)
            small = w[:, 1] < mu * w[:, 0]
            keep = torch.stack([torch.ones(len(x)), (~small).float()], 1)
            found["second pruned"] = float((output(x, keep=keep) - y).square().mean()) / scale - found["error"]
            found["pruned"] = float(small.float().mean()) / 2
            return found

    return each_run(rng, runs, PER, one)


def arms(settings: dict[str, Any]) -> list[Arm]:
    return [Arm("Top-2", train, parameters(Training, settings), PER)]
