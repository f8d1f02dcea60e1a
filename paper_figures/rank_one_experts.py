"""Rank-one experts, LoRA and a mixture of LoRA at equal parameters."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._dots import dots
from resonance_theory._style import canvas

DATA = ("rank_one_experts.jsonl",)
CAPTION = """From the published start rank-one experts without a prior are no better than LoRA, as their output
vectors stay equal; with the prior, or a router drawn at random, they reach a mixture of LoRA where the tasks lie on
their grid, and not where they do not. Measured: mean square error over that of the frozen layer; about 1,410 trained
numbers each; bars: 95 % Student intervals of eight runs."""
METHODS = ("lora", "mixture", "rank one", "rank one, drawn", "rank one, prior")


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, panel = canvas(6, 2.9)
    dots(
        panel,
        lines,
        "error",
        [(f"tasks: {world}", [f"{m}, {world}" for m in METHODS]) for world in ("grid", "separate")],
    )
    panel.set_xlabel("error on fresh tokens (frozen layer: 1)")
    panel.set_xlim(0, 1)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
