"""Experts grow apart the fewer candidates they keep: the Calinski-Harabasz ratio in closed form, and simulated."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from resonance_theory._style import LOOK, canvas

DATA = ("figures/calinski_harabasz.json",)
CAPTION = """Keeping each expert's best fraction of candidates raises the ratio of between to within scatter (ETR eq. 13,
the Calinski-Harabasz index without its factor), always: the closed form falls with the fraction
kept. Ranking by cosine sharpens more than ranking by inner product, by less the larger d. Lines: closed forms for
isotropic Gaussian tokens and orthonormal gates; points: mean of 6 simulated sets of 12 000 tokens, with bars of three
standard errors; n = 8, one expert per token."""


def draw(data: dict[str, Any]) -> Figure:
    figure, panels = canvas(9, 3.5, columns=2)
    for axes, entry in zip(panels, data["panels"]):
        simulated = entry["simulated"]
        for select, look, marker, face in (
            ("cosine", "resonance", "s", "#0B3C6F"),
            ("inner", "printed", "o", "#F5C04A"),
        ):
            name = "cosine" if select == "cosine" else "inner product"
            axes.plot(data["kept"], entry[select], label=f"best by {name}", **LOOK[look])
            axes.errorbar(
                simulated["kept"],
                simulated[select],
                [3 * error for error in simulated[f"{select}_error"]],
                fmt=marker,
                label=f"simulated, {name}",
                color="black",
                markerfacecolor=face,
                markersize=5,
                capsize=3,
                elinewidth=1,
            )
        axes.set_xlim(0, 1.03)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("fraction of candidates kept")
        axes.set_ylabel("between / within scatter")
        axes.set_title(f"d = {entry['dim']}, n = {data['experts']}")
        axes.legend(loc="upper right")
    return figure
