"""Digits among digits with fewer images, more patches, two experts a token and fixed gates: accuracy by tokens processed."""

from __future__ import annotations

import re
from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import RULES, Row, arms, bars, points
from resonance_theory._style import LOOK, canvas

DATA = ("digits_scaling.jsonl",)
CAPTION = """Resonance stays far ahead of token choice at the same number of processed tokens with fewer images, more patches and
two experts a token, if gates are learned. First: accuracy against the share of the training images that are used (C = 2).
Second: against the tokens processed, counted once for each expert that does, with 16 and 36 patches (larger marks) and one or
two experts a token. Last: fixed GrAP gates, which nothing teaches where the label is, against free ones. The dense network is
one expert as wide as all. Measured, mean of 20 trainings of 400 steps, bars: 99 % Student intervals; four experts; networks of
at most five thousand weights."""

_DENSE = {"label": "dense, parameters of all experts", **LOOK["other"], "marker": "D"}
_KINDS = (  # arms of one panel: label after the rule, size of marks, filling
    (r", 36 patches C=\d+", 7, None),
    (r", Top-1 C=\d+", 4, None),
    (r", Top-2 C=\d+", 4, "white"),
)


def _accuracy(panel: Any, rows: list[Row], places: list[float], **style: Any) -> None:
    points(panel, places, [row["metrics"]["accuracy"] for row in rows], **style)


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)

    def named(pattern: str) -> list[Row]:
        return [row for label, row in found.items() if re.fullmatch(pattern, label)]

    figure, (images, processed, gates) = canvas(11.5, 4.1, columns=3, sharey=True)
    shown = {**RULES, "dense": (_DENSE["label"], {k: v for k, v in _DENSE.items() if k != "label"})}
    for rule, (name, look) in shown.items():
        rows = named(rf"{rule}, [\d.]+ of images")
        _accuracy(images, rows, [row["parameters"]["train_share"] for row in rows], label=name, **look)
        for pattern, size, face in _KINDS:
            rows = named(rf"{rule}{pattern}" if rule != "dense" else r"dense, 36 patches")
            if rule == "dense" and size != 7:
                continue
            x = [row["metrics"]["processed"] for row in rows]
            style = {**look, "markersize": size, "xerr": bars(x)} | ({"markerfacecolor": face} if face else {})
            if rows:
                _accuracy(processed, rows, [m["mean"] for m in x], **style)
    order = [rule for rule in RULES if f"{rule}, GrAP" in found]
    for place, rule in enumerate(order):
        name, look = RULES[rule]
        style = {**look, "linestyle": ""}
        free = found.get(f"{rule}, 1 of images")
        if free is not None:
            _accuracy(gates, [free], [place - 0.15], **style)
        _accuracy(gates, [found[f"{rule}, GrAP"]], [place + 0.15], **{**style, "markerfacecolor": "white"})
    images.set_xlabel("share of the training images")
    images.set_ylabel("accuracy on new mosaics")
    images.set_xlim(0, 1.05)
    images.set_ylim(0, 1.02)
    images.set_title("fewer images")
    processed.set_xlabel("tokens processed in a mosaic")
    processed.set_xlim(left=0)
    processed.set_title("hollow: two experts a token")
    gates.set_xticks(range(len(order)), [RULES[rule][0].replace(" ", "\n") for rule in order])
    gates.set_xlim(-0.6, len(order) - 0.4)
    gates.set_xlabel("filled: free gates; hollow: GrAP")
    gates.set_title("fixed gates")
    figure.legend(*images.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
