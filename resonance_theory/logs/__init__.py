"""What running routers log: choices of experts, gate weights, counts, and where documents end."""

from __future__ import annotations

import importlib
from typing import Any

from resonance_theory.logs.log import RoutingLog

__all__ = ["RoutingLog", "choose", "example", "layouts", "read", "recognise"]

# name -> module that holds it, loaded on first use: the readers know the log, never the other way round
_NAMES = {
    **dict.fromkeys(("read", "recognise", "layouts"), "resonance_theory.logs.readers"),
    "choose": "resonance_theory.logs.scoring",
    "example": "resonance_theory.logs.embedded",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'resonance_theory.logs' has no attribute {name!r}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
