"""Routers and Mixture-of-Experts layers for torch, by the three rules whose exact laws this package holds.

    router = rt.nn.ResonanceRouter(dim=1024, experts=8, capacity_factor=1.1)
    layer = rt.nn.ResonanceMoE(router, rt.nn.FeedForwardExperts(dim=1024, hidden=4096, experts=8))
    y = layer(x, padding_mask=padding)      # x, y: (samples, tokens, dim); padding: booleans, True where padded
    layer.router.statistics.summary()       # load, drops, dead experts, q, h, Calinski-Harabasz, ...

`replace_router(model)` puts such layers into a Hugging Face model of Mixtral's kind.
No step loops over tokens or experts, all shapes follow from those of x, and no host synchronisation (but `fused`
routers on a GPU), so that torch.compile takes a layer whole. Torch is needed here and nowhere else in the package.
"""

from __future__ import annotations

from resonance_theory.nn.capacity import MeasuredCapacity
from resonance_theory.nn.families import find_blocks, record_routing
from resonance_theory.nn.gates import GroupedAveragePooling
from resonance_theory.nn.metrics import routing_metrics
from resonance_theory.nn.moe import FeedForwardExperts, ResonanceMoE
from resonance_theory.nn.regate import Regated
from resonance_theory.nn.replace import GatedExperts, ReplacedMoE, replace_router, restore_router
from resonance_theory.nn.router import ResonanceRouter
from resonance_theory.nn.routing import Routing
from resonance_theory.nn.selection import Selection
from resonance_theory.nn.statistics import RoutingStatistics

__all__ = [
    "FeedForwardExperts",
    "GatedExperts",
    "GroupedAveragePooling",
    "MeasuredCapacity",
    "Regated",
    "ReplacedMoE",
    "ResonanceMoE",
    "ResonanceRouter",
    "Routing",
    "RoutingStatistics",
    "Selection",
    "find_blocks",
    "record_routing",
    "replace_router",
    "restore_router",
    "routing_metrics",
]
