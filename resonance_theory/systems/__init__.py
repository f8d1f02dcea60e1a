"""Techniques of neighbouring systems, one file each, found by discovery: `rt.systems.NAME`.

A name is looked up in the `__all__` of the files here, which are read and not run, so that those that need torch are
imported on first use only.

    >>> import resonance_theory as rt
    >>> rt.systems.best_contract.__name__, "CausalRouter" in dir(rt.systems)
    ('best_contract', True)
"""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _where() -> dict[str, str]:
    """Public name -> the file that holds it."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                for name in ast.literal_eval(node.value):
                    if name in found:
                        raise ValueError(f"{path.name} has the name {name} of {found[name]}.py")
                    found[name] = path.stem
    return found


def __getattr__(name: str) -> Any:
    if name not in _where():
        raise AttributeError(f"module 'resonance_theory.systems' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"resonance_theory.systems.{_where()[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_where())
