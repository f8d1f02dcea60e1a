"""What the names of arrays say: whether they hold choices, weights, counts or logits, of which layer and which part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ROLES", "Named", "named", "role_of"]

# role -> the names under which routers and their servers log it
ROLES = {
    "choices": (
        "choices",
        "topk_ids",
        "topk_idx",
        "topk_indices",
        "topk_experts",
        "topk_ids_of_layer",
        "selected_experts",
        "routed_experts",
        "expert_ids",
        "expert_idx",
        "expert_indices",
        "experts",
        "indices",
    ),
    "weights": (
        "weights",
        "topk_weights",
        "gate_weights",
        "routing_weights",
        "expert_weights",
        "weights_e4",
        "probs",
        "gates",
    ),
    "documents": ("documents", "document_ids", "doc_ids", "sequence_ids", "seq_ids", "request_ids"),
    "lengths": ("lengths", "document_lengths", "seq_lens", "seq_lengths"),
    "counts": (
        "counts",
        "logical_count",
        "tokens_per_expert",
        "num_tokens_per_expert",
        "local_tokens_per_expert",
        "global_tokens_per_expert",
        "expert_counts",
        "expert_load",
        "expert_load_pass",
        "expert_load_window",
        "loads",
        "load",
    ),
    "tokens": ("tokens", "tokens_per_step", "num_tokens"),
    "logits": ("router_logits", "gate_logits", "logits"),
    "bias": ("e_score_correction_bias", "expert_bias", "router_bias", "bias"),
    "layers": ("layers", "layer_names"),
    "top": ("top", "top_k", "k"),
}
_ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
_LONGEST = sorted(_ROLE_OF, key=len, reverse=True)


@dataclass(frozen=True)
class Named:
    """An array with what its name says: role or None, layer or None, and the rest of the name, its part."""

    name: str
    role: str | None
    layer: int | None
    part: str
    array: Any


def role_of(text: str) -> tuple[str | None, str]:
    """(role, what stands before it) of the last part of a name."""
    low = text.lower()
    for name in _LONGEST:
        if low == name or low.endswith(("_" + name, "-" + name)):
            return _ROLE_OF[name], text[: len(text) - len(name)].strip("_-")
    return None, text


def named(arrays: Mapping[str, Any]) -> list[Named]:
    """Every array with what its name says. The first whole number that stands alone in a name is the layer's."""
    found = []
    for name, array in arrays.items():
        pieces = [piece for piece in re.split(r"[./\s]+|_(?=\d+$)|(?<=[lL]ayer)(?=\d+$)", name) if piece]
        digits = [piece for piece in pieces if piece.isdigit()]
        words = [piece for piece in pieces if not piece.isdigit()]
        role, before = role_of(words[-1]) if words else (None, "")
        if role is None and words and name.count(".") == 0:  # expert_counts_run_a
            role = next((_ROLE_OF[n] for n in _LONGEST if len(n) > 5 and n in name.lower()), None)
            before = ""
        rest = [word for word in words[:-1] if word.lower() not in ("layer", "layers")]
        part = ".".join([*rest, *([before] if before and before.lower() not in ("layer", "layers") else [])])
        found.append(Named(name, role, int(digits[0]) if digits else None, part, array))
    return found
