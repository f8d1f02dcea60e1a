"""Published savings of training time against an explicit model of a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import canvas

DATA = ("step_time.csv",)
CAPTION = """A capacity cut shortens a training step at most by the cut times the share of the step that follows the
capacity. In an explicit model of computation and communication (Mixtral 8x7B, top-1, 32 768 tokens; ETR's devices and
parallelism) a cut by 40 % saves 21 % to 28 %, so the largest published saving, 46.6 % (band: 5.4 % to 46.6 %, ETR figure
4), needs a much larger cut or savings elsewhere. Lines span what the paper does not print: sustained efficiency and link
speed. Last panel: the baseline's step at capacity factor 1.1 and efficiency 0.4, links as assumed (1) and ten times
slower (10). Model, not measured; 64 and 256 devices differ little as both keep the same tensor parallelism."""

_DASH = {0.2: (0, (1, 1.2)), 0.4: "-", 0.6: (0, (6, 2))}
_LINKS = {1.0: ("#0B3C6F", "o", "links as assumed"), 10.0: ("#D9822B", "s", "links 10 times slower")}
_PARTS = (("expert networks", "#0B3C6F", ""), ("all-to-all", "#E69F00", "////"), ("attention and rest", "0.85", ""))


def draw(lines: list[dict[str, str]]) -> Figure:
    rows = [{key: float(value) for key, value in row.items()} for row in lines]
    devices = sorted({row["devices"] for row in rows})
    figure, axes = canvas(12.5, 3.7, columns=len(devices) + 1)
    for panel, count in zip(axes, devices):
        panel.axhspan(5.4, 46.6, color="0.9", linewidth=0)
        for x, name in ((40, "40 %"), (60, "60 %")):
            panel.axvline(x, color="0.35", linestyle=(0, (2, 2)), linewidth=0.9)
            panel.annotate(name, (x + 1.5, 67), fontsize=8)
        for slower, (colour, marker, links) in _LINKS.items():
            for efficiency, dash in _DASH.items():
                mine = [
                    r for r in rows if (r["devices"], r["efficiency"], r["slower_links"]) == (count, efficiency, slower)
                ]
                base = mine[0]
                panel.plot(
                    [100 * (1 - r["capacity_factor"] / base["capacity_factor"]) for r in mine],
                    [100 * (1 - r["seconds"] / base["seconds"]) for r in mine],
                    color=colour,
                    linestyle=dash,
                    marker=marker,
                    markersize=3.5,
                    linewidth=1.3,
                    label=f"{links}, {efficiency:g}",
                )
        panel.set_xlim(0, 100)
        panel.set_ylim(0, 72)
        panel.set_xlabel("capacity cut from factor 1.1, %")
        panel.set_title(f"{count:g} devices")
    axes[0].annotate("published\nrange", (2, 38), fontsize=8)
    axes[0].set_ylabel("step time saved, %")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, title="links, sustained efficiency"
    )
    _composition(axes[-1], rows, devices)
    return figure


def _composition(panel: Any, rows: list[dict[str, float]], devices: list[float]) -> None:
    """Shares of the baseline's step, stacked; the bright line marks what is spent on empty slots."""
    for i, count in enumerate(devices):
        for j, slower in enumerate(_LINKS):
            wanted = (count, 0.4, slower, 1.1)
            (row,) = [
                r for r in rows if (r["devices"], r["efficiency"], r["slower_links"], r["capacity_factor"]) == wanted
            ]
            shares = (
                row["capacity_share"] - row["all_to_all_share"],
                row["all_to_all_share"],
                1 - row["capacity_share"],
            )
            bottom, place = 0.0, i + 0.4 * j - 0.2
            for (name, colour, hatch), share in zip(_PARTS, shares):
                panel.bar(
                    place,
                    100 * share,
                    0.34,
                    bottom,
                    color=colour,
                    hatch=hatch,
                    edgecolor="white" if hatch else "black",
                    linewidth=0.4,
                    label=name if (i, j) == (0, 0) else None,
                )
                bottom += 100 * share
            panel.plot(
                np.array([place - 0.17, place + 0.17]),
                np.full(2, 100 * row["padding_share"]),
                color="#F7E36B",
                linewidth=1.8,
                label="empty slots: up to here" if (i, j) == (0, 0) else None,
            )
    places = [i + 0.4 * j - 0.2 for i in range(len(devices)) for j in range(len(_LINKS))]
    panel.set_xticks(places, ["1", "10"] * len(devices))
    for i, count in enumerate(devices):
        panel.annotate(f"{count:g}", (i, 103), ha="center", fontsize=8)
    panel.set_xlabel("links slower by; above: devices")
    panel.set_ylabel("share of the step, %")
    panel.set_ylim(0, 185)
    panel.set_yticks(range(0, 101, 20))
    panel.set_title("composition at factor 1.1")
    panel.legend(loc="upper left")
