"""The exact laws against simulation through the real router."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from resonance_theory._style import LOOK, MARKERS, NAMES, canvas

DATA = ("success_rate.jsonl",)
CAPTION = """The exact success rates (N1, N4 and section 3 on expert choice; G2-G5 for p, q and h) agree with simulation
through the real router in every setting: s = 8 to 256 tokens, n = 2 to 16 experts, d = 4 to 4096, one and two experts per
token, three capacities each, tokens drawn as vectors and as projections. Right: the difference in units of the smallest
error that the run detects with certainty (false alarms below 1e-6 over all rates, missed errors as rare); bars are the
simulation's intervals at that level, 2 million samples a point; a wrong law lies outside ±1."""


def draw(lines: list[dict[str, Any]]) -> Figure:
    rows = lines[1:]
    figure, (left, right) = canvas(10, 3.7, columns=2, width_ratios=(1, 1.7))
    shown = 0
    left.plot([0, 1], [0, 1], **{**LOOK["guide"], "linestyle": "-"})
    for shift, (rule, marker) in enumerate(MARKERS.items()):
        mine = [row for row in rows if row["key"].startswith(rule)]
        style = {"fmt": marker, "markersize": 4.5, "markeredgecolor": "black", "markeredgewidth": 0.5, "ecolor": "0.3"}
        style |= {"color": LOOK[rule]["color"], "elinewidth": 0.8, "label": NAMES[rule]}
        left.errorbar([row["law"] for row in mine], [row["estimate"] for row in mine], _spread(mine), **style)
        mine = [row for row in mine if row["law"] < 1 - 1e-9]  # a certain success has no error to compare with
        unit = [row["detectable"] for row in mine]
        right.errorbar(
            [row["law"] + 0.004 * (shift - 1) for row in mine],
            [(row["estimate"] - row["law"]) / u for row, u in zip(mine, unit)],
            [[value / u for value, u in zip(side, unit)] for side in _spread(mine)],
            **style,
        )
        shown += len(mine)
    left.set_xlim(0, 1.02)
    left.set_ylim(0, 1.02)
    left.set_aspect("equal")
    left.set_xlabel("exact success rate")
    left.set_ylabel("simulated success rate")
    left.legend(loc="upper left")
    right.axhline(0, color="black", linewidth=0.8)
    for level in (-1, 1):
        right.axhline(level, **LOOK["guide"])
    right.set_ylim(-1.25, 1.25)
    right.set_xlim(0, 1.02)
    right.set_xlabel("exact success rate")
    right.set_ylabel("(simulated - exact) / detectable error")
    right.set_title(f"{shown} rates below 1, {len(rows) - shown} of exactly 1")
    return figure


def _spread(rows: list[dict[str, Any]]) -> list[list[float]]:
    """Lengths of the intervals below and above the estimates."""
    return [[row["estimate"] - row["low"] for row in rows], [row["high"] - row["estimate"] for row in rows]]
