"""What a checkout stores beside its proofs, for the report and the site: findings of trained networks, figures, speed.

All of it is found, not listed: `simulations/RESULTS.md` and `findings/*.md`, every figure of `paper_figures/`, which belongs
to a finding if it draws that study's record, and `results/router_benchmark.json`.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resonance_theory.evidence.claims.ledger import folder

__all__ = ["Figure", "Finding", "figures", "findings", "overview", "speed"]


@dataclass(frozen=True)
class Figure:
    """name, title and caption; data: the files of simulations/results/ that it draws."""

    name: str
    title: str
    caption: str
    data: tuple[str, ...]

    def svg(self) -> str:
        return _svg(self.name)


@dataclass(frozen=True)
class Finding:
    """name of the study, title, Markdown without its title, and the figures that draw its record."""

    name: str
    title: str
    text: str
    figures: tuple[Figure, ...]


@functools.cache  # a figure is a function of what is stored
def _svg(name: str) -> str:
    from resonance_theory import _style

    return _style.render(_gallery().draw(name), "svg").decode()


def _gallery() -> Any:
    folder("paper_figures")
    return importlib.import_module("paper_figures._gallery")


def figures() -> list[Figure]:
    """Every figure, by name. Raises FileNotFoundError outside a checkout."""
    gallery = _gallery()
    found = []
    for name in gallery.names():
        module = importlib.import_module(f"paper_figures.{name}")
        title = " ".join((module.__doc__ or name).strip().split("\n\n")[0].split()).rstrip(".")
        found.append(Figure(name, title, gallery.caption(name), tuple(module.DATA)))
    return found


def _titled(path: Path) -> tuple[str, str]:
    """Title and the rest of a page of Markdown."""
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    return first.lstrip("# ").strip(), rest.strip()


def overview() -> tuple[str, str]:
    """Title and text of the page that leads to the findings."""
    return _titled(folder("simulations") / "RESULTS.md")


def findings() -> list[Finding]:
    """Every study's finding: those that the overview links in its order, then the others by name."""
    place = folder("simulations") / "findings"
    linked = list(dict.fromkeys(reversed(re.findall(r"\(findings/(\w+)\.md\)", overview()[1]))))[::-1]  # by last link
    names = sorted(
        (path.stem for path in place.glob("*.md")),
        key=lambda name: (linked.index(name) if name in linked else len(linked), name),
    )
    drawn = figures()
    result = []
    for name in names:
        title, text = _titled(place / f"{name}.md")
        title = re.sub(r"\s*\(`\w+`\)$", "", title)
        mine = tuple(figure for figure in drawn if any(Path(file).stem == name for file in figure.data))
        result.append(Finding(name, title, text, mine))
    return result


def speed() -> dict[str, Any]:
    """The router benchmark as a table of texts: `sizes`, `rows` of name and cells, and `provenance`.

    A cell: medians over the runs of the time and of its ratio to the floor, the least and the largest ratio, the extra memory.
    """
    record = json.loads((folder("simulations") / "results" / "router_benchmark.json").read_text(encoding="utf-8"))
    runs: Sequence[dict[str, Any]] = record["runs"]
    drawn: Any = importlib.import_module("paper_figures.router_speed")

    def cell(size: str, name: str) -> str:
        routers = [run[size]["routers"][name] for run in runs]
        time, ratios = statistics.median(r["median_ms"] for r in routers), [r["ratio"] for r in routers]
        memory = drawn.memory(record, size, name)
        text = f"{time:.2f} ms, {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        return text + (f", +{100 * statistics.median(memory):.0f} %" if memory else "")

    sizes = {key: f"{s['tokens']} x {s['dim']}, {s['experts']}" for key, s in runs[0].items()}
    names = list(next(iter(runs[0].values()))["routers"])
    rows = [(drawn.NAMES.get(name, name), [cell(size, name) for size in sizes]) for name in names]
    bandwidth = [size["bandwidth_gb_s"] for run in runs for size in run.values()]
    return {
        "sizes": list(sizes.values()),
        "rows": rows,
        "runs": len(runs),
        "bandwidth": (min(bandwidth), max(bandwidth)),
        "provenance": record["provenance"],
    }
