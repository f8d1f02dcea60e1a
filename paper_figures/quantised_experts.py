"""What rounding a trained layer's experts costs, by the measure that decides their bits."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import EDGE, arms, bars
from resonance_theory._style import canvas

DATA = ("quantised_experts.jsonl",)
CAPTION = """At equal budget the error that rounding one expert alone causes is the best guide to its bits; multiplied by
frequency and gate weight, as published, it is no better. Measured: mean square error that rounding adds, over the targets' mean
square; bars: 95 % Student intervals of twelve runs."""
RULES = {
    "random": "0.55", "uniform": "0.25", "frequency": "#D55E00", "weight": "#E69F00", "product": "#4AA3D8", "error": "#0B3C6F",
}  # fmt: skip


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, panel = canvas(5.4, 3.1)
    (arm,) = arms(lines).values()
    budgets = arm["parameters"]["budgets"]
    for place, (rule, colour) in enumerate(RULES.items()):
        metrics = [arm["metrics"][f"{rule}, {budget} bits"] for budget in budgets]
        at = [budget + 0.3 * (place - 2.5) for budget in budgets]
        style = {**EDGE, "color": colour, "fmt": "so^vDP"[place], "label": rule}
        panel.errorbar(at, [m["mean"] for m in metrics], yerr=bars(metrics), **style)
    panel.set_xticks(budgets)
    panel.set(xlabel="bits of eight experts together", ylabel="error added by rounding")
    panel.set_ylim(0)
    panel.legend(ncols=2)
    return figure
