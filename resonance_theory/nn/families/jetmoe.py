"""JetMoE, for feed-forward and for attention experts: the router returns its pairs sorted by expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory.nn.families._layout import Act, Block, Hook, Layout, batch, width

__all__ = ["layout"]


class JetMoe(Layout):
    name = "pairs sorted by expert"

    def find(self, name: str, module: nn.Module) -> Block | None:
        router: Any = getattr(module, "router", None)
        parts = (getattr(module, "input_linear", None), getattr(module, "output_linear", None))
        if not all(isinstance(part, nn.Module) for part in (router, *parts)) or not hasattr(router, "top_k"):
            return None
        # Attention experts are not called as one module, but what holds them is.
        stage = name.rpartition(".")[0] if hasattr(module, "map") else name
        return Block(name, module, self, router.num_experts, router, 4, stage)

    def intercept(self, block: Block, act: Act) -> list[Any]:
        assert block.router is not None
        return [block.router.register_forward_hook(Hook(after, act))]

    def trial(self, block: Block) -> Callable[[], Tensor]:
        module: Any = block.module
        x = batch(module, block.experts, width(block.router))[None]  # type: ignore[arg-type]

        def attention() -> Tensor:
            mapped, _, topology = module.map(x)
            result: Tensor = module.reduce(mapped, topology)
            return result

        return attention if hasattr(module, "map") else lambda: module(x)


def after(act: Act, router: Any, args: Any, output: Any) -> Any:
    place, token, gate, size, logits = output  # of each pair: where it stood in (N, k), its token, its weight
    sizes = torch.as_tensor(size, device=place.device)
    expert = torch.arange(router.num_experts, device=place.device).repeat_interleave(sizes)
    back = torch.empty_like(place)
    back[place] = torch.arange(place.numel(), device=place.device)
    keep = act(expert[back].reshape(-1, router.top_k), gate[back].reshape(-1, router.top_k))
    if keep is None:
        return None
    return place, token, torch.where(keep.flatten()[place], gate, 0.0), size, logits


layout = JetMoe()
