"""Zaya: the router may skip all experts, and then says expert 0 with weight 0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resonance_theory.nn.families._layout import Block
from resonance_theory.nn.families.standard import Standard

__all__ = ["layout"]


class Zaya(Standard):
    name = "index and weight, with a skip"

    def find(self, name: str, module: nn.Module) -> Block | None:
        return super().find(name, module) if hasattr(getattr(module, "gate", None), "num_router_classes") else None

    def expert(self, index: Tensor, weight: Tensor, experts: int) -> Tensor:
        return torch.where(weight == 0, -1, index)


layout = Zaya()
