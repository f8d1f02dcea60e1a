"""Do experts receive tokens that resemble each other? Distances of pairs, of all and of those that share an expert."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import EDGE, RULES, arms, bars, course
from resonance_theory._style import canvas

DATA = ("homogenization_training.jsonl",)
CAPTION = """Pairs of tokens of a mosaic that one expert keeps are closer than pairs in general, before training and after.
Left and middle: mean distance (1 - cosine) while networks train, free and fixed GrAP gates; black: all pairs, which no routing
changes. Right: distribution at the end of training, free gates (deciles). Measured, not modelled; mean of 30 runs, bars: 99 %
Student intervals; four experts, C = 2, mosaics of 16 digits."""


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    figure, (free, grap, deciles) = canvas(11.5, 3.9, columns=3)
    every: dict[str, Any] = {"color": "black", "marker": "D", "linestyle": "-"}
    for panel, gates, title in ((free, "free", "free gates"), (grap, "grap", "fixed GrAP gates")):
        course(panel, found[f"resonance, {gates}"], "token distance", label="all pairs", **every)
        for place, (rule, (name, look)) in enumerate(RULES.items()):
            arm = found[f"{rule}, {gates}"]
            course(panel, arm, "token distance at one expert", shift=0.012 * (place - 1.5), label=name, **look)
        panel.set_title(title)
        panel.set_xlabel("steps of training")
        panel.set_ylabel("mean distance, 1 - cosine")
    grap.sharey(free)
    levels = range(1, 10)
    for rule, label, name, look in (
        ("resonance", "token distance", "all pairs", every),
        *((rule, "token distance at one expert", name, look) for rule, (name, look) in RULES.items()),
    ):
        values = [found[f"{rule}, free"]["metrics"][f"{label}, decile {k} @end"] for k in levels]
        style = {**EDGE, "markersize": 4, **look, "label": name}
        deciles.errorbar([m["mean"] for m in values], [k / 10 for k in levels], xerr=bars(values), **style)
    deciles.set_title("free gates, at the end")
    deciles.set_xlabel("distance, 1 - cosine")
    deciles.set_ylabel("share of pairs at most so far apart")
    deciles.set_ylim(0, 1)
    handles, labels = free.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure
