"""resonance-theory: exact laws, proofs and simulations of Mixture-of-Experts routing.

    >>> import resonance_theory as rt
    >>> print(f"{rt.token_choice.success(128, 20, rt.Rates(experts=8)):.6f}")
    0.981418

Submodules load on first use, so `import resonance_theory` is fast and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> module that holds it (a module itself where the name is a submodule)
_MODULES = {
    name: f"resonance_theory.{name}"
    for name in (
        "audit",
        "evidence",
        "gates",
        "homogenization",
        "kernels",
        "loads",
        "logs",
        "loads",
        "losses",
        "nn",
        "rules",
        "step_time",
        "systems",
        "tokens",
    )
}
_NAMES = {
    **dict.fromkeys(
        ("token_choice", "expert_choice", "resonance", "random_keep", "adaptive"), "resonance_theory.rules"
    ),
    **dict.fromkeys(("Blocks", "BetaBinomial", "Documents", "Rule"), "resonance_theory.rules"),
    "Pooled": "resonance_theory.rules.pooling",
    "Rates": "resonance_theory.tokens",
    "register_rule": "resonance_theory.rules.registry",
    "grap_gates": "resonance_theory.gates",
    "affinity": "resonance_theory.gates",
    "plan": "resonance_theory.planning",
    "plan_devices": "resonance_theory.device_planning",
    "plan_drop": "resonance_theory.heavy_planning",
    "plan_load": "resonance_theory.load_planning",
}

__all__ = ["__version__", *_NAMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), "register" if name == "register_rule" else name)
    else:
        raise AttributeError(f"module 'resonance_theory' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
