"""Mixture-of-Experts blocks of any model: found by what they do, read as they route, cut by another rule.

    for block in rt.nn.families.find_blocks(model): print(block.name, block.layout.name, block.experts)
    log = rt.nn.families.record_routing(model, batches)

A layout says how one kind of block hands its router's decisions to its experts. Each is one file of this folder.
"""

from __future__ import annotations

from resonance_theory.nn.families._find import find_blocks
from resonance_theory.nn.families._layout import Block, Layout
from resonance_theory.nn.families._record import record_routing

__all__ = ["Block", "Layout", "find_blocks", "record_routing"]
