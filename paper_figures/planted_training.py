"""A planted token in training: the exact laws, fed with single-token measurements, against the trained routers."""

from __future__ import annotations

import re
from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import EDGE, points
from resonance_theory._style import LOOK, MARKERS, NAMES, canvas

DATA = ("planted_training.jsonl",)
CAPTION = """At every stage of training the exact laws, fed with hit rate, q and h measured token by token at each
affinity, predict the router's success when tokens are independent (first panel: lines law, points router; last: difference,
within the margin of 0.02 that was set beforehand); fed with the mean q or h alone (thin lines) they do not. Where half of
each background token's variance is common to its sample (second) they fail, as they must. Measured in training, s =
64, C = 8, n = 4, d = 32; mean of 20 runs; bars: 99 % Student intervals, of the runs' own spread (first two) and simultaneous
ones of the paired differences (last)."""


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, axes = canvas(11.5, 3.9, columns=3)
    for panel, background in zip(axes, ("independent", "correlated")):
        rows = [row for row in lines if re.fullmatch(rf"{background}, \d+ steps", row.get("arm", ""))]
        steps = [row["parameters"]["steps"] for row in rows]
        for place, (rule, marker) in enumerate(MARKERS.items()):
            panel.plot(
                steps,
                [row["metrics"][f"{rule} law"]["mean"] for row in rows],
                **LOOK[rule],
            )
            if f"{rule} scalar" in rows[0]["metrics"]:
                thin = {**LOOK[rule], "linewidth": 0.7}
                panel.plot(
                    steps,
                    [row["metrics"][f"{rule} scalar"]["mean"] for row in rows],
                    **thin,
                )
            measured = [row["metrics"][rule] for row in rows]
            style = {"fmt": marker, "color": LOOK[rule]["color"], "label": f"{NAMES[rule]}, router"}
            points(panel, [step + 14 * (place - 1) for step in steps], measured, **style)
        panel.set_title(f"{background} background")
        panel.set_ylabel("success rate")
        panel.set_ylim(0, 0.85)
    _differences(axes[2], lines)
    for panel in axes:
        panel.set_xlabel("steps of training")
    for width, label in ((1.6, "law"), (0.7, "law of the mean rates")):
        axes[0].plot([], [], color="0.2", linewidth=width, label=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _differences(panel: Any, lines: list[dict[str, Any]]) -> None:
    """Router minus law, as the study compared them: filled for independent background, hollow for correlated."""
    panel.axhline(0, color="black", linewidth=0.8)
    for place, (rule, marker) in enumerate(MARKERS.items()):
        for background, face in (("independent", LOOK[rule]["color"]), ("correlated", "white")):
            rows = [row for row in lines if row.get("metric") == rule and row["against"] == f"{rule} law"]
            rows = [row for row in rows if row["first"].startswith(background)]
            panel.errorbar(
                [int(row["first"].split()[1]) + 14 * (place - 1) for row in rows],
                [row["difference"] for row in rows],
                [[r["difference"] - r["low"] for r in rows], [r["high"] - r["difference"] for r in rows]],
                fmt=marker,
                color=LOOK[rule]["color"],
                **{**EDGE, "markerfacecolor": face, "markeredgecolor": LOOK[rule]["color"], "markeredgewidth": 1.1},
            )
    for row in lines:
        if row.get("expect") == "equal":
            for sign in (-1, 1):
                panel.axhline(sign * row["margin"], **LOOK["guide"])
            break
    panel.annotate("hollow: correlated background", (300, 0.09), ha="center", fontsize=8)
    panel.annotate("filled: independent", (300, 0.025), ha="center", fontsize=8)
    panel.set_ylim(-0.03, 0.17)
    panel.set_ylabel("success rate, router - law")
    panel.set_title("difference")
