"""GrAP gates, a token seen through them, and the affinities of the two kinds of token."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import LOOK, canvas

DATA = ("figures/grap_gates.json",)
CAPTION = """GrAP gates are disjoint group means: orthogonal, of equal norm, d non-zeros in all (first panel). A token's
affinity is its cosine with a gate (second: one planted token and its eight affinities, the largest at its own expert). An
irrelevant isotropic token has affinities near 0 within about one over the root of d; a discriminative one is shifted
(third). What decides are the tails at the discriminative affinity: q of irrelevant tokens and h of those that are also
candidates of the expert, at most 1/n (last). d = 64, n = 8, signal θ/σ = 2.5 (token shown: 5). Exact laws;
the token alone is drawn, by simulation."""


def draw(data: dict[str, Any]) -> Figure:
    figure, axes = canvas(12.5, 3.3, columns=4, width_ratios=(1.1, 1.1, 1, 1))
    gates, token, tails = axes[0], axes[1], axes[3]
    weights = np.array(data["gates"])
    gates.imshow(weights, aspect="auto", cmap="Greys", interpolation="nearest", origin="lower")
    gates.set_xlabel("feature j")
    gates.set_ylabel("expert i")
    gates.set_title(f"gates: {weights.max():g} on a block, else 0")
    gates.grid(False)
    own = data["token_expert"]
    values, affinity = np.array(data["token"]), np.array(data["token_affinity"])
    block = data["dim"] // data["experts"]
    token.axvspan(own * block - 0.5, (own + 1) * block - 0.5, color="0.88", linewidth=0)
    token.plot(values, ".", color="0.35", markersize=4, label="features of a token")
    token.step(
        np.arange(data["experts"] + 1) * block - 0.5,
        np.append(values.reshape(-1, block).mean(axis=1), np.nan),
        where="post",
        label="group means",
        color="#D55E00",
        linewidth=2.2,
    )
    low, high = values.min(), values.max()
    for i, value in enumerate(affinity):
        bold = "bold" if i == own else "normal"
        token.annotate(
            f"{value:.2f}", ((i + 0.5) * block - 0.5, high + 0.35), ha="center", fontsize=7.5, fontweight=bold
        )
    token.set_ylim(low - 1.6, high + 1.1)
    token.set_xlabel("feature j (own expert shaded)")
    token.set_ylabel("value")
    token.set_title("affinities, above, of one token")
    token.legend(loc="lower center", ncols=2, columnspacing=1, handlelength=1.5)
    for kind, look in (("irrelevant", "expert_choice"), ("discriminative", "printed")):
        axes[2].plot(data["affinity"], data[f"density_{kind}"], label=kind, **LOOK[look])
    axes[2].set_ylim(0, 4.6)
    axes[2].set_xlabel("affinity δ")
    axes[2].set_ylabel("density")
    axes[2].set_title("affinity with the own gate")
    axes[2].legend(loc="upper right")
    for key, look, label in (
        ("discriminative_tail", "printed", "discriminative"),
        ("false_positive", "expert_choice", "irrelevant: q"),
        ("candidate_tail", "resonance", "and a candidate: h"),
    ):
        tails.plot(data["tail_affinity"], data[key], label=label, **LOOK[look])
    tails.axhline(1 / data["experts"], **LOOK["guide"])
    tails.annotate("1/n", (0.78, 1.15 / data["experts"]), ha="right", fontsize=8)
    tails.set_yscale("log")
    tails.set_ylim(1e-6, 2)
    tails.set_xlim(0, 0.8)
    tails.set_xlabel("affinity a")
    tails.set_ylabel("probability of δ ≥ a")
    tails.set_title("tails")
    tails.legend(loc="lower left")
    return figure
