"""resonance-theory: exact laws, proofs and simulations of Mixture-of-Experts routing.

    >>> import resonance_theory as rt
    >>> float(rt.token_choice.success(tokens=128, experts=8, capacity=20))  # doctest: +ELLIPSIS
    0.98141791864...

Submodules load on first use, so `import resonance_theory` is fast and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> module that holds it (a module itself where the name is a submodule)
_MODULES = {
    "token_choice": "resonance_theory.rules.token_choice",
    "expert_choice": "resonance_theory.rules.expert_choice",
    "resonance": "resonance_theory.rules.resonance",
    "adaptive": "resonance_theory.rules.adaptive",
    "dependence": "resonance_theory.rules.dependence",
    "pooling": "resonance_theory.rules.pooling",
    "tokens": "resonance_theory.tokens",
    "gates": "resonance_theory.gates",
    "audit": "resonance_theory.audit",
    "losses": "resonance_theory.losses",
    "step_time": "resonance_theory.step_time",
    "homogenization": "resonance_theory.homogenization",
    "evidence": "resonance_theory.evidence",
    "kernels": "resonance_theory.kernels",
    "nn": "resonance_theory.nn",
}
_FUNCTIONS = {
    "grap_gates": "resonance_theory.gates",
    "affinity": "resonance_theory.gates",
}

__all__ = ["__version__", *_FUNCTIONS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name in _FUNCTIONS:
        value = getattr(importlib.import_module(_FUNCTIONS[name]), name)
    else:
        raise AttributeError(f"module 'resonance_theory' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
