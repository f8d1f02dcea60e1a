"""The audit's picture: loads beside drop curves, one row for each layer. A pure function of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory.audit.result import AuditReport, LayerAudit

__all__ = ["draw"]

ROWS = 6  # layers shown, at most
# Told apart by lightness, hatching and marker as well as by hue, for grey prints and colour-blind readers.
_LOOK = {
    "raw": {"color": "#0B4F8A", "hatch": "", "marker": "o"},
    "centred": {"color": "#F0A03C", "hatch": "////", "marker": "s"},
}
_FLOOR = 0.03  # per cent: below it a drop is not drawn


def draw(report: AuditReport, target: Any) -> None:
    """target: a path ending in .png, .svg or .pdf, or a binary stream, which receives SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    kind = "svg"
    if isinstance(target, (str, Path)):
        kind = Path(target).suffix.lower().lstrip(".")
        if kind not in ("png", "svg", "pdf"):
            raise ValueError(f"figure file = {str(target)!r} must end in .png, .svg or .pdf")
    shown = _spread(report.layers)
    # An identifier salt and no date make the same report the same file.
    with rc_context({"svg.hashsalt": "audit", "svg.fonttype": "none", "font.size": 9, "hatch.linewidth": 0.6}):
        figure = Figure(figsize=(9.2, 0.9 + 2.3 * len(shown)), layout="constrained")
        rows = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(1, 1.25))
        end = max(max(d.factor for d in r.drops) for layer in shown for r in layer.routings)
        end = 1.06 * max(end, *(r.token_choice.factor for layer in shown for r in layer.routings))
        start = min(0.9, *(0.9 * d.factor for d in shown[0].routings[0].drops))
        for (left, right), layer in zip(rows, shown):
            _loads(left, layer, report)
            _drops(right, layer, report)
            right.set_xlim(start, end)
        rows[-1][0].set_xlabel("expert" + (" (by raw load)" if report.experts > 16 else ""))
        rows[-1][1].set_xlabel("capacity factor C n / s" if report.top == 1 else "capacity factor C n / (top s)")
        _legends(figure, shown, report)
        meta: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        figure.savefig(target, format=kind, dpi=150, metadata=meta)


def _spread(layers: tuple[LayerAudit, ...]) -> list[LayerAudit]:
    if len(layers) <= ROWS:
        return list(layers)
    return [layers[i] for i in np.linspace(0, len(layers) - 1, ROWS).round().astype(int)]


