"""Expert choice, mixed or in groups of a modality, and what wrong decisions cost."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import arms, points
from resonance_theory._style import canvas

DATA = ("modality_groups.jsonl",)
CAPTION = """Four and four experts in groups beat eight mixed ones at equal operations, and both pay for wrong
decisions; one expert a modality does as well on this toy. Measured: error over the targets' mean square against the
share of decisions (token, expert) flipped at random; bars: 95 % Student intervals of eight runs."""
LAYOUTS = {
    "8 mixed": {"color": "#D55E00", "fmt": "o-"},
    "4 + 4": {"color": "#0B3C6F", "fmt": "s-"},
    "1 + 1": {"color": "#4AA3D8", "fmt": "^-"},
}


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, panel = canvas(5, 3)
    found = arms(lines)
    shares = found["4 + 4"]["parameters"]["noise"]
    for place, (name, style) in enumerate(LAYOUTS.items()):
        metrics = found[name]["metrics"]
        values = [metrics["error"], *(metrics[f"error, noise {share:g}"] for share in shares)]
        points(panel, [100 * share + 0.12 * (place - 1) for share in (0, *shares)], values, label=name, **style)
    panel.axhline(found["dense"]["metrics"]["error"]["mean"], color="0.35", linestyle="--", label="dense")
    panel.set_xlabel("wrong decisions (%)")
    panel.set_ylabel("error")
    panel.set_ylim(0)
    panel.legend(ncols=2)
    return figure
