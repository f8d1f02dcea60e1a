"""vLLM's --enable-return-routed-experts: lists or arrays [tokens, layers, k] of each request, -1 for cached prefixes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory.logs.files.content import Content
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers import _responses
from resonance_theory.logs.readers._build import whole_numbers
from resonance_theory.logs.readers._options import Options

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "vllm-routed"
ABOUT = (
    "JSON or JSON lines of vLLM responses with routed_experts: lists, base64 of a .npy file, or {data, shape, dtype}"
)
RANK = 0

_TYPES = ("uint8", "uint16", "int16", "int32", "int64")


def fits(content: Content, options: Options) -> bool:
    """Whether a response has routed_experts as nested lists, a .npy file in base64, or data with its shape."""
    found = _responses.payloads(content)
    if not found:
        return False
    if isinstance(found[0], str):
        return found[0].startswith("k05VTVBZ")
    if isinstance(found[0], dict):
        return {"data", "shape"} <= found[0].keys()
    return content.value is not None and np.ndim(_first(found[0])) == 0 and _depth(found[0]) == 3


def _first(value: Any) -> Any:
    while isinstance(value, list) and value:
        value = value[0]
    return 0 if isinstance(value, list) else value


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        value, depth = (value[0] if value else None), depth + 1
    return depth


def read(content: Content, options: Options) -> RoutingLog:
    """Each request a document."""
    parts = [_array(f"{content.where}, request {at}", value) for at, value in enumerate(_responses.payloads(content))]
    if not parts:
        raise ValueError(f"{content.where} holds no routed_experts")
    return _responses.joined(content, options, parts)


def _array(where: str, value: Any) -> NDArray[np.int64]:
    if isinstance(value, dict):
        return _shaped(where, value)
    if isinstance(value, str):
        data = _responses.decoded(where, value)
        try:
            return whole_numbers(where, "routed_experts", np.load(io.BytesIO(data), allow_pickle=False))
        except (ValueError, EOFError, OSError, SyntaxError) as problem:
            if where in str(problem):
                raise
            reason = " ".join(str(problem).split())[:120]
            raise ValueError(f"{where}: routed_experts is not a .npy file in base64 ({reason})") from None
    try:
        return whole_numbers(where, "routed_experts", np.asarray(value))
    except (ValueError, OverflowError) as problem:
        if where in str(problem):
            raise
        raise ValueError(f"{where}: routed_experts must be lists with the axes (tokens, layers, k)") from None


def _shaped(where: str, value: dict[str, Any]) -> NDArray[np.int64]:
    data, shape, kind = value.get("data"), value.get("shape"), str(value.get("dtype", "uint8"))
    if kind not in _TYPES:
        raise ValueError(f"{where}: routed_experts has dtype {kind!r} but must have one of {', '.join(_TYPES)}")
    if not isinstance(data, str) or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{where}: routed_experts must have data in base64 and a shape of whole numbers")
    flat = np.frombuffer(_responses.decoded(where, data), np.uint8)
    if flat.size != np.dtype(kind).itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{where}: routed_experts has {flat.size} bytes, which are not {kind} of shape {shape}")
    return flat.view(np.dtype(kind).newbyteorder("<")).reshape(shape).astype(np.int64)
