"""The report of a verification run: one self-contained HTML page, Markdown, JUnit XML and JSON.

A pure rendering of the stored record (`resonance verify --json`): nothing is computed here that a verdict rests on.
"""

from __future__ import annotations

import io
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

__all__ = ["prepare", "read", "write"]

FORMAT = "resonance-theory ledger 1"
Record = Mapping[str, Any]


def prepare(directory: str | Path) -> Path:
    """Make the report folder, or say in one sentence why it cannot be written; before the work, not after."""
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise ValueError(f"report folder = {str(directory)!r} must be writable ({problem.strerror})") from None
    return folder


def read(path: str | Path) -> dict[str, Any]:
    """A stored ledger record; one sentence if the file is none."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"record = {str(path)!r} must be the JSON of `resonance verify --json` ({problem})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"record = {str(path)!r} must be the JSON of `resonance verify --json` (format {FORMAT!r})")
    return record


def write(record: Record, directory: str | Path, *, audit_report: Any = None) -> Path:
    """Write index.html, ledger.md, junit.xml and ledger.json; returns the page's path.

    `audit_report` draws the audit's figure; without it the page shows the audit's numbers alone.
    """
    folder = prepare(directory)
    figures = {"bounds": _bounds_figure()}
    if audit_report is not None:
        buffer = io.BytesIO()
        audit_report.figure(buffer)
        figures["audit"] = _inline_svg(buffer.getvalue().decode())
    contents = {
        "index.html": _html(record, figures),
        "ledger.md": _markdown(record),
        "junit.xml": _junit(record),
        "ledger.json": json.dumps(record, indent=1, allow_nan=False) + "\n",
    }
    for name, text in contents.items():
        part = folder / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, folder / name)
    return folder / "index.html"


# --- other formats ----------------------------------------------------------------------------------------------------


def _tally(record: Record) -> str:
    counts = Counter(claim["verdict"] for claim in record["claims"])
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def _markdown(record: Record) -> str:
    def cell(text: str) -> str:
        return text.replace("|", r"\|").replace("\n", " ")

    lines = [
        "# Ledger of claims",
        "",
        f"{_tally(record)}. {'Full' if record['full'] else 'Quick'} run, seed {record['seed']}, "
        f"suite-wide false-alarm budget {record['false_alarm_budget']:g}.",
        "",
        "| claim | source | verdict | statement | evidence |",
        "|---|---|---|---|---|",
    ]
    for claim in record["claims"]:
        evidence = "; ".join(f"{c['name']}: {c['truth']['evidence']}" for c in claim["checks"])
        statement = claim["statement"] + (f" **Correction.** {claim['correction']}" if claim["correction"] else "")
        row = (f"`{claim['id']}`", claim["source"], claim["verdict"], statement, evidence or claim["reason"])
        lines.append("| " + " | ".join(cell(v) for v in row) + " |")
    if record.get("published"):
        lines += ["", "## Published statements", "", "| place | as published | claims |", "|---|---|---|"]
        for row in record["published"]:
            claims = ", ".join(f"`{i}`" for i in row["claims"])
            lines.append("| " + " | ".join(map(cell, (f"{row['paper']} {row['place']}", row["text"], claims))) + " |")
    return "\n".join(lines) + "\n"


def _junit(record: Record) -> str:
    suites = ElementTree.Element("testsuites", name="resonance verify")
    for claim in record["claims"]:
        failed = 0
        suite = ElementTree.SubElement(suites, "testsuite", name=claim["id"], time=str(claim["seconds"]))
        for check in claim["checks"]:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=claim["id"],
                name=f"{check['kind']}: {check['name']}",
                time=str(check["seconds"]),
            )
            if not check["passed"]:
                failed += 1
                ElementTree.SubElement(
                    case, "failure", message=f"{check['truth']['evidence']} | mutant: {check['mutant']['evidence']}"
                )
        case = ElementTree.SubElement(suite, "testcase", classname=claim["id"], name=f"verdict {claim['expected']}")
        if not claim["passed"]:
            failed += 1
            ElementTree.SubElement(case, "failure", message=claim["problem"])
        suite.set("tests", str(len(claim["checks"]) + 1))
        suite.set("failures", str(failed))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


# --- pictures ---------------------------------------------------------------------------------------------------------


def _inline_svg(text: str) -> str:
    """An SVG file's element alone, with identifiers that cannot collide with another picture on the page."""
    body = text[text.index("<svg") :]
    prefix = f"f{zlib.crc32(body.encode()):08x}-"
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r"url\(#", f"url(#{prefix}", body)
    return re.sub(r'href="#', f'href="#{prefix}', body)


