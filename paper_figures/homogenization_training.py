"""Do experts grow apart in training? The ratio of scatters and the experts' likeness, by rule and by gates."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import RULES, arms, course
from resonance_theory._style import canvas

DATA = ("homogenization_training.jsonl",)
CAPTION = """Between over within scatter of the tokens that experts keep (ETR eq. 13) while networks train on mosaics of
digits, by rule and gates: at given gates (fixed GrAP; step 0 of all) keeping by affinity raises it (proved for isotropic
tokens); for trained gates no theorem speaks, and at their end no difference between the rules is shown. Last: experts that
start as near copies, linear CKA of their outputs on the same tokens (1: alike). Measured, not modelled; mean of 30 runs, bars:
99 % Student intervals; four experts, C = 2, half the mean load."""

_GATES = {"free": "free gates", "grap": "fixed GrAP gates", "orthogonal": "GrAP behind a learned map"}


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    figure, panels = canvas(12.5, 3.8, columns=4)
    for panel, (gates, title) in zip(panels, _GATES.items()):
        for place, (rule, (name, look)) in enumerate(RULES.items()):
            arm = found[f"{rule}, {gates}"]
            course(panel, arm, "calinski-harabasz", shift=0.012 * (place - 1.5), label=name, **look)
        panel.set_title(title)
        panel.set_ylabel("between / within scatter")
        panel.sharey(panels[0])
    panels[0].set_ylim(bottom=0)
    for place, (rule, (name, look)) in enumerate(RULES.items()):
        course(panels[3], found[f"{rule}, free, copies"], "cka", shift=0.012 * (place - 1.5), label=name, **look)
    panels[3].set_title("near copies at the start, free gates")
    panels[3].set_ylabel("likeness of experts (CKA)")
    panels[3].set_ylim(0, 1.05)
    for panel in panels:
        panel.set_xlabel("steps of training")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
