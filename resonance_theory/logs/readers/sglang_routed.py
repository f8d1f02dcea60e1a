"""SGLang's `return_routed_experts`: base64 of flat int32 ids [tokens, layers, k] in meta_info or sgl_ext."""

from __future__ import annotations

import numpy as np

from resonance_theory.logs.files.content import Content
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers import _responses
from resonance_theory.logs.readers._options import Options, number

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "sglang-routed"
ABOUT = "JSON or JSON lines of SGLang responses with routed_experts, base64 of flat int32: layers and top named"
RANK = 1


def fits(content: Content, options: Options) -> bool:
    """Whether a response has routed_experts as text that is no .npy file."""
    found = _responses.payloads(content)
    return bool(found) and isinstance(found[0], str) and not found[0].startswith("k05VTVBZ")  # base64 of \x93NUMPY


def read(content: Content, options: Options) -> RoutingLog:
    """Each request a document. A prefix that was left out by routed_experts_start_len is simply not there."""
    where = content.where
    top, layers = number("top", options), options.layer_count
    if top is None or layers is None:
        raise ValueError(
            f"{where} holds flat lists of ids: give layers= and top=, the layers and the experts per token k"
        )
    parts = []
    for at, text in enumerate(_responses.payloads(content)):
        if not isinstance(text, str):
            raise ValueError(f"{where}: routed_experts of request {at} must be base64 text as the first is")
        data = _responses.decoded(f"{where}, request {at}", text)
        if len(data) % (4 * layers * top):
            raise ValueError(
                f"{where}: routed_experts of request {at} has {len(data)} bytes but must have a multiple of "
                f"4 x {layers} layers x {top}"
            )
        parts.append(np.frombuffer(data, "<i4").reshape(-1, layers, top))
    return _responses.joined(content, options, parts)
