"""ESFT's expert_weights_<layer>.txt: a line a document, the ids of all its tokens, then their gate weights."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory.logs.files.content import Content
from resonance_theory.logs.files.texts import Text
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import choices_log, documents_of
from resonance_theory.logs.readers._options import Options, number

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "esft"
ABOUT = (
    "folder of expert_weights_<layer>.txt, ids and weights separated by tabs (github.com/deepseek-ai/ESFT): top named"
)
RANK = 0

_FILE = re.compile(r"expert_weights_(\d+)")


def fits(content: Content, options: Options) -> bool:
    """Whether the text files are called as ESFT calls them."""
    return bool(_files(content))


def _files(content: Content) -> dict[int, list[Text]]:
    """Files of each layer: one for each rank."""
    found: dict[int, list[Text]] = {}
    for text in content.texts:
        match = _FILE.fullmatch(text.name)
        if match:
            found.setdefault(int(match[1]), []).append(text)
    return dict(sorted(found.items()))


def read(content: Content, options: Options) -> RoutingLog:
    """Layer by layer; all layers must have the same documents."""
    where, files = content.where, _files(content)
    if not files:
        raise ValueError(f"{where} holds no file expert_weights_<layer>.txt")
    top = number("top", options)
    if top is None:
        raise ValueError(f"{where} does not say how many experts a token takes: give top=, the experts per token k")
    ids: list[NDArray[np.int32]] = []
    weights: list[NDArray[np.float32]] = []
    lengths: list[int] | None = None
    for layer, texts in files.items():
        mine, weight, found = _layer(texts, top)
        if lengths is not None and found != lengths:
            raise ValueError(
                f"{where}: layer {layer} has {len(found)} documents of {sum(found)} tokens but the first has {len(lengths)} "
                f"of {sum(lengths)}: all layers must have the same"
            )
        lengths = found
        ids.append(mine)
        weights.append(weight)
    if not lengths:
        raise ValueError(f"{where} has no document at all but must have some")
    return choices_log(
        where,
        content.name,
        options,
        np.stack(ids, axis=1),
        experts=number("experts", options),
        weights=np.stack(weights, axis=1),
        documents=documents_of(lengths),
        layers=[f"layer.{layer}" for layer in files],
    )


def _layer(texts: list[Text], top: int) -> tuple[NDArray[np.int32], NDArray[np.float32], list[int]]:
    """(ids (tokens, k), weights (tokens, k), tokens of each document) of one layer."""
    ids, weights, lengths = [], [], []
    for text in texts:
        for number_, line in text.lines():
            if not line.strip():
                continue
            mine, weight = _line(f"{text.where}, line {number_}", line, top)
            ids.append(mine)
            weights.append(weight)
            lengths.append(len(mine))
    if not ids:
        raise ValueError(f"{texts[0].where} has no document at all but must have some")
    return np.concatenate(ids), np.concatenate(weights), lengths


def _line(where: str, line: str, top: int) -> tuple[NDArray[np.int32], Any]:
    left, mark, right = line.partition("\t\t")
    try:
        ids = np.array([int(field) for field in left.split("\t")], np.int32)
        weights = np.array([float(field) for field in right.split("\t")], np.float32)
    except (ValueError, OverflowError):
        raise ValueError(f"{where}, must be whole numbers, two tabs, and numbers, separated by tabs") from None
    if not mark or len(ids) != len(weights) or len(ids) % top:
        raise ValueError(
            f"{where}, has {len(ids)} ids and {len(weights)} weights but must have as many of both, a multiple of top = {top}"
        )
    return ids.reshape(-1, top), weights.reshape(-1, top)
