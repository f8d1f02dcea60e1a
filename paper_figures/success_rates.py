"""The exact laws against simulation through the real router."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._residuals import draw as residuals
from paper_figures._residuals import look
from resonance_theory._style import LOOK, MARKERS, NAMES

DATA = ("success_rate.jsonl",)
CAPTION = """The exact success rates agree with simulation
through the real router in every setting: s = 8 to 256 tokens, n = 2 to 16 experts, d = 4 to 4096, one and two experts per
token, three capacities each, tokens drawn as vectors and as projections. Right: the difference in units of the smallest
error that the run detects with certainty (false alarms below 1e-6 over all rates, missed errors as rare); bars are the
simulation's intervals at that level, 2 million samples a point; a wrong law lies outside ±1."""


def draw(lines: list[dict[str, Any]]) -> Figure:
    groups = {
        NAMES[rule]: ([row for row in lines[1:] if row["key"].startswith(rule)], look(LOOK[rule]["color"], marker))
        for rule, marker in MARKERS.items()
    }
    return residuals(groups, "success rate")
