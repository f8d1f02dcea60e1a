"""Responses of inference servers with a `routed_experts` field somewhere in them: one a request."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory.logs.files.content import Content
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import choices_log, documents_of
from resonance_theory.logs.readers._options import Options, number

__all__ = ["decoded", "joined", "payloads"]

KEY = "routed_experts"
_DEPTH = 8


def payloads(content: Content) -> list[Any]:
    """The values of every `routed_experts` in the order of the file."""
    if content.columns is not None and KEY in content.columns:
        return list(content.columns[KEY])
    return [] if content.value is None else list(_walk(content.value, _DEPTH, set()))


def _walk(value: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen:  # a torch file may hold one list a million times
        return
    seen.add(id(value))
    if isinstance(value, dict):
        if value.get(KEY) is not None:
            yield value[KEY]
        elif depth:
            for part in value.values():
                if isinstance(part, (dict, list)):
                    yield from _walk(part, depth - 1, seen)
    elif isinstance(value, list) and depth:
        for part in value:
            if isinstance(part, (dict, list)):
                yield from _walk(part, depth - 1, seen)


def decoded(where: str, text: str) -> bytes:
    """The bytes of a base64 text."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise ValueError(f"{where}: {KEY} is not base64 ({problem})") from None


def joined(content: Content, options: Options, parts: Sequence[NDArray[Any]], notes: Sequence[str] = ()) -> RoutingLog:
    """The requests' choices (tokens, layers, k) as one log, each request a document."""
    for at, part in enumerate(parts):
        if part.ndim != 3 or part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"{content.where}: {KEY} of request {at} has shape {part.shape} but must have the axes (tokens, layers, k) "
                f"of the first, {parts[0].shape}"
            )
    if not sum(map(len, parts)):
        raise ValueError(f"{content.where} has no token at all but must have some")
    said = [*notes, f"{len(parts)} requests, each a document."]
    choices = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return choices_log(
        content.where,
        content.name,
        options,
        choices,
        experts=number("experts", options, content.metadata),
        documents=documents_of([len(part) for part in parts]),
        notes=said,
    )
