"""Trained routers on digits among digits: accuracy against the tokens that were computed on."""

from __future__ import annotations

import re
from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import RULES, Row, arms, bars, points
from resonance_theory._style import LOOK, canvas

DATA = ("digits_mosaics.jsonl",)
CAPTION = """Trained at the same number of processed tokens, keeping by affinity (resonance, expert choice) is far more
accurate than keeping by position (token choice) or at random, which are alike. At equal operations (C experts' slots)
resonance is ahead of a dense network at C = 1, and no difference is shown at C = 2 and 4. Right: most of it is whether the
label's image is processed at all; on the dashed line a network is right as often as the dense one if it is, and guesses
among five if not. Measured on mosaics of 16 digits, one of them the label; mean of 20 trainings, bars: 99 % Student
intervals; networks of at most five thousand weights."""

_LOOKS = {**RULES, "dense, operations of": ("dense, same operations", {**LOOK["other"], "marker": "D"})}


def _points(panel: Any, rows: list[Row], x: str, **style: Any) -> None:
    """Accuracies of several arms against another of their metrics, or their capacity, with both intervals."""
    if x == "capacity":
        places, across = [int(row["arm"].rsplit("=")[1]) for row in rows], None
    else:
        found = [row["metrics"][x] for row in rows]
        places, across = [value["mean"] for value in found], bars(found)
    points(panel, places, [row["metrics"]["accuracy"] for row in rows], xerr=across, **style)


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    figure, (tokens, capacity, label) = canvas(11.5, 3.9, columns=3, sharey=True)
    dense = found["dense, all parameters"]
    for rule, (name, look) in _LOOKS.items():
        mine = [row for arm, row in found.items() if re.fullmatch(rf"{rule} C=\d+", arm)]
        style = {"label": name, **look}
        _points(capacity, mine, "capacity", **style)
        if rule != "dense, operations of":
            _points(tokens, mine, "processed", **style)
            _points(label, mine, "label processed", **{**style, "linestyle": ""})
    star = {
        "marker": "*",
        "color": "white",
        "linestyle": "",
        "label": "dense, parameters of all experts",
        "zorder": 4,
        "markersize": 9,
    }
    _points(tokens, [dense], "processed", **star)
    _points(label, [dense], "label processed", **star)
    best = dense["metrics"]["accuracy"]["mean"]
    label.plot([0, 1], [0.2, best], **LOOK["guide"])
    tokens.set_xlabel("tokens processed, of 16")
    tokens.set_ylabel("accuracy on new mosaics")
    tokens.set_title("by tokens processed")
    capacity.set_xlabel("capacity C (slots per expert)")
    capacity.set_title("by operations")
    label.set_xlabel("share of mosaics whose label is processed")
    label.set_title("by what was processed")
    tokens.set_xlim(0, 16.6)
    capacity.set_xlim(0.6, 4.4)
    capacity.set_xticks([1, 2, 4])
    label.set_xlim(0, 1.03)
    tokens.set_ylim(0, 1.02)
    shown: dict[str, Any] = {}
    for panel in (capacity, tokens):
        shown |= dict(zip(*reversed(panel.get_legend_handles_labels())))
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3)
    return figure
