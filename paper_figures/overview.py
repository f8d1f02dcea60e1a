"""The picture of the README: a published bound against the truth, and what a published saving asks for."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures.capacity_saving import against_percentile
from paper_figures.published_bounds import against_capacity
from resonance_theory._style import canvas

DATA = ("figures/published_bounds.json", "figures/capacity_saving.json")
CAPTION = """Left: the lower bound printed for token choice (ETR Theorem 5, eq. 11) exceeds the exact success rate at
large capacity; s = 100, n = 8. Right: the published savings of 40 % and 60 % need the discriminative token among the best
.6τ and .4τ of its expert's candidates, in the limit of long samples, and better still in short ones; n = 8, τ = .95. Exact
laws, no simulation."""


def draw(bounds: dict[str, Any], saving: dict[str, Any]) -> Figure:
    figure, (left, right) = canvas(9, 3.5, columns=2)
    against_capacity(left, bounds["small"])
    left.set_title("A published bound, and the truth")
    against_percentile(right, saving)
    right.set_title("What a published saving asks for")
    return figure
