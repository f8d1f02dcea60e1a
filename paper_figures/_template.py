"""Start of a new figure: copy to `paper_figures/<name>.py`; `resonance figures <name>` finds it.

Numbers of theory come from a data set in simulations/figure_data/. When it looks right, `resonance figures --record`
stores its fingerprint, against which `resonance figures --check` compares it from then on.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from resonance_theory._style import LOOK, canvas

DATA = ("figures/published_bounds.json",)
CAPTION = """One sentence states what the figure shows to be true; another says which stored data it is drawn from."""


def draw(data: dict[str, Any]) -> Figure:
    figure, axes = canvas(5, 3)
    axes.plot(data["small"]["capacity"], data["small"]["exact"], label="exact law", **LOOK["exact"])
    axes.set_xlabel("capacity C (tokens per expert)")
    axes.set_ylabel("success rate")
    axes.legend()
    return figure
