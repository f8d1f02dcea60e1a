"""The look of every figure, in papers, plans and audits: sizes, fonts, and one colour, dash and marker for each thing
that is drawn more than once.

Nothing is told apart by colour alone. The hues are those of Okabe and Ito, which colour-blind readers can separate, in
different lightness, so that a grey print separates them too.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib import rc_context
from matplotlib.figure import Figure

from resonance_theory import _output

__all__ = ["LOOK", "MARKERS", "NAMES", "canvas", "finish", "render", "save", "styled"]

T = TypeVar("T")

# The salt makes an SVG's identifiers the same in every run; text as outlines needs no font at the reader's.
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "resonance-theory",
    "svg.fonttype": "path",
}

# what a rule gets that is not named below: by its name, so that it looks the same in every figure
_COLOURS = ("#E69F00", "#CC79A7", "#009E73", "#6A51A3", "#8C510A")
_DASHES = ((0, (8, 2, 2, 2)), (0, (4, 1.5)), (0, (2, 1, 1, 1)))
_MARKERS = "DvP*X<>h"


def _pick(rule: str, choices: Sequence[T]) -> T:
    return choices[zlib.crc32(rule.encode()) % len(choices)]


class _Look(dict[str, dict[str, Any]]):
    def __missing__(self, rule: str) -> dict[str, Any]:
        return {"color": _pick(rule, _COLOURS), "linestyle": _pick(rule, _DASHES)}


class _Marker(dict[str, str]):
    def __missing__(self, rule: str) -> str:
        return _pick(rule, _MARKERS)


class _Name(dict[str, str]):
    def __missing__(self, rule: str) -> str:
        return rule.replace("_", " ")


LOOK = _Look(
    {
        "exact": {"color": "black", "linestyle": "-"},
        "token_choice": {"color": "#D55E00", "linestyle": (0, (6, 2))},
        "expert_choice": {"color": "#4AA3D8", "linestyle": (0, (1, 1.2))},
        "resonance": {"color": "#0B3C6F", "linestyle": "-"},
        "printed": {"color": "#B33C00", "linestyle": (0, (5, 2))},
        "sharp": {"color": "#0072B2", "linestyle": (0, (3, 1.2, 1, 1.2))},
        "other": {"color": "#0B7A5C", "linestyle": (0, (1, 1.2))},
        "guide": {"color": "0.35", "linestyle": (0, (2, 2)), "linewidth": 0.9},
    }
)
MARKERS = _Marker(token_choice="^", expert_choice="o", resonance="s")
NAMES = _Name()


_SPARE = ("#7A5195", "#8C6D31", "#5F6A6A", "#A23B72")


def look(rule: str) -> dict[str, Any]:
    """Colour and dash of a rule; one of a few spare ones, always the same, for a rule that has none of its own."""
    return LOOK.get(rule) or {"color": _SPARE[sum(rule.encode()) % len(_SPARE)], "linestyle": (0, (4, 1.5, 1, 1.5))}


def marker(rule: str) -> str:
    """Marker of a rule."""
    return MARKERS.get(rule) or "vDPX"[sum(rule.encode()) % 4]


def name(rule: str) -> str:
    """A rule in words."""
    return NAMES.get(rule) or rule.replace("_", " ")


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of that many inches and its array of axes, (rows, columns) squeezed; call it under the style only."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if columns > 2:  # a label beside an axis keeps its distance from the panel before
        figure.set_layout_engine("constrained", w_pad=0.09)
    return figure, figure.subplots(rows, columns, **options)


def styled() -> Any:
    """The context in which figures are drawn and saved."""
    return rc_context(RC)


def file_kind(target: Any) -> str:
    """Format that a path's ending asks for; SVG for a binary stream."""
    if not isinstance(target, (str, Path)):
        return "svg"
    kind = Path(target).suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"figure file = {str(target)!r} must end in .png, .svg or .pdf")
    return kind


def save(figure: Figure, target: Any) -> None:
    """Write to a path ending in .png, .svg or .pdf, or as SVG to a binary stream; completely or not at all."""
    content = render(finish(figure), file_kind(target))
    if isinstance(target, (str, Path)):
        _output.write(target, content)
    else:
        target.write(content)


def finish(figure: Figure) -> Figure:
    """Freeze the layout. Its solver leaves the last digits of positions to chance: round the places that it found."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(v, 4) for v in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """The figure as the bytes of an SVG, PDF or PNG file, without dates: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    with styled():
        figure.savefig(buffer, format=kind, dpi=150, metadata=undated)
    return buffer.getvalue()
