"""The embedded routing log of a small language model."""

from __future__ import annotations

from pathlib import Path

from resonance_theory import _arguments as arguments

__all__ = ["example"]

_FILES = {"choices": "routing_trace.safetensors", "logits": "router_logits.safetensors"}


def example(kind: str = "choices") -> Path:
    """The file of an embedded routing log: 13,824 tokens in 24 documents, 4 layers, 16 experts, top-2.

    A byte-level language model of this project's `simulations/` read source code that it was not trained on;
    `python -m simulations.routing_trace` makes the files anew, and their metadata say how.

    Args:
        kind: choices (with gate weights and the documents' lengths), or logits (router logits of the first 512 tokens).

    Example:
        >>> from resonance_theory import logs
        >>> logs.read(logs.example())
        <RoutingLog: routing_trace.safetensors, 13824 tokens, 4 layers, 16 experts, top-2>
    """
    arguments.choice("kind", kind, tuple(_FILES))
    return Path(__file__).parents[1] / "data" / _FILES[kind]
