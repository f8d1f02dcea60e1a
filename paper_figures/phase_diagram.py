"""Success of the three rules over the false-positive rate and the capacity, and which of them is best where."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import NAMES, canvas

DATA = ("figures/phase_diagram.json",)
CAPTION = """No rule is best everywhere, and which one is follows from exact crossovers, not from the growth of q alone
(ETR Corollary 6): expert choice where few irrelevant tokens score higher, as it cannot miss; resonance at larger q and
moderate capacity; token choice where the capacity is below what q or h asks for. At large capacity resonance and token
choice keep every candidate and hardly differ. One fixed affinity a with q = q(a) and h = h(a) of isotropic tokens and
orthonormal gates, hit rate 0.711; s = 256, n = 8, d = 64. Exact laws, no simulation."""


def draw(data: dict[str, Any]) -> Figure:
    figure, axes = canvas(12.5, 3.5, columns=4, sharey=True)
    q, share = np.array(data["false_positive"]), np.array(data["capacity"]) / data["tokens"]
    curves = {
        key: np.array(data[key])
        for key in ("expert_choice_over_token_choice", "resonance_over_token_choice", "resonance_over_expert_choice")
    }
    levels = np.linspace(0, 1, 11)
    for panel, rule in zip(axes, ("token_choice", "expert_choice", "resonance")):
        rates = np.array(data[rule])
        if rates.ndim == 1:
            rates = np.repeat(rates[:, None], q.size, axis=1)
        filled = panel.contourf(q, share, np.clip(rates, 0, 1), levels=levels, cmap="cividis")
        if f"{rule}_over_token_choice" in curves:
            label = "as good as token choice"
            panel.plot(curves[f"{rule}_over_token_choice"], share, color="white", linewidth=3)
            panel.plot(curves[f"{rule}_over_token_choice"], share, color="black", linestyle=(0, (4, 1.5)), label=label)
            panel.legend(loc="lower right", frameon=True, framealpha=0.9)
        panel.set_title(NAMES[rule])
    bar = figure.colorbar(filled, ax=list(axes[:3]), pad=0.01, aspect=30)
    bar.set_label(f"success rate (hit rate {data['hit']:.3f})")
    _winners(axes[3], share, curves)
    for panel in axes:
        panel.set_xscale("log")
        panel.set_xlim(q[0], q[-1])
        panel.set_yscale("log")
        panel.set_ylim(share[0], share[-1])
        panel.set_xlabel("false-positive rate q")
        panel.grid(False)
    axes[0].set_ylabel("capacity C/s")
    axes[0].set_yticks(
        [0.005, 0.01, 0.02, 0.05, 0.125, 0.25, 0.5], ["0.005", "0.01", "0.02", "0.05", "1/n", "0.25", "0.5"]
    )
    axes[0].minorticks_off()
    return figure


def _winners(panel: Any, share: Any, curves: Any) -> None:
    """The best rule; each region between the crossovers of its rule with the two others."""
    over_token, other_token, other_expert = curves.values()
    best_expert, worst = np.minimum(over_token, other_expert), np.maximum(over_token, other_token)
    panel.fill_betweenx(share, 1e-9, best_expert, color="#A6D4F2", linewidth=0, hatch="", label="expert choice")
    panel.fill_betweenx(share, worst, 1, facecolor="#F3B58A", edgecolor="white", linewidth=0, hatch="///")
    panel.fill_betweenx(
        share,
        other_expert,
        other_token,
        where=other_token > other_expert,
        color="#0B3C6F",
        linewidth=0,
        interpolate=True,
    )
    panel.plot(best_expert, share, color="black", linewidth=1)
    panel.plot(worst, share, color="black", linewidth=1)
    panel.annotate("expert choice", (0.002, 0.1), fontsize=9)
    panel.annotate("token\nchoice", (0.16, 0.012), fontsize=9, ha="center")
    panel.annotate(
        "resonance", (0.14, 0.135), (0.008, 0.4), fontsize=9, arrowprops={"arrowstyle": "-", "linewidth": 0.8}
    )
    panel.set_title("the best of the three")
