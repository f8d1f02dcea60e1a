"""A Mixture-of-Experts layer with zero, copy and constant experts, unlike capacities and gating residuals (MoE++). Needs torch.

Equations are those of arXiv 2410.07348. A choice beyond its expert's capacity adds nothing to the output, so that
the token passes by the residual connection around the layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from resonance_theory import _arguments as arguments
from resonance_theory.nn.moe import FeedForwardExperts
from resonance_theory.systems.zero_computation import unlike_capacities

__all__ = ["ConstantExpert", "GatingResidual", "ZeroComputationMoE", "ZeroComputationRouting"]


class ConstantExpert(nn.Module):
    """α1 x + α2 v with (α1, α2) = softmax(W x): part of the token is replaced by a learned vector (eq. 5).

    Args:
        dim: Width of a token, at least 1.

    Example:
        >>> ConstantExpert(4)(torch.zeros(3, 4)).shape
        torch.Size([3, 4])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        d = arguments.whole("dim", dim, 1)
        self.mix, self.vector = nn.Linear(d, 2, bias=False), nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        kept, replaced = self.mix(x).softmax(-1).split(1, dim=-1)
        result: Tensor = kept * x + replaced * self.vector
        return result


class GatingResidual(nn.Module):
    """Logits W x + W_g (logits of the layer before), for the first layer W x alone (eq. 6).

    Args:
        dim: Width of a token. experts: Their number.
        first: Whether no layer stands before.

    Example:
        >>> gate, before = GatingResidual(4, 3, first=False), torch.zeros(5, 3)
        >>> gate(torch.zeros(5, 4), before).shape
        torch.Size([5, 3])
    """

    def __init__(self, dim: int, experts: int, *, first: bool = True) -> None:
        super().__init__()
        d, n = arguments.whole("dim", dim, 1), arguments.whole("experts", experts, 1)
        self.own = nn.Linear(d, n, bias=False)
        self.residual = None if first else nn.Linear(n, n, bias=False)

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """x: (..., dim); before: (..., experts), the logits of the layer before; returns (..., experts)."""
        if (before is None) != (self.residual is None):
            stated = "must be given: first = False" if before is None else "must be left out: first = True"
            raise ValueError(f"before {stated}")
        logits: Tensor = self.own(x)
        return logits if self.residual is None else logits + self.residual(before)


class ZeroComputationRouting(NamedTuple):
    """expert, weight, kept: (tokens, top), the choices, their weights, and which found a slot. probability: (tokens, experts).

    logits: (tokens, experts), for the next layer's gating residual. FFN experts come first, then zero, copy, constant ones.
    """

    expert: Tensor
    weight: Tensor
    kept: Tensor
    probability: Tensor
    logits: Tensor
    ffn: int

    @property
    def load(self) -> Tensor:
        """Share of the tokens that choose each expert, (experts,), before the capacities."""
        return torch.bincount(self.expert.flatten(), minlength=self.logits.shape[-1]) / max(len(self.expert), 1)

    @property
    def ffn_share(self) -> Tensor:
        """Share of the choices that are of FFN experts."""
        return (self.expert < self.ffn).float().mean()

    @property
    def drop_rate(self) -> Tensor:
        """Share of the choices without a slot."""
        return (~self.kept).float().mean()

    def load_balance(self, tau: float) -> Tensor:
        """Σ η_i f_i P_i, η = 1 for FFN experts and τ for the others (eq. 7); times β for the loss."""
        eta = torch.full_like(self.load, tau)
        eta[: self.ffn] = 1.0
        return (eta * self.load * self.probability.mean(0)).sum()


