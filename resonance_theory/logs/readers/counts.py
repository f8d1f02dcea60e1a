"""Arrays of the tokens that each expert took, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.logs.files.content import Coded, Content, as_array, decode
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import counts_log, whole_numbers
from resonance_theory.logs.readers._names import Named, named, role_of
from resonance_theory.logs.readers._options import Options, number
from resonance_theory.logs.readers._values import kind, layer_names, numbers, stacked, unnamed

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "counts"
ABOUT = "whole numbers (steps, layers, experts), (layers, experts) of one step, or (steps, experts) for each layer"
RANK = 5


def fits(content: Content, options: Options) -> bool:
    """Whether an array is named as counts, or whole numbers can be nothing else."""
    arrays = _arrays(content)
    if any(item.role == "counts" and item.array.ndim > 0 for item in named(arrays)):
        return True
    bare = unnamed(arrays)
    return bool(bare) and kind(bare, options) == "counts"


def _arrays(content: Content) -> dict[str, Any]:
    if content.arrays or not isinstance(content.value, dict) or content.columns is not None:
        return dict(content.arrays)
    return {
        str(name): as_array(content.where, str(name), value, 0)
        for name, value in content.value.items()
        if isinstance(value, list) and numbers(value) and role_of(str(name))[0] in ("counts", "tokens")
    }


def read(content: Content, options: Options) -> RoutingLog:
    """One array, or one for each layer."""
    where, arrays = content.where, _arrays(content)
    items = named(arrays)
    found = [item for item in items if item.role == "counts" and item.array.ndim > 0] or unnamed(arrays)
    if not found:
        raise ValueError(f"{where} holds no counts: it needs whole numbers with the axes (steps, layers, experts)")
    scalars = {item.name: item.array for item in items if item.array.ndim == 0}
    try:
        counts, layers = _three(found)
    except ValueError as problem:
        raise ValueError(f"{where}: {problem}") from None
    given = [item.array for item in items if item.role == "tokens" and item.array.ndim <= 1]
    tokens = whole_numbers(where, "tokens", given[0]) if len(given) == 1 else None
    return counts_log(
        where,
        content.name,
        options,
        decode(counts) if isinstance(counts, Coded) else counts,
        top=number("top", options, scalars, content.metadata),
        tokens=tokens,
        layers=layers or layer_names(items, counts.shape[1]),
    )


def _three(items: list[Named]) -> tuple[Any, tuple[str, ...]]:
    """Counts with the axes (steps, layers, experts), and names of the layers where the arrays have them."""
    if len(items) > 1:
        flat = [Named(i.name, i.role, i.layer, i.part, decode(i.array)) for i in items]
        array, layers = stacked(flat, "(steps, experts)", -2)
        return (array if array.ndim == 3 else array[None]), layers
    array = items[0].array
    if array.ndim == 1:
        array = np.asarray(array)[None]
    return (array[None] if array.ndim == 2 else array), ()
