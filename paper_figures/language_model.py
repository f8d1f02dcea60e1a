"""A small language model under many routers: loss of each, and against the tokens that its experts processed."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paper_figures._training import EDGE, arms, bars
from resonance_theory._style import canvas

DATA = ("language_model.jsonl",)
CAPTION = """A smoke test: the study's premises are missed (at this size the dense network of equal active parameters is ahead of
LocMoE), so it claims nothing of the routers. Loss of a byte-level transformer with mixtures of experts on text that it has not
read, by router (left; top: perplexity of a byte), and against the share of training tokens that experts processed (right, by
the same letters). Filled: causal evaluation, tokens kept by per-expert thresholds; hollow: selection among all tokens of the
window, which leaks from later ones. Lines: n-grams that have read the same bytes, and one that has read all. Measured, mean of
10 short trainings on the same text; bars: 95 % Student intervals of each mean, not of the paired differences compared."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LINES = (
    ("bigram", (0, (1, 1.2))),
    ("trigram", (0, (3, 1.2, 1, 1.2))),
    ("4-gram", (0, (6, 2))),
    ("5-gram", (0, (2, 2))),
)


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    networks = [name for name, row in found.items() if "arm" in row["parameters"]]
    grams = [(name, dash) for name, dash in (*_LINES, ("4-gram, all text", "-")) if name in found]
    figure, (left, right) = canvas(11.5, 0.9 + 0.34 * len(networks), columns=2, width_ratios=(1.25, 1))
    places = np.arange(len(networks))
    for metric, face, shift, label in (
        ("loss", "#0B3C6F", -0.1, "causal"),
        ("loss selected", "white", 0.15, "selected"),
    ):
        known = [i for i, name in enumerate(networks) if metric in found[name]["metrics"]]
        values = [found[networks[i]]["metrics"][metric] for i in known]
        style = {"fmt": "o", "color": "#0B3C6F", "markerfacecolor": face, "label": label}
        left.errorbar([m["mean"] for m in values], places[known] + shift, xerr=bars(values), **{**EDGE, **style})
    losses = [found[name]["metrics"]["loss"] for name in networks]
    share = [found[name]["metrics"]["processed"] for name in networks]
    right.errorbar(
        [m["mean"] for m in share], [m["mean"] for m in losses], bars(losses), fmt="none", ecolor="0.6", elinewidth=0.9
    )
    right.plot([m["mean"] for m in share], [m["mean"] for m in losses], "o", color="#0B3C6F", markersize=3)
    placed: list[tuple[float, float]] = []
    for letter, x, y in zip(LETTERS, share, losses):  # letters of points on each other go side by side
        near = sum(abs(x["mean"] - a) < 0.012 and abs(y["mean"] - b) < 0.002 for a, b in placed)
        placed.append((x["mean"], y["mean"]))
        right.annotate(letter, placed[-1], (4 + 8 * near, 2), textcoords="offset points")
    for name, dash in grams:
        loss = found[name]["metrics"]["loss"]["mean"]
        left.axvline(loss, color="0.35", linestyle=dash, linewidth=1.1)
        right.axhline(loss, color="0.35", linestyle=dash, linewidth=1.1, label=f"{name}: {loss:.2f}")
    low, high = min(m["low"] for m in losses), max(m["high"] for m in losses)
    right.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    # an n-gram far from all networks stands in the legend alone, with its loss
    lines_at = [found[name]["metrics"]["loss"]["mean"] for name, _ in grams]
    shown = [loss for loss in lines_at if low - 0.05 < loss < high + 0.05]
    low, high = min([low, *shown]), max([high, *shown])
    left.set_xlim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    left.set_yticks(places, [f"{name}  ({letter})" for name, letter in zip(networks, LETTERS)])
    left.set_ylim(len(networks) - 0.5, -0.7)
    left.set_xlabel("loss on new text, nats per byte")
    left.secondary_xaxis("top", functions=(np.exp, _log)).set_xlabel("perplexity of a byte", fontsize=8)
    right.set_xlabel("tokens processed in training, per token and layer")
    right.set_ylabel("loss on new text, nats per byte")
    (one, causal), (two, lines_of) = (panel.get_legend_handles_labels() for panel in (left, right))
    figure.legend(one + two, causal + lines_of, loc="outside lower center", ncols=4)
    if "no claim" in lines[0]["provenance"]:
        right.set_title("smoke test: the study claims nothing")
    return figure


def _log(perplexity: Any) -> Any:
    return np.log(np.maximum(perplexity, 1e-9))  # an axis is asked for 0 before it is drawn
