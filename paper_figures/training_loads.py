"""What the auxiliary losses do to the load: shares of the experts, and their load from mosaic to mosaic."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paper_figures._training import arms, bars
from resonance_theory._style import canvas

DATA = ("homogenization_training.jsonl",)
CAPTION = """A loss for balance evens the load, a loss for locality keeps tokens on their node and evens the load as well
(LocMoE's losses, weights .1): shares of the candidates by expert, in rising order (upper; dashed: uniform), and the
distribution function of one expert's candidates in one mosaic (lower). In brackets: share of dispatches that leave their node.
Measured at the end of training on mosaics whose tokens tell their node; free gates; mean of 30 runs, bars and bands: 99 %
Student intervals; four experts, 16 tokens a mosaic, C = 2."""

_RULES = {"token_choice": "token choice", "resonance": "resonance", "expert_choice": "expert choice"}
_LOSSES: dict[str, dict[str, Any]] = {
    "none": {"color": "0.85", "hatch": "", "dash": "-", "line": "0.3"},
    "balance": {"color": "#0B3C6F", "hatch": "", "dash": (0, (6, 2))},
    "locality": {"color": "#F5C04A", "hatch": "////", "dash": (0, (1, 1.2)), "line": "#A86B00"},
    "both": {"color": "#4AA3D8", "hatch": "....", "dash": (0, (3, 1.2, 1, 1.2))},
}


def draw(lines: list[dict[str, Any]]) -> Figure:
    found = arms(lines)
    figure, (shares, loads) = canvas(11.5, 6.4, rows=2, columns=len(_RULES), sharey="row")
    for upper, lower, (rule, name) in zip(shares, loads, _RULES.items()):
        for place, (loss, look) in enumerate(_LOSSES.items()):
            metrics = found[f"{rule}, free, placed, {loss}"]["metrics"]
            experts = sum(key.startswith("load share") for key in metrics)
            share = [metrics[f"load share {i} @end"] for i in range(1, experts + 1)]
            upper.bar(
                np.arange(1, experts + 1) + 0.2 * (place - 1.5),
                [m["mean"] for m in share],
                0.2,
                yerr=bars(share),
                error_kw={"elinewidth": 0.9, "capsize": 1.5},
                color=look["color"],
                hatch=look["hatch"],
                edgecolor="black",
                linewidth=0.5,
                label=f"{loss} ({100 * metrics['off node @end']['mean']:.0f} %)",
            )
            tokens = sum(key.startswith("load at most") for key in metrics)
            below = [metrics[f"load at most {k} @end"] for k in range(tokens)]
            colour = look.get("line", look["color"])
            lower.fill_between(
                np.arange(tokens), [m["low"] for m in below], [m["high"] for m in below], step="post", color=colour, alpha=0.2,
                linewidth=0,
            )  # fmt: skip
            lower.step(
                np.arange(tokens),
                [m["mean"] for m in below],
                where="post",
                color=colour,
                linestyle=look["dash"],
                label=loss,
            )
        upper.axhline(1 / experts, color="black", linestyle="--", linewidth=0.9)
        upper.set_title(name)
        upper.set_xticks(range(1, experts + 1))
        upper.set_xlabel("expert, by load")
        upper.legend(loc="upper left", title="loss (off node)")
        lower.set_xlabel("candidates of an expert in a mosaic")
    shares[0].set_ylabel("share of candidates")
    loads[0].set_ylabel("share of mosaics with at most so many")
    loads[0].set_ylim(0, 1.02)
    loads[-1].legend(loc="lower right", title="loss")
    return figure
