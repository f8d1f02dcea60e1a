"""Doge: experts are rows of two embeddings, read by the indices that the block finds by product keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory.nn.families._layout import Act, Block, Hook, Layout, PerThread

__all__ = ["layout"]


class Doge(Layout):
    """An expert's output is its row of `up_embed` times a number, so that a row of 0 cuts the pair.

    The combine weights never leave the block. What orders the pairs is the softmax, over a token's choices, of the sums
    of their two keys' logits, which is the weight without `norm_topk_prob`.
    """

    name = "rows of embeddings"

    def find(self, name: str, module: nn.Module) -> Block | None:
        parts = [getattr(module, part, None) for part in ("router_gate", "down_embed", "up_embed")]
        if not all(isinstance(part, nn.Module) for part in parts) or not hasattr(module, "num_keys"):
            return None
        experts: Any = parts[1]
        return Block(name, module, self, experts.num_embeddings, None, None, name)

    def intercept(self, block: Block, act: Act) -> list[Any]:
        module: Any = block.module
        state = PerThread()
        return [
            module.router_gate.register_forward_hook(Hook(keys, state)),
            module.down_embed.register_forward_pre_hook(Hook(choose, state, module.num_keys, act)),
            module.up_embed.register_forward_hook(Hook(cut, state)),
        ]


def keys(state: PerThread, gate: nn.Module, args: Any, logits: Tensor) -> None:
    state.put("logits", logits)


def choose(state: PerThread, side: int, act: Act, embed: nn.Module, args: Any) -> None:
    (index,) = args  # (N, k)
    logits = state.take("logits").view(2, index.shape[0], -1)  # as the block itself reads them
    score = logits[0].gather(-1, index // side) + logits[1].gather(-1, index % side)
    state.put("keep", act(index, torch.softmax(score, dim=-1)))


def cut(state: PerThread, embed: nn.Module, args: Any, rows: Tensor) -> Tensor | None:
    keep = state.take("keep")
    return None if keep is None else torch.where(keep.reshape(rows.shape[:-1])[..., None], rows, 0.0)


layout = Doge()
