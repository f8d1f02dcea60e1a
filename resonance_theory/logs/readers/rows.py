"""Tables with a row for each choice, or for each count: CSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory.logs.files.content import Content
from resonance_theory.logs.files.tables import column_of
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import choices_log, counts_log, whole_numbers
from resonance_theory.logs.readers._options import Options, number

__all__ = ["ABOUT", "COLUMNS", "NAME", "RANK", "fits", "read"]

NAME = "rows"
ABOUT = "columns layer, token_idx, expert_idx, gate_weight (a row a choice, or lists), or step, layer, expert, count"
RANK = 3

# what a column is -> the names it goes by
COLUMNS = {
    "layer": ("layer", "layer_id", "layer_idx", "layer_index"),
    "token": ("token", "token_idx", "token_index", "token_id", "position", "pos"),
    "expert": (
        *("expert", "expert_idx", "expert_id", "expert_index", "experts", "expert_ids", "topk_ids"),
        *("topk_idx", "selected_experts"),
    ),
    "weight": ("gate_weight", "gate_weights", "weight", "weights", "topk_weights", "gate", "prob", "score"),
    "document": (
        "document",
        "document_id",
        "doc",
        "doc_id",
        "request",
        "request_id",
        "sequence",
        "sequence_id",
        "seq_id",
    ),
    "step": ("step", "iteration", "iter", "batch", "forward_pass_id"),
    "count": ("count", "counts", "num_tokens", "load", "tokens_per_expert"),
    "tokens": ("tokens", "total_tokens"),
}


def _columns(content: Content) -> dict[str, Any]:
    """The table's columns under the names of COLUMNS; of several candidates the one that stands first there."""
    low = {name.lower().strip(): values for name, values in (content.columns or {}).items()}
    found = {}
    for role, names in COLUMNS.items():
        name = next((name for name in names if name in low), None)
        if name is not None:
            found[role] = low[name]
    return found


def fits(content: Content, options: Options) -> bool:
    """Whether the table has the columns of choices or of counts."""
    found = _columns(content).keys()
    return {"token", "expert"} <= found or {"expert", "count"} <= found or {"layer", "count"} <= found


def read(content: Content, options: Options) -> RoutingLog:
    """Rows in any order; documents stand in the order in which they appear."""
    where, columns = content.where, _columns(content)
    if "token" in columns and "expert" in columns:
        return _choices(content, options, columns)
    if "count" in columns and ("expert" in columns or "layer" in columns):
        return _counts(content, options, columns)
    raise ValueError(f"{where} must have the columns token_idx and expert_idx, or layer, expert and count")


def _whole(where: str, name: str, values: Any) -> NDArray[np.int64]:
    array = column_of(values) if isinstance(values, list) else values
    if not isinstance(array, np.ndarray) or array.dtype.kind == "U":
        raise ValueError(f"{where}: column {name!r} must hold whole numbers, equally many in each row")
    return whole_numbers(where, f"column {name!r}", array)


def _labels(values: Any) -> tuple[NDArray[np.int64], list[str]]:
    """(index of each row, names) of a column of numbers or text: numbers in their order, text in that of appearance."""
    array = np.asarray(values)
    names, first, index = np.unique(array, return_index=True, return_inverse=True)
    if array.dtype.kind == "U":
        order = np.argsort(first)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return rank[index.ravel()], [str(names[k]) for k in order]
    return index.ravel(), [f"layer.{n}" for n in names.tolist()]


def _choices(content: Content, options: Options, columns: dict[str, Any]) -> RoutingLog:
    where = content.where
    expert = _whole(where, "expert", columns["expert"])
    rows = len(expert)
    if not rows:
        raise ValueError(f"{where} has no row at all but must have some")
    layer, layers = _labels(columns["layer"]) if "layer" in columns else (np.zeros(rows, np.int64), ["layer.0"])
    token = _whole(where, "token", columns["token"])
    weight = None
    if "weight" in columns:
        weight = np.asarray(columns["weight"])
        if weight.shape != expert.shape or weight.dtype.kind not in "iuf":
            raise ValueError(f"{where}: column 'weight' must hold numbers, as many as column 'expert'")
    document = None
    if "document" in columns:
        document = _appearance(columns["document"])
    key = _joined(token) if document is None else _joined(document, token)
    places, row_token = np.unique(key, return_inverse=True)
    if expert.ndim == 2:  # lists: a row is a token in a layer
        choices, weights = _placed(
            where, row_token, layer, np.zeros(rows, np.int64), expert, weight, len(places), layers
        )
        documents = None if document is None else _firsts(document, row_token, len(places))
        return _log(content, options, choices, weights, documents, layers)
    order = np.lexsort((np.arange(rows), layer, row_token))
    start = np.ones(rows, bool)
    start[1:] = (row_token[order][1:] != row_token[order][:-1]) | (layer[order][1:] != layer[order][:-1])
    begin = np.flatnonzero(start)
    slot = np.empty(rows, np.int64)
    slot[order] = np.arange(rows) - np.repeat(begin, np.diff(np.append(begin, rows)))
    choices, weights = _placed(where, row_token, layer, slot, expert, weight, len(places), layers)
    documents = None if document is None else _firsts(document, row_token, len(places))
    return _log(content, options, choices, weights, documents, layers)


