"""SGLang's expert distribution recorder: the files of POST /dump_expert_distribution_record."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory.logs.files.content import Content, as_array
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import choices_log, counts_log, whole_numbers
from resonance_theory.logs.readers._options import Options, number

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "sglang-recorder"
ABOUT = "torch.save of SGLang's recorder: stat (logical_count), per_pass (global_physical_count), per_token (topk_ids_of_layer)"
RANK = 0

_COUNT, _PHYSICAL, _IDS, _MAP = (
    "logical_count",
    "global_physical_count",
    "topk_ids_of_layer",
    "last_physical_to_logical_map",
)


def fits(content: Content, options: Options) -> bool:
    """Whether it is a dictionary with logical_count, or with records."""
    value = content.value
    if not isinstance(value, dict):
        return False
    if _COUNT in value:
        return True
    records = value.get("records")
    return isinstance(records, list) and (_MAP in value or not records or _kind(records[0]) is not None)


def _kind(record: Any) -> str | None:
    if not isinstance(record, dict):
        return None
    return next((name for name in (_IDS, _PHYSICAL) if name in record), None)


def read(content: Content, options: Options) -> RoutingLog:
    """Counts of each step, or the choices of each forward pass one after the other."""
    where, value = content.where, content.value
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a dictionary with {_COUNT}, or with records")
    top = number("top", options)
    if _COUNT in value:
        counts = whole_numbers(where, _COUNT, as_array(where, _COUNT, value[_COUNT], 0))
        if counts.ndim == 2:  # older servers sum over the window
            counts = counts[None]
        return counts_log(where, content.name, options, counts, top=top)
    records = value.get("records")
    if not isinstance(records, list) or not records:
        raise ValueError(f"{where} has no records at all but must have at least one forward pass")
    kind = _kind(records[0])
    if kind is None:
        raise ValueError(f"{where}: records must hold {_IDS} (per_token) or {_PHYSICAL} (per_pass)")
    parts: list[NDArray[np.int64]] = []
    places: set[int] = set()
    for at, record in enumerate(records):
        if not isinstance(record, dict) or kind not in record:
            raise ValueError(f"{where}: records[{at}] must hold {kind} as the first does")
        part = as_array(where, kind, record[kind], 0)
        place = getattr(part, "__array_interface__", {"data": (0,)})["data"][0]
        if np.size(part) and place in places:  # a small file may hold one tensor a million times
            raise ValueError(f"{where}: records[{at}].{kind} is the very tensor of an earlier record")
        places.add(place)
        parts.append(whole_numbers(where, f"records[{at}].{kind}", part))
    wanted = 3 if kind == _IDS else 2
    for at, part in enumerate(parts):
        if part.ndim != wanted or len(part) != len(parts[0]) or (wanted == 3 and part.shape[2] != parts[0].shape[2]):
            axes = "(layers, tokens, k)" if wanted == 3 else "(layers, physical experts)"
            raise ValueError(
                f"{where}: records[{at}].{kind} has shape {part.shape} but must have the axes {axes} of the first, "
                f"{parts[0].shape}"
            )
    table = _table(where, value.get(_MAP), len(parts[0]))
    if kind == _PHYSICAL:
        return counts_log(where, content.name, options, _logical_counts(where, parts, table), top=top)
    ids = np.concatenate(parts, axis=1)
    experts = options.experts or (None if table is None else int(table.max()) + 1)
    notes = []
    if table is not None:
        ids = _logical(where, ids, table)
        if table.shape[1] > int(table.max()) + 1:
            notes.append(
                f"{table.shape[1]} physical experts are {int(table.max()) + 1} logical ones: ids are the logical ones."
            )
    choices = np.ascontiguousarray(ids.swapaxes(0, 1))
    return choices_log(where, content.name, options, choices, experts=experts, notes=notes)


def _table(where: str, value: Any, layers: int) -> NDArray[np.int64] | None:
    """The logical expert of each physical one, (layers, physical experts)."""
    if value is None:
        return None
    table = whole_numbers(where, _MAP, as_array(where, _MAP, value, 0))
    if table.ndim != 2 or len(table) != layers or not table.size or table.min() < 0:
        raise ValueError(
            f"{where}: {_MAP} has shape {table.shape} but must name the logical expert, at least 0, of each physical one "
            f"in {layers} layers"
        )
    return table


def _logical(where: str, ids: NDArray[np.int64], table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Logical ids (layers, tokens, k) of physical ones, -1 kept."""
    bad = np.argwhere((ids < -1) | (ids >= table.shape[1]))
    if bad.size:
        layer, token, slot = (int(k) for k in bad[0])
        raise ValueError(
            f"{where}: {_IDS} holds {ids[layer, token, slot]} in layer {layer}, token {token}, but must hold -1 to "
            f"{table.shape[1] - 1}"
        )
    layers = np.arange(len(table))[:, None, None]
    return np.where(ids < 0, -1, table[layers, np.maximum(ids, 0)])


def _logical_counts(where: str, parts: list[NDArray[np.int64]], table: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Counts (steps, layers, logical experts)."""
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1 or (table is not None and widths != {table.shape[1]}):
        raise ValueError(
            f"{where}: {_PHYSICAL} has {sorted(widths)} experts but every record and {_MAP} must have the same"
        )
    physical = np.stack(parts)
    if table is None:
        return physical
    counts = np.zeros((*physical.shape[:2], int(table.max()) + 1), np.int64)
    for layer in range(len(table)):
        np.add.at(counts[:, layer].T, table[layer], physical[:, layer].T)
    return counts
