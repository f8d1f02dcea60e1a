"""Placement by inter-layer affinity on its own profile and on tokens that it has not seen."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import arms, points
from resonance_theory._style import canvas

DATA = ("affinity_placement.jsonl",)
CAPTION = """A placement crosses less on the tokens that it was fitted to than on others; the gap closes with the
profile. Measured: share of the steps from a layer to the next that change device, on 32 layers of 64 experts, as many
devices, so that every placement is optimal for its profile; bars: 95 % Student intervals of eight runs, mostly smaller
than the marks. Above all lies a random placement, at .984."""
SERIES = {
    "fresh": ("on new tokens", {"color": "#D55E00", "fmt": "o-"}),
    "best": ("best there is", {"color": "0.35", "fmt": "^--"}),
    "fitted": ("on its own profile", {"color": "#0B3C6F", "fmt": "s-"}),
}


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, panel = canvas(5, 3)
    worlds = [arm for label, arm in arms(lines).items() if label.startswith("world")]
    tokens = [arm["parameters"]["tokens"] for arm in worlds]
    for metric, (name, style) in SERIES.items():
        points(panel, tokens, [arm["metrics"][metric] for arm in worlds], label=name, **style)
    panel.set_xscale("log")
    panel.set_xticks(tokens, [f"{count:,}" for count in tokens])
    panel.minorticks_off()
    panel.set_xlabel("tokens of the profile")
    panel.set_ylabel("steps that change device")
    panel.legend()
    return figure
