"""Switch Transformers: the router returns one 1 for each token, and none beyond its own capacity."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from resonance_theory.nn.families._layout import Act, Block, Hook, Layout

__all__ = ["layout"]


class Switch(Layout):
    name = "mask of the one chosen expert"

    def find(self, name: str, module: nn.Module) -> Block | None:
        router: Any = getattr(module, "router", None)
        parts = ("classifier", "expert_capacity", "ignore_padding_tokens")
        if not isinstance(router, nn.Module) or not all(hasattr(router, part) for part in parts):
            return None
        experts: Any = router.num_experts
        return Block(name, module, self, experts, router, 2, name)

    def intercept(self, block: Block, act: Act) -> list[Any]:
        assert block.router is not None
        return [block.router.register_forward_hook(Hook(after, act))]


def after(act: Act, router: nn.Module, args: Any, output: Any) -> Any:
    mask, weight, logits = output  # (samples, tokens, n), (samples, tokens, 1)
    if mask.shape[-1] != router.num_experts or weight.shape[-1] != 1:
        raise ValueError(f"{type(router).__name__} returned a mask of shape {tuple(mask.shape)}")
    index = torch.where(mask.any(-1, keepdim=True), mask.argmax(-1, keepdim=True), -1)
    keep = act(index.flatten(0, -2), weight.flatten(0, -2))
    return None if keep is None else (mask * keep.reshape(weight.shape).to(mask.dtype), weight, logits)


layout = Switch()
