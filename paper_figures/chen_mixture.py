"""A published mixture of experts, rerun: accuracy and entropy of the routing, beside the published means."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paper_figures._training import EDGE, arms, bars
from resonance_theory._style import canvas

DATA = ("chen_mixture.jsonl",)
CAPTION = """Chen et al.'s mixture (arXiv 2208.02813, setting 1) trained anew: the published means (diamonds) are met with the
details of the published code, not with those of the text; at capacity factor 1 every rule leaves a third of the examples to
no expert, which counts as a wrong answer. Left: test accuracy (hollow: without the router's noise). Right: entropy of the
dispatch of clusters to experts on the training set (0: one expert a cluster). Measured, mean of ten initialisations, bars:
99 % Student intervals of each mean; the study's margins around the published values, fixed beforehand: .03 and .05 in
accuracy, .3 in entropy."""


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    names = list(found)
    figure, (left, right) = canvas(11, 1.2 + 0.36 * len(names), columns=2, sharey=True)
    for panel, metric, face, shift, label in (
        (left, "accuracy", "#0B3C6F", -0.1, "measured"),
        (left, "accuracy without noise", "white", 0.12, "without the router's noise"),
        (right, "training entropy", "#0B3C6F", 0.0, "measured"),
    ):
        known = [i for i, name in enumerate(names) if metric in found[name]["metrics"]]
        values = [found[names[i]]["metrics"][metric] for i in known]
        style = {"fmt": "o", "color": "#0B3C6F", "markerfacecolor": face, "label": label}
        panel.errorbar([m["mean"] for m in values], np.array(known) + shift, xerr=bars(values), **{**EDGE, **style})
        published = [line for line in lines if "published" in line and line["metric"] == metric]
        if published:
            panel.plot(
                [line["published"] for line in published], [names.index(line["first"]) - 0.28 for line in published], "D",
                color="#E69F00", markeredgecolor="black", markersize=6, label="published",
            )  # fmt: skip
    left.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    left.set_ylim(len(names) - 0.5, -0.6)
    left.set_xlabel("test accuracy")
    right.set_xlabel("entropy of the dispatch, nats")
    right.set_xlim(left=-0.03)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
