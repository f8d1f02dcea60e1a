"""The picture of a log's audit: drops with their laws, shares by layer and expert, Lorenz curves, the slowest expert."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory import _style
from resonance_theory.audit.load_laws import LAWS
from resonance_theory.audit.log_table import Report

__all__ = ["draw", "plot"]

_CURVE = {
    "uniform": {**_style.LOOK["guide"], "marker": ""},
    "shares": {**_style.LOOK["token_choice"], "marker": "^"},
    "over_dispersed": {**_style.LOOK["resonance"], "marker": "s"},
}
_FLOOR = 0.01  # percent, below which a logarithmic axis shows nothing


def plot(report: Report, ax: Any = None) -> Any:
    """Measured drops and laws, as means over layers, against the capacity factor; the Axes."""
    with _style.styled():
        ax = _style.canvas(6, 3.7)[1] if ax is None else ax
        _drops(ax, report)
    return ax


def draw(report: Report, target: Any) -> None:
    """All four pictures into a path ending in .png, .svg or .pdf, or as SVG into a binary stream."""
    _style.file_kind(target)  # a bad ending is refused before the work
    with _style.styled():
        figure, axes = _style.canvas(9.6, 7.4, 2, 2)
        _drops(axes[0, 0], report)
        _heat(figure, axes[0, 1], report)
        _lorenz(axes[1, 0], report)
        _slowest(axes[1, 1], report)
        _style.save(figure, target)


def _drops(ax: Any, report: Report) -> None:
    factor = np.array(report.factors)
    order = np.argsort(factor)
    measured = np.array([[d.measured for d in layer.drops] for layer in report.layers])[:, order] * 100
    factor = factor[order]
    for name, look in _CURVE.items():
        if not all(name in layer.drops[0].laws for layer in report.layers):
            continue
        law = 100 * np.mean([[d.laws[name] for d in layer.drops] for layer in report.layers], axis=0)[order]
        ax.plot(factor, np.where(law >= _FLOOR, law, np.nan), label=LAWS[name], markersize=4, **look)
    mean = measured.mean(axis=0)
    spread = np.abs(np.stack([measured.min(axis=0), measured.max(axis=0)]) - mean)
    shown = mean >= _FLOOR
    label = "measured" + (" (mean and range of layers)" if len(report.layers) > 1 else "")
    low = np.minimum(spread[0], mean - _FLOOR)  # a logarithmic axis has no zero
    ax.errorbar(
        factor[shown], mean[shown], [low[shown], spread[1][shown]],
        fmt="o", color="black", markersize=5, capsize=3, linewidth=1, label=label, zorder=3,
    )  # fmt: skip
    ax.axhline(100 * report.loss, color="0.6", linewidth=0.8)
    ax.annotate(f"{100 * report.loss:g} %", (0, 100 * report.loss), xycoords=("axes fraction", "data"),
                xytext=(3, 2), textcoords="offset points", fontsize=8, color="0.35")  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(bottom=_FLOOR / 15)  # below the curves is room for the legend
    ticks = [v for v in (0.01, 0.1, 1, 10, 100) if v <= ax.get_ylim()[1]]
    ax.set_yticks(ticks, [f"{v:g}" for v in ticks])
    ax.set_xlabel("capacity factor")
    ax.set_ylabel("choices without a slot, %")
    ax.set_title("Drop: data and laws")
    ax.legend(loc="lower left")


def _names(ax: Any, report: Report, axis: str) -> None:
    count = len(report.layers)
    at = np.unique(np.linspace(0, count - 1, min(count, 8)).round().astype(int))
    short = [name if len(name) <= 10 else "..." + name[-7:] for name in (report.layers[k].name for k in at)]
    if axis == "y":
        ax.set_yticks(at, short)
    else:
        ax.set_xticks(at, short, rotation=45 if max(map(len, short)) > 4 else 0, ha="right")


def _heat(figure: Any, ax: Any, report: Report) -> None:
    share = np.array([sorted(layer.share, reverse=True) for layer in report.layers]) * report.experts
    image = ax.imshow(share, aspect="auto", cmap="cividis", vmin=0, interpolation="nearest")
    figure.colorbar(image, ax=ax, label="share of the choices, times experts")
    ax.grid(False)
    ax.set_xlabel("expert, heaviest first")
    _names(ax, report, "y")
    ax.set_title("Shares by layer")


def _lorenz(ax: Any, report: Report) -> None:
    x = np.linspace(0, 1, report.experts + 1)
    for k, layer in enumerate(report.layers):
        y = np.r_[0.0, np.cumsum(np.sort(layer.share))]
        ax.plot(x, y, color=_style.LOOK["resonance"]["color"], alpha=0.35 if len(report.layers) > 3 else 0.9,
                linewidth=1, label=("each layer" if len(report.layers) > 1 else layer.name) if k == 0 else None)  # fmt: skip
    ax.plot([0, 1], [0, 1], label="equal shares", **_style.LOOK["guide"])
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("share of the experts, lightest first")
    ax.set_ylabel("share of the choices")
    ax.set_title("Lorenz curve")
    ax.legend(loc="upper left")


def _slowest(ax: Any, report: Report) -> None:
    value = [layer.slowest for layer in report.layers]
    heaviest = [layer.heaviest for layer in report.layers]
    place = np.arange(len(value))
    look = {"color": _style.LOOK["expert_choice"]["color"], "edgecolor": "black", "linewidth": 0.5}
    ax.bar(place, value, width=0.8, label="slowest expert of a block, mean", **look)
    ax.plot(place, heaviest, linestyle="", marker="D", markersize=4, color="black", label="heaviest expert of the log")
    ax.axhline(1, **_style.LOOK["guide"])
    ax.grid(False, axis="x")
    ax.set_ylim(0, 1.25 * max(value))
    ax.set_xlabel("layer")
    ax.set_ylabel("load over the mean load")
    _names(ax, report, "x")
    ax.set_title("Slowest expert (each on a device of its own)")
    ax.legend(loc="upper left")
