"""Do experts of a small language model grow apart in training? Scatter, information and likeness, by rule, gates and loss."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import RULES, arms, course
from resonance_theory._style import LOOK, canvas

DATA = ("language_homogenization.jsonl",)
CAPTION = """A byte-level language model with four experts a layer, along 200 steps of training, by rule (fixed GrAP gates; token
choice has 1.1 slots a token, the others .66): between over within scatter of the tokens that experts keep (ETR eq. 13), mutual
information of a kept token's byte and expert, linear CKA of the experts' outputs on the same tokens (1: alike), and the
heaviest expert's share of the tokens; under resonance also from near copies of one expert and without the loss for balance.
Measured, not modelled, in one small network whose mixture does not beat its dense baseline; mean of seven runs and both layers,
bars: 95 % Student intervals of each mean, not of the paired differences compared."""

_ARMS = {
    "token_choice": "LocMoE",
    "expert_choice": "expert choice",
    "resonance": "resonance",
    "random_keep": "random keep",
}
_PANELS = (
    ("calinski-harabasz", "kept tokens", "between / within scatter"),
    ("byte information", "kept tokens", "information on the byte, nats"),
    ("cka", "experts", "likeness of experts (CKA)"),
    ("heaviest share", "loads", "heaviest expert's share"),
)


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    figure, panels = canvas(12.5, 3.8, columns=4)
    for panel, (metric, title, label) in zip(panels, _PANELS):
        for place, (rule, arm) in enumerate(_ARMS.items()):
            name, look = RULES[rule]
            course(panel, found[arm], metric, shift=0.012 * (place - 1.5), label=name, **look)
        panel.set_title(title)
        panel.set_ylabel(label)
        panel.set_xlabel("steps of training")
    other = {**LOOK["other"], "marker": "D"}
    course(panels[2], found["resonance, copies"], "cka", shift=0.03, label="resonance, near copies", **other)
    other = {**LOOK["printed"], "marker": "X"}
    course(
        panels[3], found["resonance, no balance loss"], "heaviest share", label="resonance, no balance loss", **other
    )
    for panel, top in zip(panels, (0.52, 1.3, 1.05, 1.05)):
        panel.set_ylim(0, top)
    handles = {text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6)
    return figure
