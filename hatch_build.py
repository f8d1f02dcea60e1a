"""The wheel carries what the commands find in a checkout inside the package, so that no other top-level name is installed."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("proofs", "simulations", "paper_figures")


class Bundle(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the folders to a wheel; an editable install finds them in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"] |= {name: f"resonance_theory/_bundled/{name}" for name in FOLDERS}
