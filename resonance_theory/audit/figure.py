"""The audit's picture, one row for each layer: loads, drop curves of each routing, and the models' held-out errors.

A pure function of the report.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.audit.result import LayerAudit
from resonance_theory.audit.table import Report

__all__ = ["draw", "plot"]

ROWS = 6  # layers shown, at most
# Told apart by lightness, hatching and marker as well as by hue, for grey prints and colour-blind readers.
_LOOK = {
    "raw": {"color": "#0B4F8A", "hatch": "", "marker": "o"},
    "centred": {"color": "#F0A03C", "hatch": "////", "marker": "s"},
}
# The models of the load, from the poorest: told apart by dashes and width as well.
_LAWS: dict[str, dict[str, Any]] = {
    "uniform": {"color": "0.45", "linestyle": (0, (1, 1.3)), "linewidth": 1.6, "label": "binomial, uniform load"},
    "measured_load": {
        "color": "#C2410C",
        "linestyle": (0, (5, 2)),
        "linewidth": 1.5,
        "label": "binomial, measured load",
    },
    "beta_binomial": {"color": "#0B7A5C", "linestyle": "-", "linewidth": 2.4, "label": "beta-binomial"},
    "blocks": {
        "color": "#7A2F9C",
        "linestyle": (0, (3, 1.5, 1, 1.5)),
        "linewidth": 1.4,
        "label": "blocks of neighbours",
    },
}
_FLOOR = 0.03  # per cent: below it a drop is not drawn


def draw(report: Report, target: Any) -> None:
    """target: a path ending in .png, .svg or .pdf, or a binary stream, which receives SVG."""
    from resonance_theory import _style

    _style.file_kind(target)  # a bad ending is refused before the work
    shown = _spread(report.layers)
    routings = len(shown[0].routings)
    judged = any(r.held_out is not None for layer in shown for r in layer.routings)
    widths = [1.15, *[1.2] * routings, *[0.8] * judged]
    with _style.styled():
        size = (1.0 + 2.4 * sum(widths), 1.0 + 2.1 * len(shown))
        figure, rows = _style.canvas(*size, len(shown), len(widths), squeeze=False, width_ratios=widths)
        end = max(max(d.factor for d in r.drops) for layer in shown for r in layer.routings)
        end = 1.06 * max(end, *(r.token_choice.factor for layer in shown for r in layer.routings))
        start = min(0.9, *(0.9 * d.factor for d in shown[0].routings[0].drops))
        highest = 100 * max(d.measured.value for layer in shown for r in layer.routings for d in r.drops)
        for row, layer in zip(rows, shown):
            _loads(row[0], layer, report)
            for k, axes in enumerate(row[1 : 1 + routings]):
                _drops(axes, layer, k, report, highest)
                axes.set_xlim(start, end)
                if layer is shown[0]:
                    axes.set_title(f"drop, {layer.routings[k].name} tokens")
            row[1].set_ylabel("dropped, %")
            if judged:
                _held_out(row[-1], layer)
        rows[-1][0].set_xlabel("expert" + (" (by raw load)" if report.experts > 16 else ""))
        for axes in rows[-1][1 : 1 + routings]:
            axes.set_xlabel("capacity factor C n / s" if report.top == 1 else "capacity factor C n / (top s)")
        if judged:
            rows[0][-1].set_title("held-out error")
            rows[-1][-1].set_xlabel("mean |error|, % points")
        _legends(figure, shown, report)
        _style.save(figure, target)


def plot(report: Report, ax: Any = None) -> Any:
    """Measured drops of up to six layers against the capacity factor, on the given or new axes, which it returns."""
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots()[1]
    for layer in _spread(report.layers):
        unit = report.experts / (report.top * layer.tokens)
        for r in layer.routings:
            drops = 100 * np.array(r.curve["measured"])
            style = "--" if r.centred else "-"
            factor = np.array(r.curve["capacity"]) * unit
            ax.plot(factor, np.where(drops > 0, drops, np.nan), style, label=f"{layer.name}, {r.name}")
    ax.axhline(100 * report.loss, color="0.45", linewidth=0.8)
    ax.set(xlabel="capacity factor", ylabel="dropped, %", yscale="log")
    for words in ax.legend().get_texts():
        words.set_parse_math(False)  # a name is no formula
    return ax


def _spread(layers: tuple[LayerAudit, ...]) -> list[LayerAudit]:
    if len(layers) <= ROWS:
        return list(layers)
    return [layers[i] for i in np.linspace(0, len(layers) - 1, ROWS).round().astype(int)]


def _loads(axes: Any, layer: LayerAudit, report: Report) -> None:
    count = len(layer.routings[0].load)
    experts = np.arange(count)
    first = np.array([load.value for load in layer.routings[0].load])
    order = np.argsort(-first, kind="stable") if count > 16 else experts
    width = 0.8 / len(layer.routings)
    for k, routing in enumerate(layer.routings):
        look = _LOOK[routing.name]
        value = 100 * np.array([load.value for load in routing.load])[order]
        error = 100 * np.array([load.error or 0.0 for load in routing.load])[order]
        place = experts + (k - (len(layer.routings) - 1) / 2) * width
        if count > 16:
            axes.plot(experts, value, color=look["color"], linewidth=1.4, drawstyle="steps-mid")
            continue
        axes.bar(place, value, width, color=look["color"], hatch=look["hatch"], edgecolor="black", linewidth=0.5)
        if any(error):
            axes.errorbar(place, value, error, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
    axes.axhline(100 / count, color="black", linestyle="--", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("share of tokens, %" if report.top == 1 else "share of candidates, %")
    axes.set_title(layer.name, fontweight="bold", parse_math=False)  # a name is no formula
    axes.grid(False)
    if count <= 16:
        axes.set_xticks(experts)


def _drops(axes: Any, layer: LayerAudit, index: int, report: Report, highest: float) -> None:
    """Measured drops and least capacity of one routing over the curves of the models."""
    routing = layer.routings[index]
    unit = len(routing.load) / (report.top * layer.tokens)
    look, curve = _LOOK[routing.name], routing.curve
    factor = np.array(curve["capacity"]) * unit
    for name, style in _LAWS.items():
        if curve[name] is not None:
            drops = 100 * np.array(curve[name])
            axes.plot(factor, np.where(drops > 0, drops, np.nan), **style)
    axes.axhline(100 * report.loss, color="0.45", linewidth=0.8)
    marker = {"markerfacecolor": look["color"], "markeredgecolor": "black", "markeredgewidth": 0.7}
    for drop in routing.drops:
        value, error = 100 * drop.measured.value, 100 * (drop.measured.error or 0.0)
        if value >= _FLOOR:
            lower = min(error, 0.95 * value)  # a logarithmic axis has no zero
            axes.errorbar(
                drop.capacity * unit,
                value,
                [[lower], [error]],
                fmt=look["marker"],
                markersize=6,
                ecolor="black",
                elinewidth=1.0,
                capsize=2,
                zorder=3,
                **marker,
            )
    least = routing.token_choice.factor
    axes.plot(least, 100 * report.loss, marker="v", markersize=7, zorder=4, clip_on=False, **marker)
    right = least < 0.75 * factor[-1]
    axes.annotate(
        f"C = {routing.token_choice.capacity}",
        (least, 100 * report.loss),
        xytext=(6 if right else -6, 5),
        textcoords="offset points",
        ha="left" if right else "right",
        fontsize=8,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.6},
    )
    axes.set_yscale("log")
    low = min(_FLOOR, 30 * report.loss)
    axes.set_ylim(low, max(2 * highest, 10))
    ticks = [v for v in (0.01, 0.1, 1, 10, 100) if low <= v <= max(2 * highest, 10)]
    axes.set_yticks(ticks, [f"{v:g}" for v in ticks])


def _held_out(axes: Any, layer: LayerAudit) -> None:
    """Mean absolute error of each model's drop on sequences that it has not seen, and its standard error."""
    height = 0.8 / len(layer.routings)
    names = list(_LAWS)
    for k, routing in enumerate(layer.routings):
        look = _LOOK[routing.name]
        for held_out in routing.held_out or ():
            place = names.index(held_out.model) + (k - (len(layer.routings) - 1) / 2) * height
            value, error = 100 * held_out.error.value, 100 * (held_out.error.error or 0.0)
            bar = {"color": look["color"], "hatch": look["hatch"], "edgecolor": "black", "linewidth": 0.5}
            axes.barh(place, value, height, xerr=error or None, error_kw={"linewidth": 0.8}, **bar)
            axes.annotate(
                f"{value:.1f}",
                (value + error, place),
                xytext=(2, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.set_yticks(range(len(names)), ["uniform", "measured\nload", "beta-\nbinomial", "blocks"])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.18)
    axes.grid(False)
    axes.set_xlim(left=0)


def _legends(figure: Any, shown: list[LayerAudit], report: Report) -> None:
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    present = {name: look for name, look in _LOOK.items() if any(r.name == name for r in shown[0].routings)}
    handles: list[Any] = [
        Patch(facecolor=look["color"], hatch=look["hatch"], edgecolor="black", linewidth=0.5, label=f"{name} tokens")
        for name, look in present.items()
    ]
    handles.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label="uniform (Assumption 4)"))

    def dots(label: str, markers: list[str]) -> tuple[Any, ...]:
        edge: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.7, "linestyle": "", "label": label}
        return tuple(
            Line2D([], [], marker=marker, markerfacecolor=look["color"], **edge)
            for marker, look in zip(markers, present.values())
        )

    handles.append(dots("measured drop ± standard error", [look["marker"] for look in present.values()]))
    handles.append(dots(f"measured least capacity for {100 * report.loss:g} %", ["v" for _ in present]))
    drawn = {name for layer in shown for r in layer.routings for name in _LAWS if r.curve[name] is not None}
    handles += [
        Line2D([], [], **{**style, "label": f"law: {style['label']}"}) for name, style in _LAWS.items() if name in drawn
    ]
    figure.legend(
        handles=handles,
        labels=[(item[0] if isinstance(item, tuple) else item).get_label() for item in handles],
        handler_map={tuple: HandlerTuple(ndivide=None)},
        loc="outside upper center",
        ncols=3,
        fontsize=8.5,
    )
