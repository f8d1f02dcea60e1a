"""LongCat-Flash: indices beyond the experts with weights are identities, which have no capacity."""

from __future__ import annotations

from torch import nn

from resonance_theory.nn.families._layout import Block
from resonance_theory.nn.families.standard import Standard

__all__ = ["layout"]


class LongcatFlash(Standard):
    """The indices at and above `num_routed_experts` count as empty places, which are never cut."""

    name = "index and weight, with identities"

    def find(self, name: str, module: nn.Module) -> Block | None:
        return super().find(name, module) if hasattr(getattr(module, "experts", None), "zero_expert_num") else None


layout = LongcatFlash()