class ZeroComputationMoE(nn.Module):
    """F feed-forward experts beside zero, copy and constant ones, whose work grows with the FFN experts' slots alone.

    Each token takes its `top` experts of highest probability; each expert keeps the choices of highest probability up to
    its capacity (`unlike_capacities`). Weights are the probabilities, not normalised (eq. 1).

    Args:
        dim: Width of a token. hidden: Of an FFN expert. ffn: FFN experts, at least 1.
        zero, copy, constant: Experts of each kind, at least 0.
        top: Experts a token, 1 to all of them.
        tau: τ > 0; less of it sends more tokens to the experts without work.
        capacity_factor: γ > 0.
        printed: Capacities of eq. 8 as printed, without the factor `top`.
        first: Whether no layer stands before, whose logits would be given to `forward`.

    Example:
        >>> layer = ZeroComputationMoE(8, 16, 4, zero=1, copy=1, constant=2)
        >>> y, routing = layer(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)))
        >>> y.shape, routing.kept.shape, len(routing.load)
        (torch.Size([32, 8]), torch.Size([32, 2]), 8)
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        ffn: int,
        *,
        zero: int = 1,
        copy: int = 1,
        constant: int = 2,
        top: int = 2,
        tau: float = 0.75,
        capacity_factor: float = 1.1,
        printed: bool = False,
        first: bool = True,
    ) -> None:
        super().__init__()
        self.ffn = arguments.whole("ffn", ffn, 1)
        self.zero, self.copy = arguments.whole("zero", zero, 0), arguments.whole("copy", copy, 0)
        constants = arguments.whole("constant", constant, 0)
        self.experts = self.ffn + self.zero + self.copy + constants
        self.top = arguments.whole("top", top, 1, self.experts, "experts")
        self.tau = arguments.number("tau", tau, 0.0, open_low=True)
        self.capacity_factor = arguments.number("capacity_factor", capacity_factor, 0.0, open_low=True)
        self.printed = bool(printed)
        self.gate = GatingResidual(dim, self.experts, first=first)
        self.feed_forward = FeedForwardExperts(dim, hidden, self.ffn)
        self.constants = nn.ModuleList(ConstantExpert(dim) for _ in range(constants))

    def forward(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, ZeroComputationRouting]:
        """x: (tokens, dim) -> the output of that shape, and the routing; before: logits of the layer before."""
        if x.ndim != 2:
            raise ValueError(f"x has shape {tuple(x.shape)} but must have shape (tokens, dim)")
        logits = self.gate(x, before)
        probability = logits.softmax(-1)
        weight, expert = probability.topk(self.top, dim=-1)
        kept, slot = self._slots(expert, weight.detach())
        y = self._feed_forward(x, expert, weight, kept, slot) + self._without_work(x, expert, weight * kept)
        return y, ZeroComputationRouting(expert, weight, kept, probability, logits, self.ffn)

    def capacity(self, tokens: int) -> tuple[int, int]:
        """Slots of an FFN expert, and of each other one, for that many tokens."""
        options: Any = {
            "tau": self.tau,
            "top": 1 if self.printed else self.top,
            "capacity_factor": self.capacity_factor,
        }
        return unlike_capacities(max(tokens, 1), self.ffn, self.experts - self.ffn, **options)

    def _slots(self, expert: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Which choices are among the highest of their expert, and their place there, both (tokens, top)."""
        chosen = expert.flatten()
        order = weight.flatten().sort(descending=True, stable=True).indices
        order = order.gather(0, chosen.gather(0, order).sort(stable=True).indices)
        line = chosen.gather(0, order)
        place = torch.arange(len(line), device=line.device) - torch.searchsorted(line, line)
        slot = torch.empty_like(place).scatter(0, order, place).reshape(expert.shape)
        ffn, other = self.capacity(len(expert))
        return slot < torch.where(expert < self.ffn, ffn, other), slot

    def _feed_forward(self, x: Tensor, expert: Tensor, weight: Tensor, kept: Tensor, slot: Tensor) -> Tensor:
        slots = self.capacity(len(x))[0]
        token, choice = (kept & (expert < self.ffn)).nonzero(as_tuple=True)
        place = expert[token, choice] * slots + slot[token, choice]
        rows = x.new_zeros(self.ffn * slots, x.shape[1]).index_copy(0, place, x[token])
        out = self.feed_forward(rows.reshape(self.ffn, slots, -1)).flatten(0, 1)
        return torch.zeros_like(x).index_add(0, token, out[place] * weight[token, choice, None])

    def _without_work(self, x: Tensor, expert: Tensor, weight: Tensor) -> Tensor:
        """Copies, and constants; zero experts add nothing."""
        first = self.ffn + self.zero
        copied = (expert >= first) & (expert < first + self.copy)
        y = (weight * copied).sum(-1, keepdim=True) * x
        for i, constant in enumerate(self.constants):
            mine = (weight * (expert == first + self.copy + i)).sum(-1, keepdim=True)
            y = y + mine * constant(x)
        return y
