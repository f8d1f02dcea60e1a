"""Hit rate, success and least capacity along one training, measured and foretold."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import LOOK, MARKERS, NAMES, canvas

DATA = ("planted_phases.jsonl",)
CAPTION = """Along one training the exact laws foretell success and the least capacity of every rule (points: routers, on
other samples; here GrAP gates after a learned orthogonal map). Independent background (above): the binomial law and the exact
mixture coincide; resonance's capacity falls to a third of its first value while token choice's stays, and the mean percentile
ρ promises too little, as success follows ρ's whole law (N4, N9). Background that shares half its variance within each sample
(below): the binomial law (thin) fails, the mixture over the measured counts (thick) holds (N11). Measured in
training, s = 64, n = 4, d = 32; means of 10 runs."""
ROWS = {"independent": "independent background", "correlated": "background correlated within samples"}
KINDS = ("", " mixture", " law")  # measured, exact from the counts of whole samples, binomial


def draw(lines: list[dict[str, Any]]) -> Figure:
    rows = {row["arm"]: row for row in lines if "arm" in row}
    figure, panels = canvas(11.5, 6.6, rows=2, columns=3, sharex=True)
    for axes, (background, title) in zip(panels, ROWS.items()):
        row = rows[f"orthogonal, {background}, resonance"]
        steps, metrics = row["parameters"]["checkpoints"], row["metrics"]
        phases, success, capacity = axes
        phases.plot(steps, _means(metrics, "hit", steps), "D-", label="hit rate", markersize=4, color="black")
        phases.plot(steps, _means(metrics, "accuracy", steps), label="accuracy", marker="v", **LOOK["other"])
        phases.set_ylabel("share of samples")
        phases.set_title(title)
        for rule in MARKERS:
            _against_laws(success, rule, steps, [_means(metrics, f"{rule}{kind}", steps) for kind in KINDS])
        success.set_ylabel(f"success rate, C = {row['parameters']['capacity']}")
        for rule in ("token_choice", "resonance"):
            _against_laws(capacity, rule, steps, [_means(metrics, f"{rule} C*{kind}", steps) for kind in KINDS])
        mean_rho = _means(metrics, "resonance C* mean rho", steps)
        capacity.plot(steps, mean_rho, label="resonance, from its mean ρ", **LOOK["sharp"])
        capacity.set_ylabel(f"least capacity for {row['parameters']['target']:g} of the hit rate")
        for panel in (success, capacity):
            panel.set_title("points: routers; lines: laws")
        for panel in (phases, success):
            panel.set_ylim(0, 1.02)
        capacity.set_ylim(0, None)
    for panel in panels[0]:
        panel.legend(loc="best")
    for panel in panels[1]:
        panel.set_xlabel("training step")
    return figure


def _means(metrics: dict[str, Any], name: str, steps: list[int]) -> np.ndarray:
    return np.array([metrics[f"{name} @{step}"]["mean"] for step in steps])


def _against_laws(panel: Any, rule: str, steps: list[int], values: list[np.ndarray]) -> None:
    """Points as measured, a thick line for the exact mixture and a thin one for the binomial law."""
    measured, mixture, binomial = values
    panel.plot(steps, mixture, **LOOK[rule])
    panel.plot(steps, binomial, **{**LOOK[rule], "linewidth": 0.7})
    edge = {"markersize": 5, "markeredgecolor": "black", "markeredgewidth": 0.6}
    panel.plot(steps, measured, MARKERS[rule], color=LOOK[rule]["color"], label=NAMES[rule], **edge)
