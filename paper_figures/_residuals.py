"""Exact rates against simulated ones, and their differences in units of the smallest error that the run detects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from resonance_theory._style import LOOK, canvas

Rows = Sequence[Mapping[str, Any]]


def look(colour: Any, marker: str) -> dict[str, Any]:
    """Points of one kind: told apart by marker as well as by colour."""
    edge = {"markersize": 4.5, "markeredgecolor": "black", "markeredgewidth": 0.5, "ecolor": "0.3", "elinewidth": 0.8}
    return {"fmt": marker, "color": colour, **edge}


def draw(
    groups: Mapping[str, tuple[Rows, dict[str, Any]]],
    name: str,
    limits: tuple[float, float] = (0, 1.02),
    *,
    shift: float = 0.004,
) -> Figure:
    """groups: label -> records of a study and their look. name: what the rates are. shift: keeps groups side by side."""
    figure, (left, right) = canvas(10, 3.7, columns=2, width_ratios=(1, 1.7))
    left.plot([0, 1], [0, 1], **{**LOOK["guide"], "linestyle": "-"})
    shown = total = 0
    for place, (label, (rows, style)) in enumerate(groups.items()):
        left.errorbar([r["law"] for r in rows], [r["estimate"] for r in rows], _spread(rows), label=label, **style)
        below = [row for row in rows if row["law"] < 1 - 1e-9]  # a certain event has no error to compare with
        unit = [row["detectable"] for row in below]
        right.errorbar(
            [row["law"] + shift * (place - (len(groups) - 1) / 2) for row in below],
            [(row["estimate"] - row["law"]) / u for row, u in zip(below, unit)],
            [[value / u for value, u in zip(side, unit)] for side in _spread(below)],
            label=label,
            **style,
        )
        shown, total = shown + len(below), total + len(rows)
    left.set_xlim(limits)
    left.set_ylim(limits)
    left.set_aspect("equal")
    left.set_xlabel(f"exact {name}")
    left.set_ylabel(f"simulated {name}")
    left.legend(loc="upper left", handlelength=1.2)
    right.axhline(0, color="black", linewidth=0.8)
    for level in (-1, 1):
        right.axhline(level, **LOOK["guide"])
    right.set_ylim(-1.25, 1.25)
    right.set_xlim(limits)
    right.set_xlabel(f"exact {name}")
    right.set_ylabel("(simulated - exact) / detectable error")
    right.set_title(f"{shown} rates below 1" + (f", {total - shown} of exactly 1" if total > shown else ""))
    return figure


def _spread(rows: Rows) -> list[list[float]]:
    """Lengths of the intervals below and above the estimates."""
    return [[row["estimate"] - row["low"] for row in rows], [row["high"] - row["estimate"] for row in rows]]