def _appearance(values: Any) -> NDArray[np.int64]:
    """Numbers of the values in the order in which they appear."""
    _, first, index = np.unique(np.asarray(values), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[index.ravel()]


def _joined(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each row, in the order of the columns."""
    key = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        index = np.unique(column, return_inverse=True)[1].ravel()
        key = key * (int(index.max()) + 1) + index
    return key


def _firsts(document: NDArray[np.int64], row_token: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    documents = np.empty(tokens, np.int64)
    documents[row_token] = document
    return documents


def _placed(
    where: str,
    token: NDArray[np.int64],
    layer: NDArray[np.int64],
    slot: NDArray[np.int64],
    expert: NDArray[np.int64],
    weight: Any,
    tokens: int,
    layers: list[str],
) -> tuple[NDArray[np.int64], Any]:
    """Choices and weights (tokens, layers, k), -1 and 0 where there is no row."""
    wide = expert if expert.ndim == 2 else expert[:, None]
    top = wide.shape[1] if expert.ndim == 2 else int(slot.max()) + 1
    if tokens * len(layers) * top > 2**6 * max(wide.size, 2**20):
        raise ValueError(
            f"{where}: {wide.size} choices would fill {tokens} tokens x {len(layers)} layers x k = {top} to under 2 %: one "
            "token has many more rows than the others, as where token_idx starts again without a document column"
        )
    choices = np.full((tokens, len(layers), top), -1, np.int64)
    weights = None if weight is None else np.zeros(choices.shape)
    if expert.ndim == 2:
        pairs = token * len(layers) + layer
        if len(np.unique(pairs)) != len(pairs):
            raise ValueError(
                f"{where}: a token has two rows in one layer: give a document column if token_idx starts again"
            )
        choices[token, layer] = wide
        if weights is not None:
            weights[token, layer] = weight
        return choices, weights
    choices[token, layer, slot] = expert
    if weights is not None:
        weights[token, layer, slot] = weight
    sample = np.sort(choices, axis=2)
    twice = np.argwhere((sample[..., 1:] == sample[..., :-1]) & (sample[..., 1:] >= 0))
    if twice.size:
        at = [int(k) for k in twice[0]]
        raise ValueError(
            f"{where}: token {at[0]} names expert {int(sample[tuple(at)])} twice in layer {layers[at[1]]!r}: give a document "
            "column if token_idx starts again"
        )
    return choices, weights


def _log(
    content: Content, options: Options, choices: Any, weights: Any, documents: Any, layers: list[str]
) -> RoutingLog:
    return choices_log(
        content.where,
        content.name,
        options,
        choices,
        experts=number("experts", options, content.metadata),
        weights=weights,
        documents=documents,
        layers=layers,
    )


def _counts(content: Content, options: Options, columns: dict[str, Any]) -> RoutingLog:
    where = content.where
    count = _whole(where, "count", columns["count"])
    rows = len(count)
    if not rows:
        raise ValueError(f"{where} has no row at all but must have some")
    layer, layers = _labels(columns["layer"]) if "layer" in columns else (np.zeros(rows, np.int64), ["layer.0"])
    step = np.zeros(rows, np.int64)
    if "step" in columns:
        step = np.unique(np.asarray(columns["step"]), return_inverse=True)[1].ravel()
    if count.ndim == 2:  # a row is a layer in a step
        places: tuple[Any, ...] = (step, layer)
        counts = np.full((int(step.max()) + 1, len(layers), count.shape[1]), -1, np.int64)
    else:
        expert = _whole(where, "expert", columns["expert"])
        if expert.min() < 0 or expert.max() >= (options.experts or 2**20):
            raise ValueError(
                f"{where}: column 'expert' holds {int(expert.min() if expert.min() < 0 else expert.max())} but must hold 0 to "
                f"{(options.experts or 2**20) - 1}"
            )
        places = (step, layer, expert)
        counts = np.zeros((int(step.max()) + 1, len(layers), options.experts or int(expert.max()) + 1), np.int64)
    key = _joined(*places)
    if len(np.unique(key)) != rows:
        raise ValueError(f"{where}: two rows count the same step, layer and expert")
    counts[places] = count
    if count.ndim == 2 and len(count) != counts.shape[0] * counts.shape[1]:
        missing = np.argwhere((counts == -1).all(axis=2))[0]
        raise ValueError(
            f"{where}: layer {layers[int(missing[1])]!r} lacks a step that others have: all layers must have the same steps"
        )
    tokens = None
    if "tokens" in columns:
        tokens = np.zeros(len(counts), np.int64)
        np.maximum.at(tokens, step, _whole(where, "tokens", columns["tokens"]))
    return counts_log(
        where,
        content.name,
        options,
        counts,
        top=number("top", options, content.metadata),
        tokens=tokens,
        layers=layers,
    )
