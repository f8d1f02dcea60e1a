"""A metric of several arms of a study as points with intervals, one arm a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paper_figures._training import EDGE, Row, arms, bars

COLOURS = ("#0B3C6F", "#D55E00")
SIGNS = ("s", "o")


def dots(panel: Any, lines: Sequence[Row], metric: str, series: Sequence[tuple[str, Sequence[str]]]) -> None:
    """series: a name and its arms' labels, as many in each series, in the same order; lines are named after the first."""
    found = arms(lines)
    height = max(len(labels) for _, labels in series)
    for place, (name, labels) in enumerate(series):
        metrics = [found[label]["metrics"][metric] for label in labels]
        at = [height - i - 0.12 + 0.24 * (len(series) - 1 - place) for i in range(len(labels))]
        style = {**EDGE, "color": COLOURS[place], "fmt": SIGNS[place], "label": name}
        panel.errorbar([m["mean"] for m in metrics], at, xerr=bars(metrics), **style)
    panel.set_yticks([height - i for i in range(height)], [label.rpartition(",")[0] or label for label in series[0][1]])
    panel.set_ylim(0.4, height + 0.6)
    panel.set_xlabel(metric)
