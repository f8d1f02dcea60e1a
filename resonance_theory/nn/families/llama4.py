"""Llama 4: the router returns a score for every expert, 0 for those not chosen, which scales what the experts read."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from resonance_theory.nn.families._layout import Act, Block, Hook, Layout

__all__ = ["layout"]


class Llama4(Layout):
    """Experts without biases give 0 for input 0, so that a score of 0 cuts a pair."""

    name = "scores of all experts, times the experts' input"

    def find(self, name: str, module: nn.Module) -> Block | None:
        router: Any = getattr(module, "router", None)
        if not (isinstance(router, nn.Linear) and hasattr(router, "top_k") and hasattr(module, "shared_expert")):
            return None
        return Block(name, module, self, router.out_features, router, 1, name)

    def intercept(self, block: Block, act: Act) -> list[Any]:
        router: Any = block.router
        return [router.register_forward_hook(Hook(after, router.top_k, act))]


def after(top: int, act: Act, router: nn.Module, args: Any, output: Any) -> Any:
    score, *rest = output  # (N, n)
    if score.shape[-1] != router.out_features:
        raise ValueError(f"{type(router).__name__} returned scores of shape {tuple(score.shape)}")
    weight, index = score.topk(top, dim=-1)
    keep = act(torch.where(weight > 0, index, -1), weight)
    if keep is None:
        return None
    chosen = torch.ones_like(score, dtype=torch.bool).scatter(-1, index, keep.reshape(index.shape))
    return (torch.where(chosen, score, 0.0), *rest)


layout = Llama4()
