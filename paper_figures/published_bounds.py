"""Token choice: the printed bounds (ETR Theorem 5, eq. 11) against the exact law and the sharp bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import LOOK, canvas

DATA = ("figures/published_bounds.json",)
CAPTION = """The lower bound Cn/(5s) that is printed for token choice (ETR Theorem 5, eq. 11) exceeds the true success
rate once the capacity is large (left, shaded) and is up to 5 times too low where it is true; the printed upper bound is
10 times too high or more (middle). The sharp bounds and the Poisson bound hold everywhere and stay close
(right). Curves: exact law and bounds, no simulation; success given a hit, one expert per token."""


def against_capacity(axes: Any, data: dict[str, Any]) -> None:
    """Rates at a short sample, with the region where the printed bound is false."""
    capacity, exact, printed = (np.array(data[key]) for key in ("capacity", "exact", "published_low"))
    axes.fill_between(
        capacity, data["sharp_low"], data["sharp_high"], color="#56B4E9", alpha=0.45, linewidth=0, label="sharp bounds"
    )
    axes.plot(capacity, exact, label="exact law", **LOOK["exact"])
    axes.plot(capacity, printed, label="printed lower bound, $Cn/(5s)$", **LOOK["printed"])
    axes.fill_between(
        capacity, exact, printed, where=printed > exact, color="#D55E00", alpha=0.18, linewidth=0, hatch="///"
    )
    axes.annotate("printed bound\nexceeds the truth", (80, 1.4), ha="right", color=LOOK["printed"]["color"])
    axes.set_xlabel("capacity C (tokens per expert)")
    axes.set_ylabel("success rate / hit rate")
    axes.set_xlim(0, data["tokens"])
    axes.set_ylim(0, 1.65)
    axes.legend(loc="lower right")


def draw(data: dict[str, Any]) -> Figure:
    figure, (left, middle, right) = canvas(11, 3.6, columns=3, width_ratios=(1.25, 1, 1))
    against_capacity(left, data["small"])
    left.set_title(f"s = {data['small']['tokens']} tokens, n = {data['small']['experts']} experts")
    for axes, setting, key, look, label in (
        (middle, "large", "published_high", "printed", "printed, upper and lower"),
        (middle, "large", "published_low", "printed", None),
        (right, "small", "sharp_high", "sharp", "sharp, upper and lower"),
        (right, "small", "sharp_low", "sharp", None),
        (right, "small", "poisson_low", "other", "Poisson, lower"),
    ):
        curves = data[setting]
        factor = np.array(curves["capacity"]) * curves["experts"] / curves["tokens"]
        axes.plot(factor, np.array(curves[key]) / np.array(curves["exact"]), label=label, **LOOK[look])
        axes.set_xlim(factor[0], factor[-1])
    for axes in (middle, right):
        axes.axhline(1, label="exact law", **{**LOOK["exact"], "linewidth": 0.9})
        axes.set_xlabel("capacity factor $Cn/s$")
        axes.set_ylabel("bound / exact law")
    middle.set_xscale("log")
    middle.set_yscale("log")
    middle.set_ylim(0.1, 100)
    middle.set_yticks([0.1, 0.2, 1, 10, 100], ["0.1", "0.2", "1", "10", "100"])
    middle.set_title(f"as printed, s = {data['large']['tokens']}")
    middle.legend(loc="upper left")
    right.set_ylim(0.85, 1.15)
    right.set_title(f"sharp, s = {data['small']['tokens']}")
    right.legend(loc="lower right")
    return figure
