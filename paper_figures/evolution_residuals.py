"""The exact laws of an evolving token distribution against simulation through the extractor and the router."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._residuals import draw as residuals
from paper_figures._residuals import look
from resonance_theory._style import LOOK, MARKERS, NAMES

DATA = ("evolution.jsonl", "adaptive_evolution.jsonl")
CAPTION = """At every time of an Ornstein-Uhlenbeck flow the exact laws agree with simulation through extractor and
router: isotropic tokens, a common mean that skews the loads, clusters at the gates, and classes that start off the gates;
s = 64, n = 4 and 8, d = 32 and 64, times 0.1 to 3. First load: the rate at which a background token chooses the first
expert; adaptive: success and background kept where experts keep a share of the affinity. Right: differences in units of
the smallest error that each run detects with certainty (false alarms below 1e-6 over all its rates, missed errors as rare);
bars are the simulation's intervals at that level, 14 400 samples a point, 40 000 adaptive; a wrong law lies outside ±1."""


def draw(lines: list[dict[str, Any]], adaptive: list[dict[str, Any]]) -> Figure:
    looks = {rule: (NAMES[rule], look(LOOK[rule]["color"], marker)) for rule, marker in MARKERS.items()}
    looks["first expert"] = ("first load", look("0.85", "D"))
    looks["success"] = ("adaptive, success", look("#0B7A5C", "P"))
    looks["background kept"] = ("adaptive, kept", look("white", "X"))
    rows = [*lines[1:], *adaptive[1:]]
    groups = {name: ([row for row in rows if row["key"] == key], style) for key, (name, style) in looks.items()}
    return residuals(groups, "rate")
