"""What "40 % fewer tokens per expert" asks of the affinity percentile."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import LOOK, canvas

DATA = ("figures/capacity_saving.json",)
CAPTION = """At the same success rate, τ = 0.95 of the hit rate, resonance needs fewer tokens per expert than token choice by
the fraction 1 - ρ/τ in the limit of long samples, less in short ones, where ρ is the discriminative token's percentile
among its expert's candidates (left): the published 40 % needs ρ of at most 0.6τ, the 60 % at most 0.4τ, and beyond ρ = τ
resonance needs more. Where the percentile is random (right: planted tokens, d = 64, s = 4096, signals θ/σ beside the
points) the saving follows its τ-quantile and not its mean. Exact capacities and limits, no simulation; n = 8, one expert
per token."""


def against_percentile(axes: Any, data: dict[str, Any]) -> None:
    """Saving at a fixed percentile, at several lengths and in the limit, with the published savings."""
    target, percentile = data["target"], np.array(data["percentile"])
    axes.plot(percentile, 100 * np.array(data["limit"]), label="limit $1-\\rho/\\tau$", **LOOK["exact"])
    for saving, tokens, look in zip(data["saving"], data["tokens"], ("token_choice", "sharp", "other")):
        axes.plot(percentile, 100 * np.array(saving), label=f"s = {tokens}", **LOOK[look])
    for published, place in ((40, 0.6), (60, 0.4)):
        axes.plot([0, place * target, place * target], [published, published, 0], **LOOK["guide"])
        axes.plot(place * target, published, "o", color="black", markersize=4)
        axes.annotate(
            f"published {published} %: ρ ≤ {place:g}τ",
            (place * target, published),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=8.5,
        )
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set_xlim(0, 1)
    axes.set_ylim(-20, 100)
    axes.set_xlabel("affinity percentile ρ (0 = best candidate)")
    axes.set_ylabel("tokens per expert saved, %")
    axes.legend(loc="upper right")


def draw(data: dict[str, Any]) -> Figure:
    figure, (left, right) = canvas(9, 3.6, columns=2)
    against_percentile(left, data)
    left.set_title("fixed percentile")
    planted = data["planted"]
    target = data["target"]
    right.plot(data["percentile"], 100 * np.array(data["limit"]), label="limit $1-\\rho/\\tau$", **LOOK["exact"])
    saving = [100 * row["saving"] for row in planted]
    edge = {"linestyle": "", "markeredgecolor": "black", "markeredgewidth": 0.7, "markersize": 6}
    right.plot(
        [row["quantile"] for row in planted],
        saving,
        "s",
        color="#0072B2",
        label=f"{100 * target:g} %-quantile of ρ",
        **edge,
    )
    right.plot([row["mean"] for row in planted], saving, "o", color="#F5C04A", label="mean of ρ", **edge)
    for row, value in zip(planted, saving):
        right.annotate(
            f"{'θ/σ = ' if row is planted[0] else ''}{row['signal']:g}",
            (row["quantile"], value),
            xytext=(7, 2),
            textcoords="offset points",
            fontsize=8,
        )
    right.set_xlim(0, 1)
    right.set_ylim(-20, 100)
    right.set_xlabel("affinity percentile ρ of planted tokens")
    right.set_ylabel("tokens per expert saved, %")
    right.set_title("random percentile")
    right.legend(loc="upper right")
    return figure
