"""What running routers log: choices of experts, gate weights, counts, and where documents end.

log            one form for all of it
readers        files and arrays of many systems in that form; scoring, repeats: logits to choices, rows that repeat
fit            the law of documents, from choices with document ids or from counts at two block sizes
guarantee      a capacity that holds the drop of the next steps with a confidence
drop_policies  what each policy keeps of a router's own choices
"""

from __future__ import annotations

import importlib
from typing import Any

from resonance_theory.logs.guarantee import Guarantee, guarantee, held, least_capacities  # a module's name: at once
from resonance_theory.logs.log import RoutingLog

# name -> module that holds it, loaded on first use: the readers know the log, never the other way round
_NAMES = {
    **dict.fromkeys(("read", "recognise", "layouts", "whole_numbers"), "resonance_theory.logs.readers"),
    "choose": "resonance_theory.logs.scoring",
    "example": "resonance_theory.logs.embedded",
    **dict.fromkeys(("DocumentFit", "fit_documents", "fit_two_blocks"), "resonance_theory.logs.fit"),
    **dict.fromkeys(("kept", "policies"), "resonance_theory.logs.drop_policies"),
}

__all__ = [
    "DocumentFit",
    "Guarantee",
    "RoutingLog",
    "choose",
    "example",
    "fit_documents",
    "fit_two_blocks",
    "guarantee",
    "held",
    "kept",
    "layouts",
    "least_capacities",
    "policies",
    "read",
    "recognise",
    "whole_numbers",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'resonance_theory.logs' has no attribute {name!r}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
