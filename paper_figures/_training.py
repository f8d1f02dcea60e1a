"""What figures of trained networks share: looks of the rules, and values of an arm's record with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resonance_theory._style import LOOK, MARKERS, NAMES

# rule -> its name and look, marker included
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    rule: (NAMES[rule], {**LOOK[rule], "marker": MARKERS[rule]}) for rule in MARKERS
}
RULES["random_keep"] = ("random keep", {**LOOK["guide"], "marker": "v"})

EDGE = {"markersize": 5, "markeredgecolor": "black", "markeredgewidth": 0.6, "ecolor": "0.3", "elinewidth": 0.9}
Row = Mapping[str, Any]


def arms(lines: Sequence[Row]) -> dict[str, Row]:
    """Records of arms by label."""
    return {line["arm"]: line for line in lines if "arm" in line}


def bars(metrics: Sequence[Row]) -> list[list[float]]:
    """Lengths of the intervals below and above the means."""
    return [[m["mean"] - m["low"] for m in metrics], [m["high"] - m["mean"] for m in metrics]]


def points(panel: Any, x: Sequence[float], metrics: Sequence[Row], **style: Any) -> None:
    """Means with their intervals."""
    panel.errorbar(x, [m["mean"] for m in metrics], bars(metrics), **{**EDGE, **style})


def course(panel: Any, arm: Row, metric: str, *, shift: float = 0, **style: Any) -> None:
    """A metric at the checkpoints of a training, of which the last is called "end"; shift: share of the whole, sideways."""
    *steps, end = arm["parameters"]["checkpoints"]
    found = [arm["metrics"][f"{metric} @{step}"] for step in (*steps, "end")]
    points(panel, [step + shift * end for step in (*steps, end)], found, **style)
