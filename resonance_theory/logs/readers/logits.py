"""Router logits, such as transformers' `output_router_logits`: the choices that a named scoring makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.logs import counting
from resonance_theory.logs.files.content import Coded, Content, decode
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import choices_log, documents_of
from resonance_theory.logs.readers._names import Named, named
from resonance_theory.logs.readers._options import Options, number
from resonance_theory.logs.scoring import SCORINGS, choose

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "logits"
ABOUT = "floating-point `router_logits`, (tokens, experts) or (batch, tokens, experts) for each layer; top and scoring named"
RANK = 2


def fits(content: Content, options: Options) -> bool:
    """Whether floating-point arrays are named as router logits, or a scoring says that they are."""
    return bool(_found(content, options))


def _floats(array: Any) -> bool:
    return isinstance(array, Coded) or getattr(array.dtype, "kind", "i") == "f"


def _found(content: Content, options: Options) -> list[Named]:
    items = [i for i in named(content.arrays) if _floats(i.array) and 2 <= i.array.ndim <= 3 and i.role != "bias"]
    called = [item for item in items if item.role == "logits"]
    # the language model's own logits end in `logits`, too: beside choices, or alone with that name, they do not count
    sure = [i for i in called if "router" in i.name.lower() or "gate" in i.name.lower() or i.layer is not None]
    if options.scoring is None:
        return sure
    return sure or called or [item for item in items if item.role is None]


def read(content: Content, options: Options) -> RoutingLog:
    """Layer by layer and block by block; only the choices and their weights are kept."""
    where = content.where
    items = _found(content, options)
    if not items:
        raise ValueError(f"{where} holds no logits: it needs floating-point numbers (tokens, experts) for each layer")
    top = number("top", options, content.metadata)
    if top is None:
        raise ValueError(f"{where} holds logits: give top=, the experts per token k")
    scoring = options.scoring or content.metadata.get("scoring")
    if scoring is None:
        raise ValueError(f"{where} holds logits: give scoring=, one of {', '.join(SCORINGS)}")
    arguments.choice("scoring", scoring, SCORINGS)
    layers = _layers(where, items)
    shapes = {array.shape for _, array in layers}
    if len(shapes) > 1:
        few = ", ".join(f"{name!r} {tuple(array.shape)}" for name, array in layers[:4])
        raise ValueError(f"{where}: layers differ in shape ({few}) but each must have the same tokens and experts")
    shape = shapes.pop()
    tokens, experts = int(np.prod(shape[:-1])), int(shape[-1])
    if not tokens or experts < 2:
        raise ValueError(f"{where}: logits of layer {layers[0][0]!r} have shape {shape}, too few for (tokens, experts)")
    if options.experts is not None and options.experts != experts:
        raise ValueError(f"{where}: logits have {experts} experts but experts = {options.experts} was given")
    if top > experts:
        raise ValueError(f"{where}: top = {top} must be at most the {experts} experts")
    bias = _bias(where, content, options, len(layers), experts)
    choices = np.empty((tokens, len(layers), top), np.int16 if experts <= 2**15 else np.int32)
    weights = np.empty(choices.shape, np.float32)
    step, probabilities = max(1, counting.BLOCK // experts), 0
    for at, (name, array) in enumerate(layers):
        rows = array if array.ndim == 2 else _flat(array)
        shares = scoring == "softmax" and _are_shares(decode(rows[:4096]))
        probabilities += shares
        for start in range(0, tokens, step):
            part = decode(rows[start : start + step])
            if shares and not (part < 0).any():
                with np.errstate(divide="ignore"):  # of 0: -inf
                    part = np.log(part.astype(np.float64))
            try:
                ids, weight = choose(
                    part,
                    top,
                    scoring,
                    bias=None if bias is None else bias[at],
                    n_group=options.n_group,
                    topk_group=options.topk_group,
                )
            except ValueError as problem:
                raise ValueError(f"{where}: layer {name!r}, tokens from {start} on: {problem}") from None
            choices[start : start + step, at], weights[start : start + step, at] = ids, weight
    documents = documents_of([shape[1]] * shape[0]) if len(shape) == 3 else None
    return choices_log(
        where,
        content.name,
        options,
        choices,
        experts=experts,
        weights=weights,
        documents=documents,
        layers=[name for name, _ in layers],
        notes=[
            f"Choices are the top {top} of the logits by {scoring}; weights are the scores, not made to sum to 1.",
            *(
                ["The rows sum to 1: they are probabilities, not logits, and are taken as such."]
                if probabilities
                else []
            ),
        ],
    )


def _are_shares(rows: Any) -> bool:
    """Whether rows are probabilities already, as some models return them under the name of logits."""
    total = rows.astype(np.float64).sum(axis=-1)
    return bool((rows >= 0).all() and np.abs(total - 1).max() < 0.02)


def _flat(array: Any) -> Any:
    if isinstance(array, Coded):
        return Coded(array.data.reshape(-1, array.shape[-1]), array.dtype)
    return array.reshape(-1, array.shape[-1])


def _layers(where: str, items: list[Named]) -> list[tuple[str, Any]]:
    """(name, logits (tokens, experts) or (batch, tokens, experts)) of each layer."""
    if len(items) == 1 and items[0].array.ndim == 3 and items[0].layer is None:  # stacked over the layers
        array = items[0].array
        return [(f"layer.{k}", array[k]) for k in range(array.shape[0])]
    items = sorted(items, key=lambda item: (item.layer is None, item.layer or 0))
    names = [f"layer.{item.layer}" if item.layer is not None else item.name for item in items]
    if len(set(names)) != len(names):
        raise ValueError(f"{where} holds logits of {names[0]!r} twice")
    return list(zip(names, (item.array for item in items)))


def _bias(where: str, content: Content, options: Options, layers: int, experts: int) -> Any:
    """Biases (layers, experts), given or from the file."""
    bias = options.bias
    if bias is None:
        found = [item for item in named(content.arrays) if item.role == "bias"]
        if not found or options.scoring not in ("sigmoid+bias", "group-limited", None):
            return None
        found.sort(key=lambda item: (item.layer is None, item.layer or 0))
        bias = np.stack([decode(item.array) for item in found]) if len(found) > 1 else decode(found[0].array)
    bias = arguments.real("bias", bias)
    if bias.shape not in ((experts,), (layers, experts)):
        raise ValueError(
            f"{where}: bias has shape {bias.shape} but must have ({experts},), or ({layers}, {experts}) for the layers"
        )
    return np.broadcast_to(bias, (layers, experts))
