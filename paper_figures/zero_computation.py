"""Zero-computation experts: the share of feed-forward experts against the formula, and the layer's time against the share."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paper_figures._training import arms, points
from resonance_theory._style import canvas

DATA = ("zero_computation.jsonl", "zero_computation_time.json")
CAPTION = """The share of the choices that feed-forward experts get follows the formula only where the balance loss weighs enough:
the published weight leaves it to the task. Measured: left, the share after training against the formula, bars: 95 % Student
intervals of eight runs; right, forward time of one layer over that without zero-computation experts, medians with quartiles,
and the fitted line."""
WEIGHTS = {"": ("β = 0.01, as published", "#D55E00", "o"), ", β = 1": ("β = 1", "#0B3C6F", "s")}


def draw(lines: list[dict[str, Any]], record: dict[str, Any]) -> Figure:
    figure, (left, right) = canvas(6.6, 3, 1, 2)
    found = arms(lines)
    taus = [0.1, 0.25, 0.5, 0.75, 1.0]
    for place, (suffix, (label, colour, sign)) in enumerate(WEIGHTS.items()):
        metrics = [found[f"τ = {tau:g}{suffix}"]["metrics"] for tau in taus]
        x = [m["formula"]["mean"] + 0.006 * (2 * place - 1) for m in metrics]
        points(left, x, [m["ffn share"] for m in metrics], label=label, color=colour, fmt=sign)
    left.plot([0, 1], [0, 1], color="0.35", linestyle="--", label="the formula")
    left.set(xlim=(0.1, 0.75), ylim=(0, 1), xlabel="τF / (τF + Z)", ylabel="share of FFN experts")
    left.legend(loc="lower right")

    rows = record["rows"]
    share = np.array([row["share"] for row in rows])
    middle, low, high = (np.array([row[key] for row in rows]) for key in ("time", "low", "high"))
    right.errorbar(share, middle, yerr=[middle - low, high - middle], color="#0B3C6F", fmt="s", label="measured")
    ends = np.array([0, 1])
    fit = record["fixed"], record["slope"]
    right.plot(
        ends,
        fit[0] + fit[1] * ends,
        color="0.35",
        label=f"{fit[1]:.2f} share {fit[0]:+.2f}".replace("-", "− ").replace("+", "+ "),
    )
    right.set(xlim=(0, 1.05), ylim=(0, 1.25), xlabel="share of FFN experts", ylabel="relative time")
    right.legend(loc="upper left")
    return figure
