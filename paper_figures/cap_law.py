"""The cap law against LocMoE's bound: where the bound holds, where it fails, and what it is about."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import LOOK, canvas

DATA = ("figures/cap_law.json",)
CAPTION = """LocMoE's Theorem 1 rests on P(|cos| ≥ δ) < exp(-dδ²/(2-δ²)). Left: the bound over the exact probability.
It holds for every d ≥ 3, growing loose with d, and fails for d = 2 between δ = .742 and .960 (shaded). Right: what it
bounds, for d = 64 and n = 8: the expected number of tokens until one passes the threshold of some expert. The exact
number is far larger, the bound says nothing below 1, and to be 95 % sure takes about three times the expectation. Exact
laws, no simulation."""


def draw(data: dict[str, Any]) -> Figure:
    figure, (left, right) = canvas(9.5, 3.7, columns=2)
    threshold = np.array(data["threshold"])
    dashes = ["-", (0, (6, 2)), (0, (3, 1.2, 1, 1.2)), (0, (1, 1.2)), (0, (8, 2, 1, 2, 1, 2))]
    colours = ["#B33C00", "#E69F00", "#0B7A5C", "#4AA3D8", "#0B3C6F"]
    for dim, ratio, dash, colour in zip(data["dims"], data["bound_over_cap"], dashes, colours):
        values = np.array(ratio)
        left.plot(threshold, values, linestyle=dash, color=colour, label=f"d = {dim}")
        if (values < 1).any():
            left.fill_between(threshold, values, 1, where=values < 1, color=colour, alpha=0.4, hatch="///", linewidth=0)
            left.annotate("bound fails", (0.86, 0.9), (0.62, 0.6), arrowprops={"arrowstyle": "-", "linewidth": 0.8})
    left.axhline(1, color="black", linewidth=0.9)
    left.set_yscale("log")
    left.set_ylim(0.5, 20)
    left.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    left.minorticks_off()
    left.set_xlim(0, 1)
    left.set_xlabel("threshold δ")
    left.set_title("LocMoE's bound against the truth")
    left.set_ylabel("bound / exact probability")
    left.legend(loc="upper left")
    for key, look, label in (
        ("surely", "resonance", f"exact, to be {100 * data['sure']:g} % sure"),
        ("expected", "exact", "exact, expected"),
        ("bound", "printed", "LocMoE's bound"),
    ):
        style = LOOK[look]
        if key == "surely":  # a whole number of tokens
            style = {**style, "linestyle": (0, (3, 1.2, 1, 1.2)), "drawstyle": "steps-mid"}
        right.plot(data["waiting_threshold"], data[key], label=label, **style)
    right.axhline(1, **LOOK["guide"])
    right.axvspan(0, data["binds_from"], color="0.9", linewidth=0)
    right.annotate("bound below 1", (0.02, 3e3), fontsize=8)
    right.set_yscale("log")
    right.set_xlim(0, 0.6)
    right.set_ylim(0.1, 1e6)
    right.set_xlabel("threshold δ")
    right.set_ylabel("tokens until a useful one")
    right.set_title(f"d = {data['dim']}, n = {data['experts']}")
    right.legend(loc="upper center")
    return figure
