"""What a caller may say about a log that its file does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Options", "number"]

_NAMES = {
    "experts": ("experts", "num_experts", "n_experts", "n_routed_experts", "num_local_experts", "num_logical_experts"),
    "top": ("top", "top_k", "topk", "k", "num_experts_per_tok", "moe_router_topk", "moe_top_k"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keyword arguments of `read`, as they were given."""

    experts: int | None = None
    top: int | None = None
    scoring: str | None = None
    bias: Any = None
    n_group: int | None = None
    topk_group: int | None = None
    tokens: Any = None
    documents: Any = None
    layers: Sequence[str] | int | None = None
    parts: Sequence[str] | None = None
    repeats: str = "keep"

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, or () where only their number or nothing is given."""
        return () if self.layers is None or isinstance(self.layers, int) else tuple(map(str, self.layers))

    @property
    def layer_count(self) -> int | None:
        """Number of layers, where it or their names are given."""
        if self.layers is None or isinstance(self.layers, int):
            return self.layers
        return len(self.layers)


def number(field: str, options: Options, *said: Mapping[str, Any]) -> int | None:
    """experts or top: as the caller gives it, or as metadata or a scalar of the file says under a usual name."""
    given = getattr(options, field)
    if given is not None:
        return int(given)
    for mapping in said:
        for name in _NAMES[field]:
            value = mapping.get(name)
            if value is None or isinstance(value, (list, dict, tuple)) or getattr(value, "ndim", 0) > 0:
                continue
            try:
                return int(value)
            except (TypeError, ValueError, OverflowError):
                continue
    return None
