"""The orthogonal optimizer against its base and a control of random directions."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._dots import dots
from resonance_theory._style import canvas

DATA = ("orthogonal_experts.jsonl",)
METHODS = ("Adam", "averaged projectors", "joint projector", "random directions")
CAPTION = """Projecting steps away from the other experts' inputs costs loss, and, in full rank, moves experts no
further apart than projecting along random directions with the same eigenvalues does. Measured on four near-copy
experts; clusters of full or of low rank; bars: 95 % Student intervals of ten runs."""


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, panels = canvas(9, 2.7, columns=2)
    for panel, metric in zip(panels, ("distance", "loss")):
        dots(panel, lines, metric, [(world, [f"{m}, {world}" for m in METHODS]) for world in ("full rank", "low rank")])
    panels[0].set_xlabel("1 - mean cosine of two experts' outputs")
    panels[1].set_xlabel("loss on fresh tokens")
    panels[1].set_xscale("log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
