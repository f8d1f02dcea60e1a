"""Gates: from tokens to the affinities by which a router selects, in float32 or float64 whatever the autocast."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory import _arguments as arguments
from resonance_theory.gates import _sizes
from resonance_theory.nn import fast
from resonance_theory.nn.accumulate import Accumulators, average, counts
from resonance_theory.nn.cosines import cosines, scaled, wide, within

__all__ = ["GATES", "GroupedAveragePooling", "LinearGate", "OrthogonalGate", "SimplexGate", "build"]


class GroupedAveragePooling(Accumulators):
    """GrAP gates without parameters: the cosine of each token with each expert's block of features (ETR eq. 2-3).

    forward(x, real=None): (..., dim) floats -> (..., experts) in [-1, 1], float64 for float64 tokens, float32 otherwise.
    A zero token has affinity 0 with every expert, and gradient 0. `experts` must divide `dim`.

    center: subtract the mean token first, which removes the skew of the load that a common mean causes. In training it
    is the mean over all real tokens of the batch (real: (...) booleans, False for padding), which also moves the running
    `mean` by `momentum`; in evaluation it is the running one, so that a token's affinity depends on no other token. Each
    rank of torch.distributed has its own running mean, until `reduce` gives them the mean of all.
    """

    mean: Tensor
    batches: Tensor

    def __init__(self, dim: int, experts: int, center: bool = False, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.dim, self.experts = _sizes(dim, experts)
        if not isinstance(center, bool):
            raise TypeError(f"center = {center!r} must be True or False")
        self.center = center
        self.momentum = arguments.number("momentum", momentum, 0.0, 1.0)
        if center:
            self.accumulate(True, mean=((self.dim,), torch.float64), batches=((), torch.int64))

    def reduce(self, group: Any = None) -> None:
        """Give every rank of torch.distributed the mean of all ranks' running means; call it on all of them."""
        average(self, group)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if x.shape[-1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)} but its last axis must be dim = {self.dim}")
        with full_precision(x):
            if self.center:
                x = wide(x)
                x = x - self._mean(x, real)
            score = fast.affinities(x, self.experts)
            return self._gates(cosines(wide(x), self.experts) if score is None else score)

    def _gates(self, score: Tensor) -> Tensor:
        return score

    def _mean(self, x: Tensor, real: Tensor | None) -> Tensor:
        self.settle(x.device)
        if not self.training:
            return self.mean.to(x.dtype)
        flat = x.reshape(-1, self.dim)
        if real is None:
            weight = flat.new_ones(flat.shape[0])
        else:
            weight = real.reshape(-1).to(x.dtype)
        count = weight.sum()
        mean = (weight[:, None] * flat).sum(0) / count.clamp(min=1)
        if not counts():
            return mean
        with torch.no_grad():
            # the first batch sets the mean, an empty one leaves it alone
            step = torch.where(self.batches == 0, torch.ones_like(self.mean[0]), self.mean.new_tensor(self.momentum))
            step = torch.where(count > 0, step, torch.zeros_like(step))
            self.mean.lerp_(mean.detach().to(self.mean.dtype), step)
            self.batches.add_((count > 0).to(self.batches.dtype))
        return mean

    def extra_repr(self) -> str:
        return f"dim={self.dim}, experts={self.experts}" + (", center=True" if self.center else "")


class SimplexGate(GroupedAveragePooling):
    """GrAP gates about their own mean, (w_i - mean w)/sqrt(1 - 1/n): route alike, project sqrt(n/(n-1)) farther."""

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__(dim, experts)
        if self.experts < 2:
            raise ValueError(f"experts = {experts} must be at least 2 for simplex gates")

    def _gates(self, score: Tensor) -> Tensor:
        return within((score - score.mean(-1, keepdim=True)) / math.sqrt(1 - 1 / self.experts))


class OrthogonalGate(GroupedAveragePooling):
    """A learned orthogonal map of the features, then GrAP: gates that train and stay orthonormal up to their scale."""

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__(dim, experts)
        self.map = nn.utils.parametrizations.orthogonal(nn.Linear(self.dim, self.dim, bias=False))

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if x.shape[-1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)} but its last axis must be dim = {self.dim}")
        with full_precision(x):
            x = scaled(wide(x))
            weight: Any = self.map.weight
            return super().forward(nn.functional.linear(x, weight.to(x.dtype)), real)


class LinearGate(nn.Module):
    """The usual learned gate: logits W x, (..., dim) -> (..., experts), in float32 at least."""

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        self.dim, self.experts = arguments.whole("dim", dim, 1), arguments.whole("experts", experts, 1)
        self.weight = nn.Parameter(torch.randn(self.experts, self.dim) / math.sqrt(self.dim))

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if x.shape[-1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)} but its last axis must be dim = {self.dim}")
        with full_precision(x):
            x = wide(x)
            return nn.functional.linear(x, self.weight.to(x.dtype))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, experts={self.experts}"


GATES: dict[str, Any] = {
    "grap": GroupedAveragePooling,
    "grap-centred": lambda dim, experts: GroupedAveragePooling(dim, experts, center=True),
    "simplex": SimplexGate,
    "linear": LinearGate,
    "orthogonal": OrthogonalGate,
}


def build(gates: Any, dim: int, experts: int) -> nn.Module:
    """The gate of that name, or the user's own module (..., dim) -> (..., experts)."""
    if isinstance(gates, nn.Module):
        return gates
    gate: nn.Module = GATES[arguments.choice("gates", gates, tuple(GATES))](dim, experts)
    return gate


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Switch the autocast of x's device off, where it has one."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext()
