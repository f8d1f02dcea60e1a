"""Arrays of the experts that each token took, with gate weights and documents where they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.logs.files.content import Content, as_array, decode
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import choices_log, documents_of, whole_numbers
from resonance_theory.logs.readers._names import Named, named, role_of
from resonance_theory.logs.readers._options import Options, number
from resonance_theory.logs.readers._values import kind, layer_names, numbers, stacked, unnamed

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "choices"
ABOUT = "whole numbers (tokens, layers, k), or (tokens, k) for each layer; weights, documents or lengths beside them"
RANK = 4


def fits(content: Content, options: Options) -> bool:
    """Whether an array of whole numbers is named as choices, or can be nothing else."""
    arrays = _arrays(content)
    if any(_is_choices(item) for item in named(arrays)):
        return True
    bare = unnamed(arrays)
    return bool(bare) and kind(bare, options) == "choices"


def _arrays(content: Content) -> dict[str, Any]:
    """Arrays of the file, or rectangular lists under a name of choices in JSON."""
    if content.arrays or not isinstance(content.value, dict) or content.columns is not None:
        return dict(content.arrays)
    found = {}
    for name, value in content.value.items():
        if isinstance(value, list) and numbers(value) and role_of(str(name))[0] is not None:
            found[str(name)] = as_array(content.where, str(name), value, 0)
    return found


def _is_choices(item: Named) -> bool:
    return item.role == "choices" and item.array.ndim > 0 and getattr(item.array.dtype, "kind", "f") in "iu"


def read(content: Content, options: Options) -> RoutingLog:
    """The parts one after the other."""
    where, arrays = content.where, _arrays(content)
    items = named(arrays)
    scalars = {item.name: item.array for item in items if item.array.ndim == 0}
    chosen = [item for item in items if _is_choices(item)]
    if not chosen:
        chosen = unnamed(arrays)
        items = [item for item in items if item.role is not None] + chosen
    names = list(dict.fromkeys(item.part for item in chosen))
    wanted = names if options.parts is None else list(options.parts)
    for name in wanted:
        if name not in names:
            raise ValueError(f"{where}: parts = {name!r} must be one of {', '.join(map(repr, names))}")
    if not wanted:
        raise ValueError(f"{where} holds no choices: it needs whole numbers with the axes (tokens, layers, k)")
    every = [_part(where, name, items, chosen, options) for name in wanted]
    shapes = {(part[0].shape[1:], part[3]) for part in every}
    if len(shapes) > 1:
        raise ValueError(
            f"{where}: its parts {', '.join(map(repr, wanted))} differ in layers or k and cannot be read together: name "
            "some by parts="
        )
    choices = every[0][0] if len(every) == 1 else np.concatenate([part[0] for part in every])
    weights = None
    if all(part[1] is not None for part in every):
        weights = every[0][1] if len(every) == 1 else np.concatenate([part[1] for part in every])
    documents: Any = None
    notes = []
    if all(part[2] is not None for part in every):
        documents, at = [], 0
        for part in every:
            ids = np.unique(part[2], return_inverse=True)[1] if len(every) > 1 else np.asarray(part[2])
            documents.append(ids + at)
            at += int(ids.max()) + 1 if len(every) > 1 else 0
        documents = np.concatenate(documents)
    if len(every) > 1:
        sizes = ", ".join(f"{name or 'unnamed'} {len(part[0])}" for name, part in zip(wanted, every))
        notes.append(f"{len(every)} parts are read one after the other (tokens: {sizes}).")
    return choices_log(
        where,
        content.name,
        options,
        choices,
        experts=number("experts", options, scalars, content.metadata),
        weights=weights,
        documents=documents,
        layers=every[0][3] or layer_names(items, choices.shape[1]),
        notes=notes,
    )


def _part(
    where: str, part: str, items: list[Named], chosen: list[Named], options: Options
) -> tuple[Any, Any, Any, tuple[str, ...]]:
    """(choices, weights, documents, layers) of the arrays whose names agree but for the role."""
    mine = [item for item in items if item.part == part]
    try:
        choices, layers = _three(where, [item for item in chosen if item.part == part])
        weights = [item for item in mine if item.role == "weights"]
        weight = _three(where, weights)[0] if weights else None
    except ValueError as problem:
        raise ValueError(f"{where}: {problem}" if where not in str(problem) else str(problem)) from None
    if weight is not None:
        weight = decode(weight)
        if any(item.name.lower().endswith("_e4") for item in weights):  # whole numbers of ten-thousandths
            weight = weight.astype(np.float32) / np.float32(1e4)
    documents = None
    for item in mine:
        if item.array.ndim == 1 and item.role == "documents":
            documents = whole_numbers(where, item.name, item.array)
        elif item.array.ndim == 1 and item.role == "lengths":
            documents = _lengths(where, item, len(choices))
    return choices, weight, documents, layers


def _lengths(where: str, item: Named, tokens: int) -> Any:
    lengths = whole_numbers(where, item.name, item.array)
    if (lengths < 0).any() or int(lengths.sum()) != tokens:
        raise ValueError(f"{where}: {item.name!r} sums to {int(lengths.sum())} but must sum to the {tokens} tokens")
    return documents_of(lengths.tolist())


def _three(where: str, items: list[Named]) -> tuple[Any, tuple[str, ...]]:
    """Choices or weights with the axes (tokens, layers, k), and names of the layers where the arrays have them."""
    if len(items) > 1 and all(item.array.ndim <= 2 for item in items):
        array, layers = stacked(items, "(tokens, k)", 1)
        return (array if array.ndim == 3 else array[:, :, None]), layers
    if len(items) > 1:
        raise ValueError(f"{where} holds several choices: {', '.join(repr(item.name) for item in items[:4])}")
    array, name = items[0].array, items[0].name
    if array.ndim == 3 and name.lower().endswith("topk_ids_of_layer"):
        array = np.swapaxes(array, 0, 1)
    if array.ndim == 2:
        array = array[:, None, :]
    if array.ndim == 1:
        array = array[:, None, None]
    if array.ndim != 3:
        raise ValueError(f"{where}: {name!r} has shape {array.shape} but must have the axes (tokens, layers, k)")
    return array, ()
