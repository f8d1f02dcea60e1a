"""NLLB-MoE: the router returns combine weights for every expert, 0 for those not chosen or beyond its own capacity."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from resonance_theory.nn.families._layout import Act, Block, Hook, Layout

__all__ = ["layout"]

TOP = 2


class Nllb(Layout):
    name = "weights of all experts"

    def find(self, name: str, module: nn.Module) -> Block | None:
        router: Any = getattr(module, "router", None)
        if not isinstance(router, nn.Module) or not hasattr(router, "second_expert_policy"):
            return None
        experts: Any = router.num_experts
        return Block(name, module, self, experts, router, 2, name)

    def intercept(self, block: Block, act: Act) -> list[Any]:
        assert block.router is not None
        return [block.router.register_forward_hook(Hook(after, act))]


def after(act: Act, router: nn.Module, args: Any, output: Any) -> Any:
    mask, weights, logits = output  # (N, n) each
    weight, index = weights.topk(TOP, dim=-1)
    keep = act(torch.where(weight > 0, index, -1), weight)
    if keep is None:
        return None
    kept = torch.ones_like(weights, dtype=torch.bool).scatter(-1, index, keep.reshape(index.shape))
    return mask, torch.where(kept, weights, 0.0), logits


layout = Nllb()
