"""Contrast of strong and weak routing: what it changes, and what it gains."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._training import EDGE, arms, bars
from resonance_theory._style import canvas

DATA = ("self_contrast.jsonl",)
CAPTION = """Contrast with a weaker expert changes every sixth prediction of the next byte and gains nothing on this model; with
equal experts it changes none, as proved. Measured: predictions that differ from those of Top-2, with 95 % Student
intervals of six runs; accuracy less that of Top-2, strength chosen on other text, 95 % intervals of all comparisons
together."""
RANKS = (2, 3, 4)
BLUE, ORANGE = "#0B3C6F", "#D55E00"


def percent(metric: dict[str, Any]) -> dict[str, float]:
    """A mean and its interval in hundredths."""
    return {key: 100 * metric[key] for key in ("mean", "low", "high")}


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, (left, right) = canvas(6.6, 2.7, 1, 2)
    found = arms(lines)
    for name, place, colour, sign in (("Top-2", -0.08, BLUE, "s"), ("copies", 0.08, ORANGE, "o")):
        changed = [percent(found[name]["metrics"][f"changed, rank {rank}"]) for rank in RANKS]
        label = {"Top-2": "trained experts", "copies": "equal experts"}[name]
        style = {**EDGE, "color": colour, "fmt": sign, "label": label}
        left.errorbar([rank + place for rank in RANKS], [m["mean"] for m in changed], yerr=bars(changed), **style)
    left.set_ylim(-1, 25)
    left.set_ylabel("predictions changed (%)")
    left.legend()

    gains = {
        line["metric"]: {**line, "mean": line["difference"]} for line in lines if line.get("against") == "accuracy"
    }
    chosen = [percent(gains[f"chosen, rank {rank}"]) for rank in RANKS]
    style = {**EDGE, "color": BLUE, "fmt": "s"}
    right.errorbar(RANKS, [m["mean"] for m in chosen], yerr=bars(chosen), **style)
    right.axhline(0, color="0.35", linestyle="--")
    right.set_ylabel("accuracy gained (points)")
    right.set_ylim(-0.4, 0.4)
    for panel in (left, right):
        panel.set_xticks(RANKS)
        panel.set_xlim(1.6, 4.4)
        panel.set_xlabel("rank of the weak expert")
    return figure
