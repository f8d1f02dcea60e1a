"""Does training bring the experts' tokens together? Planted tokens, free against orthonormal gates."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import RULES, arms, course
from resonance_theory._style import LOOK, canvas

DATA = ("planted_homogenization.jsonl",)
CAPTION = """Between over within scatter of the tokens that experts keep (ETR eq. 13) while networks learn to find one
planted token in 64. Free gates draw together under resonance and token choice (third panel; 1: orthonormal, 0: equal). A
common part of the gates changes no cell, so token choice keeps its scatter, but it changes which candidates resonance
prefers. Orthonormal gates keep the value of the closed forms for isotropic background (black lines; samples of 64
tokens, and expert choice), and the planted tokens add a little. Last: a background with a mean. Measured in training except
for the lines; means of 8 runs, bars: 99 % Student intervals of the runs' own spread; s = 64, n = 4, d = 32, C = 8."""

_PANELS = {
    "free, independent": "free gates",
    "orthogonal, independent": "orthonormal gates, and laws",
    "free, skewed": "free gates, skewed background",
}


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    figure, panels = canvas(12.5, 3.8, columns=4)
    indices = (panels[0], panels[1], panels[3])
    for panel, (key, title) in zip(indices, _PANELS.items()):
        _courses(panel, found, key, "calinski-harabasz")
        panel.set_title(title)
        panel.set_ylabel("between / within scatter")
        panel.set_ylim(0, 0.095)
    for rule in RULES:
        arm = found.get(f"orthogonal, independent, {rule}")
        if arm:
            law = arm["metrics"]["background calinski-harabasz law @0"]["mean"]
            label = "exact laws" if rule == "token_choice" else None
            panels[1].axhline(law, **{**LOOK["exact"], "linewidth": 0.9}, zorder=0, label=label)
    _courses(panels[2], found, "free, independent", "gate distance")
    panels[2].set_title("free gates")
    panels[2].set_ylabel("distance of two gates, 1 - cosine")
    panels[2].set_ylim(0, 1.2)
    for panel in panels:
        panel.set_xlabel("steps of training")
    labelled = {label: handle for p in panels[:2] for handle, label in zip(*p.get_legend_handles_labels())}
    figure.legend(labelled.values(), labelled, loc="outside lower center", ncols=5)
    return figure


def _courses(panel: Any, found: Any, key: str, metric: str) -> None:
    for place, (rule, (name, look)) in enumerate(RULES.items()):
        arm = found.get(f"{key}, {rule}")
        if arm:
            course(panel, arm, metric, shift=0.012 * (place - 1.5), label=name, **look)
