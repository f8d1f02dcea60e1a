"""Numbers of a model's routers for a logger: one flat dictionary, reduced over ranks."""

from __future__ import annotations

from typing import Any

from torch import nn

from resonance_theory.nn.statistics import RoutingStatistics

__all__ = ["routing_metrics"]

FEW = ("tokens", "drop_rate", "pair_drop_rate", "entropy", "dead_experts", "percentile")


def routing_metrics(
    model: nn.Module,
    *,
    prefix: str = "routing/",
    full: bool = False,
    reduce: bool = True,
    reset: bool = False,
    group: Any = None,
) -> dict[str, float]:
    """Statistics of every router in a model, as names and numbers that TensorBoard, W&B and the like take.

    Args:
        model: a module with routers that keep statistics.
        prefix: of every name; then come the router's name in the model and the statistic's.
        full: all of `RoutingStatistics.flat`, with a number for each expert; else the few that a dashboard needs, and
            `max_load`, the heaviest expert's share of the candidates times the number of experts.
        reduce: add up over the ranks of torch.distributed, where it runs; then call it on all of them.
        reset: begin anew afterwards.
        group: of torch.distributed; all ranks unless given.

    Returns:
        A dictionary such as {"routing/layers.0.router/drop_rate": 0.02, ...}; empty without routers. It waits for the
        device.

    Example:
        >>> import torch, resonance_theory as rt
        >>> router = rt.nn.ResonanceRouter(8, 4)
        >>> _ = router(torch.randn(16, 8, generator=torch.Generator().manual_seed(0)))
        >>> found = rt.nn.routing_metrics(router)
        >>> print(len(found), found["routing/tokens"], f"{found['routing/max_load']:.2f}")
        7 16.0 1.25
    """
    found: dict[str, float] = {}
    for name, module in model.named_modules():
        if not isinstance(module, RoutingStatistics):
            continue
        statistics = module.reduce(group) if reduce else module
        flat = statistics.flat()
        load = [value for key, value in flat.items() if key.startswith("load/")]
        chosen = flat if full else {key: flat[key] for key in FEW}
        where = prefix + (f"{owner}/" if (owner := name.rpartition(".")[0]) else "")
        found |= {f"{where}{key}": float(value) for key, value in chosen.items()}
        found[f"{where}max_load"] = max(load) * len(load)
        if reset:
            module.reset()
    return found
