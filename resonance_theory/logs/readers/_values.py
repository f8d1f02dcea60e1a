"""Telling choices from counts where no name does: ids of one token differ, counts of one step have equal sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.logs.readers._names import Named, named
from resonance_theory.logs.readers._options import Options

__all__ = ["kind", "layer_names", "numbers", "stacked", "unnamed"]

_ROWS = 2**14
_IDS = 2**12  # ids of experts without a name are below this
_OTHERS = ("input", "token", "mask", "label", "position", "target")  # whole numbers that go along with hidden states


def unnamed(arrays: Any) -> list[Named]:
    """Arrays of whole numbers whose names say nothing, if no name says anything and nothing else is there."""
    found = named(arrays)
    if any(item.role in ("choices", "counts", "logits") for item in found):
        return []
    if any(item.role is None and not _whole(item.array) and item.array.ndim for item in found):  # hidden states
        return []
    bare = [item for item in found if item.role is None and not any(word in item.name.lower() for word in _OTHERS)]
    return [item for item in bare if _whole(item.array) and 1 <= item.array.ndim <= 3 and 0 not in item.array.shape]


def _whole(array: Any) -> bool:
    return getattr(array.dtype, "kind", "f") in "iu"


def kind(items: list[Named], options: Options) -> str | None:
    """'choices', 'counts', or None where both are possible or neither.

    Ids of experts are small, differ within a token, and where `experts` is given are fewer than that in a row. Counts
    are not negative, and where `experts` is given fill its whole row. Without it, the layers of one step have the same
    sum. An array with one axis says nothing.
    """
    rows = [np.asarray(item.array[:_ROWS]) for item in items]
    if options.experts is None and all(part.ndim == 1 for part in rows):  # labels, lengths, anything
        return None
    ids = all(_may_be_ids(part, options.experts) for part in rows)
    counts = all(_may_be_counts(part, options.experts) for part in rows)
    if ids and counts and len({part.shape[-1] for part in rows}) == 1 and rows[0].shape[-1] == 1:
        counts = False  # one expert is no mixture
    return None if ids == counts else "choices" if ids else "counts"


def _may_be_ids(part: Any, experts: int | None) -> bool:
    low, high = int(part.min()), int(part.max())
    if low < -1 or high < 0 or high >= (experts or _IDS):
        return False
    if part.ndim == 1:
        return True
    top = part.shape[-1]
    if top > (experts or high + 1) or (experts is not None and top == experts):
        return False
    order = np.sort(part.reshape(-1, top), axis=1)
    again = ((order[:, 1:] == order[:, :-1]) & (order[:, 1:] >= 0)).any(axis=1)
    constant = (order == order[:, :1]).all(axis=1)  # a buffer that was not filled
    return not (again & ~constant).any()


def _may_be_counts(part: Any, experts: int | None) -> bool:
    if part.min() < 0 or part.ndim < 2 or part.shape[-1] < 2:
        return False
    if experts is not None:
        return bool(part.shape[-1] == experts)
    sums = part.sum(axis=-1, dtype=np.int64)
    return bool(sums.min() > 0 and (sums == (sums[:1] if part.ndim == 2 else sums[:, :1])).all())


def stacked(items: list[Named], axes: str, axis: int) -> tuple[Any, tuple[str, ...]]:
    """Arrays, one a layer, as one with the layers at that axis, and the layers' names; axes: for messages."""
    shapes = {item.array.shape for item in items}
    if len(shapes) > 1:
        few = ", ".join(f"{item.name!r} {tuple(item.array.shape)}" for item in items[:4])
        raise ValueError(f"layers differ in shape ({few}) but each must have the same axes {axes}")
    items = sorted(items, key=lambda item: (item.layer is None, item.layer or 0))
    return np.stack([np.asarray(item.array) for item in items], axis=axis), tuple(
        f"layer.{item.layer}" if item.layer is not None else item.name for item in items
    )


def numbers(value: Any) -> bool:
    """Whether nested lists end in a number, by their first entries."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, (int, float))


def layer_names(items: list[Named], layers: int) -> tuple[str, ...]:
    """Names of the layers where an array of texts holds so many."""
    for item in items:
        if item.role == "layers" and item.array.shape == (layers,) and item.array.dtype.kind == "U":
            return tuple(item.array.tolist())
    return ()
