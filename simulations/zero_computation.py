"""Training: what share of the choices do feed-forward experts get beside zero-computation ones, and what does it cost?

Half of the tokens are easy: their target is the token itself, which a copy expert gives. The others fall into clusters, each
with a map of its own to learn. A `systems.ZeroComputationMoE` learns both, with MoE++'s loss and its weight β. τ sets how many
choices FFN experts should get; the arm "8 FFN" has no other experts. Arms with β = 1 show what the loss does if it weighs more
than the published 0.01. One arm has the capacities as printed, without the factor K.

"ffn share" is the share of the choices that are of FFN experts, on fresh tokens and before the capacities; "formula" is
τF/(τF+Z). "dropped" is the share of the choices beyond a capacity. "error" is the mean square error over the targets' own.
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
    """other: zero, copy and constant experts; printed: capacities without the factor K; balance: β."""

    other: list[int]
    tau: float
    printed: bool
    ffn: int
    top: int
    dim: int
    hidden: int
    clusters: int
    spread: float
    balance: float
    capacity_factor: float
    steps: int
    batch: int
    rate: float
    test_tokens: int


class World:
    """Easy tokens, and tokens of clusters with a map each."""

    def __init__(self, rng: np.random.Generator, data: np.random.Generator, s: Training) -> None:
        self.data, self.settings = data, s
        self.centre = rng.standard_normal((2 * s.clusters, s.dim))
        self.map = rng.standard_normal((s.clusters, s.dim, s.dim)) / np.sqrt(s.dim)

    def draw(self, count: int) -> tuple[Any, Any, Any]:
        """(tokens, targets, whether it is hard); half of the clusters are."""
        import torch

        s = self.settings
        cluster = self.data.integers(0, 2 * s.clusters, count)
        x = self.centre[cluster] + s.spread * self.data.standard_normal((count, s.dim))
        hard = cluster < s.clusters
        y = np.where(hard[:, None], np.einsum("ni,nij->nj", x, self.map[cluster % s.clusters]), x)
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32)), torch.from_numpy(hard)


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train layers one after the other; every arm sees the same tokens and targets."""
    import torch

    from resonance_theory.systems.zero_computation import ffn_share
    from resonance_theory.systems.zero_experts import ZeroComputationMoE

    def one(stream: np.random.Generator) -> dict[str, float]:
        first, data, weight = stream.spawn(3)
        world = World(first, data, s)
        torch.manual_seed(int(weight.integers(2**31)))
        zero, copy, constant = s.other
        layer = ZeroComputationMoE(
            s.dim, s.hidden, s.ffn, zero=zero, copy=copy, constant=constant, top=s.top, tau=s.tau,
            capacity_factor=s.capacity_factor, printed=s.printed,
        )  # fmt: skip

        def loss() -> Any:
            x, y, _ = world.draw(s.batch)
            out, routing = layer(x)
            return (out - y).square().mean() + s.balance * routing.load_balance(s.tau)

        for _ in descend(list(layer.parameters()), loss, s.steps, s.rate):
            pass
        with torch.no_grad():
            x, y, hard = world.draw(s.test_tokens)
            out, routing = layer(x)
            wrong = (out - y).square().mean(1) / y.square().mean()
            ours = (routing.expert < s.ffn).float().mean(1)
            return {
                "error": float(wrong.mean()),
                "error easy": float(wrong[~hard].mean()),
                "error hard": float(wrong[hard].mean()),
                "ffn share": float(ours.mean()),
                "ffn share easy": float(ours[~hard].mean()),
                "ffn share hard": float(ours[hard].mean()),
                "formula": float(ffn_share(s.tau, s.ffn, sum(s.other))),
                "dropped": float(routing.drop_rate),
            }

    return each_run(rng, runs, PER, one)


def arms(settings: dict[str, Any]) -> list[Arm]:
    others = settings["others"]
    table = [("8 FFN", {"other": [0, 0, 0], "tau": 1.0})]
    table += [(f"τ = {tau:g}", {"tau": tau}) for tau in settings["taus"]]
    table += [(f"τ = {tau:g}, β = 1", {"tau": tau, "balance": 1.0}) for tau in settings["taus"]]
    default = settings["default_tau"]
    table += [(f"τ = {default:g}, as printed", {"tau": default, "printed": True})]
    return [
        Arm(label, train, parameters(Training, settings, **{"other": others, "printed": False, **own}), PER)
        for label, own in table
    ]