def _loads(axes: Any, layer: LayerAudit, report: AuditReport) -> None:
    experts = np.arange(report.experts)
    first = np.array([load.value for load in layer.routings[0].load])
    order = np.argsort(-first, kind="stable") if report.experts > 16 else experts
    width = 0.8 / len(layer.routings)
    for k, routing in enumerate(layer.routings):
        look = _LOOK[routing.name]
        value = 100 * np.array([load.value for load in routing.load])[order]
        error = 100 * np.array([load.error or 0.0 for load in routing.load])[order]
        place = experts + (k - (len(layer.routings) - 1) / 2) * width
        if report.experts > 16:
            axes.plot(experts, value, color=look["color"], linewidth=1.4, drawstyle="steps-mid")
            continue
        axes.bar(place, value, width, color=look["color"], hatch=look["hatch"], edgecolor="black", linewidth=0.5)
        if any(error):
            axes.errorbar(place, value, error, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
    axes.axhline(100 / report.experts, color="black", linestyle="--", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("share of tokens, %" if report.top == 1 else "share of candidates, %")
    axes.set_title(layer.name, loc="left", fontsize=9.5, fontweight="bold")
    if report.experts <= 16:
        axes.set_xticks(experts)
    axes.spines[["top", "right"]].set_visible(False)


def _drops(axes: Any, layer: LayerAudit, report: AuditReport) -> None:
    unit = report.experts / (report.top * layer.tokens)
    highest = 1.0
    for routing in layer.routings:
        look = _LOOK[routing.name]
        curve = routing.curve
        factor = np.array(curve["capacity"]) * unit

        def line(name: str, style: Any, width: float, color: str, curve: Any = curve, factor: Any = factor) -> None:
            if curve[name] is not None:
                value = 100 * np.array(curve[name])
                axes.plot(factor, np.where(value > 0, value, np.nan), linestyle=style, linewidth=width, color=color)

        line("measured_load", (0, (4, 2)), 1.2, look["color"])
        line("over_dispersed", "-", 1.6, look["color"])
        if routing is layer.routings[0]:
            line("uniform", (0, (1, 1.3)), 1.3, "black")
        for drop in routing.drops:
            value = 100 * drop.measured.value
            if value < _FLOOR:
                continue
            error = min(100 * (drop.measured.error or 0.0), 0.95 * value)
            axes.errorbar(
                drop.capacity * unit,
                value,
                [[error], [100 * (drop.measured.error or 0.0)]],
                fmt=look["marker"],
                markersize=5.5,
                markerfacecolor=look["color"],
                markeredgecolor="black",
                markeredgewidth=0.7,
                ecolor="black",
                elinewidth=0.8,
                zorder=3,
            )
        axes.plot(
            routing.token_choice.factor,
            100 * report.loss,
            marker="v",
            markersize=6.5,
            color=look["color"],
            markeredgecolor="black",
            markeredgewidth=0.7,
            zorder=4,
            clip_on=False,
        )
        highest = max(highest, 100 * max((d.measured.value for d in routing.drops), default=0.0))
    axes.axhline(100 * report.loss, color="0.45", linewidth=0.8)
    axes.set_yscale("log")
    low = min(_FLOOR, 30 * report.loss)
    axes.set_ylim(low, max(2 * highest, 10))
    axes.set_yticks(
        [v for v in (0.01, 0.1, 1, 10, 100) if low <= v <= 2 * highest],
        [f"{v:g}" for v in (0.01, 0.1, 1, 10, 100) if low <= v <= 2 * highest],
    )
    axes.set_ylabel("dropped, %")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _legends(figure: Any, shown: list[LayerAudit], report: AuditReport) -> None:
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    loads: list[Any] = [
        Patch(facecolor=look["color"], hatch=look["hatch"], edgecolor="black", linewidth=0.5, label=f"{name} tokens")
        for name, look in _LOOK.items()
        if any(r.name == name for r in shown[0].routings)
    ]
    loads.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label="uniform (Assumption 4)"))
    present = [look for name, look in _LOOK.items() if any(r.name == name for r in shown[0].routings)]

    def dots(label: str, markers: list[str]) -> tuple[Any, ...]:
        edge: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.7, "linestyle": "", "label": label}
        return tuple(
            Line2D([], [], marker=marker, markerfacecolor=look["color"], **edge)
            for marker, look in zip(markers, present)
        )

    drops: list[Any] = [
        dots("measured drop", [look["marker"] for look in present]),
        dots(f"measured capacity needed for {100 * report.loss:g} %", ["v" for _ in present]),
        Line2D([], [], color="0.3", linewidth=1.6, label="law: measured load, over-dispersed"),
        Line2D([], [], color="0.3", linestyle=(0, (4, 2)), linewidth=1.2, label="law: measured load, binomial"),
        Line2D([], [], color="black", linestyle=(0, (1, 1.3)), linewidth=1.3, label="law: uniform load, binomial"),
    ]
    if all(r.correlation is None for layer in shown for r in layer.routings):
        del drops[2]
    handles = [*loads, *drops]
    figure.legend(
        handles=handles,
        labels=[(item[0] if isinstance(item, tuple) else item).get_label() for item in handles],
        handler_map={tuple: HandlerTuple(ndivide=None)},
        loc="outside upper center",
        ncols=3,
        fontsize=8,
        frameon=False,
    )