def _bounds_figure() -> str:
    """Token choice at s = 100, n = 8: the exact law, the sharp bounds, and the printed lower bound that crosses it."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    from resonance_theory.rules import token_choice

    s, n = 100, 8
    capacity = np.arange(1, s + 1)
    exact = token_choice.success(s, n, capacity)
    low, high = token_choice.bounds(s, n, capacity, kind="sharp")
    printed, _ = token_choice.bounds(s, n, capacity, kind="published")
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    axes.fill_between(capacity, low, high, color="#56B4E9", alpha=0.45, linewidth=0, label="sharp bounds (N2)")
    axes.plot(capacity, exact, color="black", label="exact law (N1)")
    axes.plot(capacity, printed, color="#D55E00", linestyle="--", label="lower bound as printed, $Cn/(5s)$")
    false = printed > exact
    axes.fill_between(capacity, exact, printed, where=false, color="#D55E00", alpha=0.2, linewidth=0)
    axes.annotate("printed bound\nexceeds the truth", (86, 1.14), ha="center", fontsize=9, color="#A03D00")
    axes.set_xlabel("capacity C (tokens per expert)")
    axes.set_ylabel("success rate / hit rate")
    axes.set_xlim(0, s)
    axes.set_ylim(0, 1.65)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "resonance-theory", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return _inline_svg(buffer.getvalue())


def _forest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Estimates with their intervals around the law, in units of the smallest detectable difference.

    The law sits at 0 (equal) or marks the edge of the allowed side (at most, at least); the hollow diamond is the
    mutant's value, on the edge with an arrowhead where it lies outside.
    """
    from html import escape

    width, row_height, left, reach = 720, 22, 330, 3.0
    height = row_height * len(rows) + 34
    scale = (width - left - 20) / (2 * reach)
    centre = left + reach * scale

    def x(value: float) -> float:
        return centre + max(-reach, min(reach, value)) * scale

    parts = [
        f'<svg class="forest" viewBox="0 0 {width} {height}" role="img" aria-label="estimates against the law">',
        f'<line class="law" x1="{centre}" x2="{centre}" y1="4" y2="{height - 26}"/>',
    ]
    for index, row in enumerate(rows):
        y = 14 + index * row_height
        unit = row["detectable"] if 0 < row["detectable"] < 1 else max(row["high"] - row["low"], 1e-12)
        low, high, estimate, mutant = ((row[k] - row["law"]) / unit for k in ("low", "high", "estimate", "mutant"))
        case = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in row["case"].items())
        label = f"{row['key']}: {case}"
        short = label if len(label) <= 56 else label[:55] + "…"
        title = (
            f"{label}; estimate {row['estimate']:.6g} in [{row['low']:.6g}, {row['high']:.6g}] from {row['trials']} "
            f"trials; law {row['law']:.6g}; mutant {row['mutant']:.6g}; detects {row['detectable']:.2g}"
        )
        parts.append(
            f'<g><title>{escape(title)}</title><text x="0" y="{y + 4}">{escape(short)}</text>'
            f'<line class="interval" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(estimate):.1f}" cy="{y}" r="3.4"/>'
        )
        m = x(mutant)
        if abs(mutant) <= reach:
            shape = f"M{m:.1f} {y - 5}l5 5l-5 5l-5 -5z"
        else:
            side = 1 if mutant > 0 else -1
            shape = f"M{m:.1f} {y}l{-8 * side} -5v10z"
        parts.append(f'<path class="mutant" d="{shape}"/></g>')
    y = height - 20
    parts.append(f'<line class="axis" x1="{left}" x2="{width - 20}" y1="{y}" y2="{y}"/>')
    for tick in range(-3, 4):
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{y + 15}">{tick}</text>')
    parts.append("</svg>")
    return "".join(parts)


# --- the page ---------------------------------------------------------------------------------------------------------


def _rich_text(text: str) -> str:
    """Escaped text with $...$ turned into MathML, which browsers render without a script."""
    from html import escape

    from latex2mathml.converter import convert

    pieces = text.split("$")
    out = []
    for index, piece in enumerate(pieces):
        if index % 2 == 0 or index == len(pieces) - 1:
            out.append(escape(piece))
        else:
            out.append(convert(piece))
    return "".join(out)


def _flat(rows: Iterable[Record]) -> list[Mapping[str, Any]]:
    return [row for claim in rows for check in claim["checks"] for row in check["rows"]]


def _html(record: Record, figures: Mapping[str, str]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["rich"] = _rich_text
    environment.filters["forest"] = _forest
    template = environment.from_string((Path(__file__).parent / "data" / "report.html").read_text(encoding="utf-8"))
    rates = _flat(record["claims"])
    return template.render(
        record=record,
        figures=figures,
        tally=sorted(Counter(claim["verdict"] for claim in record["claims"]).items()),
        verdicts={claim["id"]: claim["verdict"] for claim in record["claims"]},
        corrected=[claim for claim in record["claims"] if claim["correction"]],
        rates=len(rates),
        trials=sum(row["trials"] for row in rates),
    )
