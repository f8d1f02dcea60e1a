"""Hit rate, success and least capacity along one training, measured and foretold."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paper_figures._training import Row, arms, points
from resonance_theory._style import LOOK, MARKERS, NAMES, canvas

DATA = ("planted_phases.jsonl",)
CAPTION = """Along one training the exact laws foretell success and the least capacity of every rule (points: routers, on
other samples; here GrAP gates after a learned orthogonal map). Independent background (above): the binomial law and the exact
mixture coincide; resonance's capacity falls to a third of its first value while token choice's stays, and the mean percentile
ρ promises too little, as success follows ρ's whole law. Background that shares half its variance within each sample
(below): the binomial law (thin) fails, the mixture over the measured counts (thick) holds. Measured in
training, s = 64, n = 4, d = 32; means of 10 runs, bars: 99 % Student intervals of the runs' own spread, not of the paired
differences between router and law that the study tests."""
ROWS = {"independent": "independent background", "correlated": "background correlated within samples"}


def draw(lines: list[dict[str, Any]]) -> Figure:
    rows = arms(lines)
    figure, panels = canvas(11.5, 6.6, rows=2, columns=3, sharex=True)
    for axes, (background, title) in zip(panels, ROWS.items()):
        row = rows[f"orthogonal, {background}, resonance"]
        steps, metrics = row["parameters"]["checkpoints"], row["metrics"]
        phases, success, capacity = axes
        points(phases, steps, [metrics[f"hit @{s}"] for s in steps], label="hit rate", marker="D", **LOOK["exact"])
        points(
            phases,
            [s + 6 for s in steps],
            [metrics[f"accuracy @{s}"] for s in steps],
            label="accuracy",
            marker="v",
            **LOOK["other"],
        )
        phases.set_ylabel("share of samples")
        phases.set_title(title)
        for rule in MARKERS:
            _against_laws(success, row, rule, rule)
        for width, label in ((1.6, "exact mixture"), (0.7, "independent tokens")):
            capacity.plot([], [], color="0.2", linewidth=width, label=label)
        success.set_ylabel(f"success rate, C = {row['parameters']['capacity']}")
        for rule in ("token_choice", "resonance"):
            _against_laws(capacity, row, rule, f"{rule} C*")
        mean_rho = _means(metrics, "resonance C* mean rho", steps)
        capacity.plot(steps, mean_rho, label="resonance, from its mean ρ", **LOOK["sharp"])
        capacity.set_ylabel(f"least capacity for {row['parameters']['target']:g} of the hit rate")
        success.set_title("success: points routers, lines laws")
        capacity.set_title("least capacity")
        for panel in (phases, success):
            panel.set_ylim(0, 1.02)
        capacity.set_ylim(0, 1.6 * capacity.get_ylim()[1])
    for panel, place in zip(panels[0], ("upper left", "lower right", "upper right")):
        panel.legend(loc=place)
    for panel in panels[1]:
        panel.set_xlabel("training step")
    return figure


def _means(metrics: Row, name: str, steps: list[int]) -> np.ndarray:
    return np.array([metrics[f"{name} @{step}"]["mean"] for step in steps])


def _against_laws(panel: Any, row: Row, rule: str, metric: str) -> None:
    """Points as measured, a thick line for the exact mixture and a thin one for the binomial law."""
    steps, metrics = row["parameters"]["checkpoints"], row["metrics"]
    panel.plot(steps, _means(metrics, f"{metric} mixture", steps), **LOOK[rule])
    panel.plot(steps, _means(metrics, f"{metric} law", steps), **{**LOOK[rule], "linewidth": 0.7})
    look = {"fmt": MARKERS[rule], "color": LOOK[rule]["color"], "label": NAMES[rule]}
    shift = 0.01 * (list(MARKERS).index(rule) - 1) * steps[-1]
    points(panel, [step + shift for step in steps], [metrics[f"{metric} @{step}"] for step in steps], **look)
