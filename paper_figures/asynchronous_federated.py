"""Asynchronous federated learning on digits, with and without poisoned clients."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._dots import dots
from resonance_theory._style import canvas

DATA = ("asynchronous_federated.jsonl",)
CAPTION = """With six of twenty clients poisoned, admission by staleness and trust keeps most of the accuracy that
averaging loses, but not what an ideal server reaches that leaves the poisoned out ("honest"); without poisoning it
costs some. Measured on scikit-learn's digits, 400 client updates in every arm; bars: 95 % Student intervals of ten
runs."""
METHODS = ("fedavg", "fedprox", "asynchronous", "staleness", "trust", "honest")


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, panel = canvas(6, 2.9)
    series = [
        ("6 of 20 clients poisoned", [f"{m}, 6 poisoned" for m in METHODS]),
        ("none poisoned", [f"{m}, 0 poisoned" for m in METHODS[:-1]]),
    ]
    dots(panel, lines, "accuracy", series)
    panel.set_xlabel("accuracy on test images")
    panel.set_xlim(0, 1)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
