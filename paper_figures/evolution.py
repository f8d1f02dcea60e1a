"""Capacity and success along an evolving token distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import LOOK, MARKERS, NAMES, canvas

DATA = ("figures/evolution.json",)
CAPTION = """As tokens flow from isotropy to clusters, the least capacity of resonance falls while that of token choice,
for the same share τ = 0.95 of the hit rate, does not (first panel): the published savings of 40 % and 60 % are reached at
definite times (second). On a planted flow expert choice is at least as good as resonance, and resonance as token choice,
at every time, so no early phase favours token choice (third); where class means lie mostly off the gates the order
reverses late (last). Exact laws at each marked time, no simulation; d = 64, n = 8, Ornstein-Uhlenbeck flow."""


def draw(data: dict[str, Any]) -> Figure:
    figure, axes = canvas(12.5, 3.5, columns=4)
    time = data["time"]
    axes[0].axhline(data["least_token_choice"], label=NAMES["token_choice"], **LOOK["token_choice"])
    axes[0].plot(time, data["least_resonance"], marker="s", markersize=3, label=NAMES["resonance"], **LOOK["resonance"])
    axes[0].set_ylim(0, 1.12 * data["least_token_choice"])
    axes[0].set_ylabel("least capacity (tokens per expert)")
    axes[0].set_title(f"capacity, s = {data['least_tokens']}")
    axes[0].legend(loc="center right")
    saving = 100 * np.array(data["saving"])
    axes[1].plot(time, saving, marker="s", markersize=3, **LOOK["resonance"])
    for published in (40, 60):
        reached = float(np.interp(published, saving, time))
        axes[1].plot([0, reached, reached], [published, published, 0], **LOOK["guide"])
        # right of both guides
        axes[1].annotate(f"{published} % at t ≈ {reached:.1f}", (3.4, published), va="center")
    axes[1].set_ylim(0, 100)
    axes[1].set_ylabel("tokens per expert saved, %")
    axes[1].set_title("resonance against token choice")
    for panel, key, title in (
        (axes[2], "planted", "class means on the gates"),
        (axes[3], "off", "mostly off the gates"),
    ):
        for rule, marker in MARKERS.items():
            panel.plot(time, data[key][rule], marker=marker, markersize=3.5, label=NAMES[rule], **LOOK[rule])
        panel.plot(time, data[key]["hit"], label="hit rate", **LOOK["guide"])
        panel.set_ylim(0, 1.05)
        panel.set_ylabel(f"success rate, s = {data['tokens']}, C = {data['capacity']}")
        panel.set_title(title)
    axes[2].legend(loc="lower right")
    axes[3].legend(loc="upper right", bbox_to_anchor=(1, 0.86))
    for panel in axes:
        panel.set_xlim(0, 10.2)
        panel.set_xlabel("time t (rate 0.5)")
    return figure
