"""Every Mixture-of-Experts block of a model, by what its parts are and do, not by the model's name."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from resonance_theory.nn.families._layout import Block, Layout

__all__ = ["find_blocks"]


@functools.cache
def layouts() -> tuple[Layout, ...]:
    """Those of the files of this folder; the standard one last, as it asks for least."""
    names = [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.name.startswith("_")]
    names.sort(key=lambda name: name == "standard")
    return tuple(importlib.import_module(f"resonance_theory.nn.families.{name}").layout for name in names)


def find_blocks(model: nn.Module) -> tuple[Block, ...]:
    """The Mixture-of-Experts blocks of a model, in its order.

    Args:
        model: any torch module; most often a model of Hugging Face transformers.

    Returns:
        One `Block` for each; empty where there is none.

    Raises:
        TypeError: model is no torch module.

    Example:
        >>> import torch
        >>> from resonance_theory.nn.families import find_blocks
        >>> class Block(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.gate, self.experts = torch.nn.Linear(8, 4), Experts()
        >>> class Experts(torch.nn.Module):
        ...     num_experts = 4
        ...     def forward(self, hidden_states, top_k_index, top_k_weights):
        ...         return hidden_states
        >>> [(block.name, block.experts) for block in find_blocks(torch.nn.Sequential(torch.nn.ReLU(), Block()))]
        [('1', 4)]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__} but must be a torch module")
    recorders = tuple(dict.fromkeys(_recorders(model)))
    return tuple(
        _with_router(block, recorders) for name, module in model.named_modules() if (block := _one(name, module))
    )


def _one(name: str, module: nn.Module) -> Block | None:
    return next((block for layout in layouts() if (block := layout.find(name, module))), None)


def _recorders(model: nn.Module) -> Iterator[tuple[type, int]]:
    """What the model itself records as router logits: (class of the router, place in what it returns)."""
    for module in model.modules():
        table = getattr(module, "_can_record_outputs", None)
        found: Any = table.get("router_logits") if isinstance(table, dict) else None
        for one in found if isinstance(found, (list, tuple)) else (found,):
            kind = getattr(one, "target_class", one)
            if isinstance(kind, type):
                yield kind, int(getattr(one, "index", 0))


def _with_router(block: Block, recorders: tuple[tuple[type, int], ...]) -> Block:
    for kind, place in recorders:
        for module in block.module.children():
            if isinstance(module, kind):
                return replace(block, router=module, logits=place)
    return block
