"""Real hidden states: how far each model of the load predicts the drops, layer by layer, raw and centred."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import canvas

DATA = ("figures/real_tokens.json",)
CAPTION = """On hidden states of a real encoder the uniform, independent loads of ETR's Assumption 4 predict far too few
drops: with raw GrAP gates as a common mean skews the loads, after centring as neighbouring tokens share experts.
Measured shares repair the first, the measured over-dispersion both. Points: fraction of tokens dropped at capacity
factors 1, 1.1, 1.25 and 2, from the right; on the line the prediction is right. Measured by the audit of the embedded
example (8 sequences of 256 tokens, d = 384, n = 8), bars of three standard errors (jackknife over sequences); the models
use the measured load's mean, or mean and variance, and nothing of the drops."""

_LOOK = {
    "uniform": ("o", "white", "binomial, uniform load"),
    "measured_load": ("^", "#F0A03C", "binomial, measured load"),
    "beta_binomial": ("s", "#0B7A5C", "beta-binomial"),
    "blocks": ("D", "none", "blocks of neighbours"),
}


def draw(data: dict[str, Any]) -> Figure:
    layers = data["layers"]
    figure, panels = canvas(9.5, 6.4, rows=2, columns=len(layers), sharex="row", sharey="row")
    for row, kind in zip(panels, ("raw", "centred")):
        limit = 0.0
        for axes, layer in zip(row, layers):
            entry = layer[kind]
            measured = 100 * np.array(entry["measured"])
            error = 100 * np.array([0.0 if e is None else e for e in entry["error"]])  # none where nothing was dropped
            axes.plot([0, 100], [0, 100], color="black", linewidth=0.8)
            for model in data["models"]:
                marker, colour, label = _LOOK[model]
                predicted = 100 * np.array(entry[model])
                axes.errorbar(
                    measured,
                    predicted,
                    xerr=3 * error,
                    fmt=marker,
                    label=label,
                    zorder=2 if model == "blocks" else 3,  # the large hollow mark behind the others
                    color="#7A2F9C" if model == "blocks" else "black",
                    markerfacecolor=colour,
                    markersize=9 if model == "blocks" else 5,
                    ecolor="0.55",
                    elinewidth=0.9,
                    capsize=2,
                )
                limit = max(limit, float((measured + 3 * error).max()), float(predicted.max()))
            axes.set_title(f"{layer['name']}, {kind}")
        row[0].set(xlim=(-0.03 * limit, 1.03 * limit), ylim=(-0.03 * limit, 1.03 * limit))
    for axes in panels.flat:
        axes.set_aspect("equal")
        axes.tick_params(labelbottom=True, labelleft=True)
        axes.set_xlabel("measured drop, %")
        axes.set_ylabel("predicted drop, %")
    panels[0, 0].legend(loc="upper left", handlelength=1.2)
    return figure
