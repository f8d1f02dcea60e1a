"""Chen et al.'s mixture from a router that knows nothing to its end: scatter, specialisation and likeness of the experts."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import RULES, arms, course
from resonance_theory._style import LOOK, canvas

DATA = ("chen_homogenization.jsonl",)
CAPTION = """Chen et al.'s mixture in training, by rule (capacity factor 1; published: nobody is turned away). At step 0 noise
alone chooses, and the index is that of chance. Left to right: between over within scatter of the examples that experts keep
(ETR eq. 13); information of the expert about an example's cluster (log 4 = 1.386: all); linear CKA of the experts' outputs
on the same examples (1: alike), for independent experts and for near copies. Measured, not modelled; mean of eight
initialisations, bars: 95 % Student intervals; 2,000 examples, an eighth of the published number. The scale of steps is linear
up to 10 and logarithmic beyond."""

_PANELS = (
    ("calinski-harabasz", "", "between / within scatter", "independent experts"),
    ("information", "", "information, nats", "independent experts"),
    ("cka", "", "likeness of experts (CKA)", "independent experts"),
    ("cka", ", copies", "likeness of experts (CKA)", "near copies at the start"),
)


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    figure, panels = canvas(12.5, 3.8, columns=4)
    looks = {"published": ("published router", {**LOOK["exact"], "marker": "D"}), **RULES}
    for panel, (metric, copies, label, title) in zip(panels, _PANELS):
        for rule, (name, look) in looks.items():
            if f"{rule}{copies}" in found:
                course(panel, found[f"{rule}{copies}"], metric, label=name, **look)
        panel.set_xscale("symlog", linthresh=10)
        panel.set_xlabel("steps of training")
        panel.set_ylabel(label)
        panel.set_title(title)
        panel.set_ylim(0, 1.05 if metric == "cka" else None)
    bound = panels[1].axhline(math.log(4), **LOOK["guide"])
    panels[1].legend([bound], ["log 4"], loc="upper left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
