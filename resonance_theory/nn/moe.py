"""A Mixture-of-Experts layer: gather each expert's slots, one batched product per weight, add the results back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory import _arguments as arguments
from resonance_theory.nn.routing import Routing

__all__ = ["FeedForwardExperts", "ResonanceMoE"]

ACTIVATIONS: dict[str, Any] = {"gelu": nn.functional.gelu, "relu": nn.functional.relu, "silu": nn.functional.silu}


class FeedForwardExperts(nn.Module):
    """Two-layer networks with their own weights, all experts in one batched product: (n, rows, dim) -> (n, rows, dim)."""

    def __init__(self, dim: int, hidden: int, experts: int, *, activation: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        d, h = arguments.whole("dim", dim, 1), arguments.whole("hidden", hidden, 1)
        n = arguments.whole("experts", experts, 1)
        self.activation = arguments.choice("activation", activation, tuple(ACTIVATIONS))
        self.up, self.down = nn.Parameter(torch.empty(n, d, h)), nn.Parameter(torch.empty(n, h, d))
        self.up_bias = nn.Parameter(torch.empty(n, 1, h)) if bias else None
        self.down_bias = nn.Parameter(torch.empty(n, 1, d)) if bias else None
        for parameter, width in ((self.up, d), (self.up_bias, d), (self.down, h), (self.down_bias, h)):
            if parameter is not None:
                nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.bmm(x, self.up)
        x = ACTIVATIONS[self.activation](x if self.up_bias is None else x + self.up_bias.to(x.dtype))
        x = torch.bmm(x, self.down)
        return x if self.down_bias is None else x + self.down_bias.to(x.dtype)


class ResonanceMoE(nn.Module):
    """Router and experts: y = Σ weight · expert(token) over the slots that hold the token.

    router: a `ResonanceRouter`, or any module whose forward(x, padding_mask) gives a `Routing`. experts: a module
    (n, rows, dim) -> (n, rows, dim) that treats each expert's rows on their own, such as `FeedForwardExperts`; rows are
    samples times slots, those of empty slots zero and their results unused, so that biases reach no dropped token.
    shared: a module (..., dim) -> (..., dim) that every real token passes besides.
    dropped: what stands for the experts of a token that none took: "zero", or "pass" (the token itself).

    forward(x, padding_mask=None, return_routing=False): x (tokens, dim) or (samples, tokens, dim) -> y of that shape, 0
    at padding; or (y, routing), whose `load_balance` and `locality` are the auxiliary losses.
    """

    def __init__(
        self, router: nn.Module, experts: nn.Module, *, shared: nn.Module | None = None, dropped: str = "zero"
    ) -> None:
        super().__init__()
        for name, module in (("router", router), ("experts", experts)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} is a {type(module).__name__} but must be a torch module")
        self.router, self.experts, self.shared = router, experts, shared
        self.dropped = arguments.choice("dropped", dropped, ("zero", "pass"))

    def forward(self, x: Tensor, padding_mask: Tensor | None = None, return_routing: bool = False) -> Any:
        routing = self._route(x, padding_mask)
        padding = None if routing.real is None else ~routing.real.reshape(x.shape[:-1])[..., None]
        if padding is not None:
            x = x.masked_fill(padding, 0.0)
        y = self._experts(x if x.ndim == 3 else x[None], routing).reshape(x.shape)
        if self.dropped == "pass":
            y = torch.where(routing.dropped.reshape(x.shape[:-1])[..., None], x.to(y.dtype), y)
        if self.shared is not None:
            common = self.shared(x)
            y = y + (common if padding is None else common.masked_fill(padding, 0.0))
        return (y, routing) if return_routing else y

    def _route(self, x: Tensor, padding_mask: Tensor | None) -> Routing:
        routing: Routing = self.router(x, padding_mask)
        return routing

    def _experts(self, x: Tensor, routing: Routing) -> Tensor:
        samples, tokens, dim = x.shape
        experts, slots = routing.token.shape[1:]
        first = torch.arange(samples, device=x.device)[:, None, None] * tokens
        # Each expert's rows are the slots of all samples: (experts, samples * slots). Without any, the experts stay in
        # the graph all the same, with gradients of zero, as other ranks of a data-parallel model wait for them.
        row = (routing.token + first).transpose(0, 1).reshape(experts, samples * slots)
        filled = routing.filled.transpose(0, 1).reshape(experts, samples * slots, 1)
        weight = routing.weight.transpose(0, 1).reshape(experts, samples * slots, 1)
        flat = x.reshape(samples * tokens, dim)
        taken = torch.where(filled, flat.index_select(0, row.flatten()).reshape(experts, samples * slots, dim), 0.0)
        out = self.experts(taken)
        out = torch.where(filled, out * weight.to(out.dtype), 0.0)
        y = torch.zeros(samples * tokens, dim, dtype=out.dtype, device=x.device)
        return y.index_add(0, row.flatten(), out.reshape(experts * samples * slots, dim))
