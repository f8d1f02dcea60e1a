"""The report of a verification run: one HTML page that loads nothing, Markdown, JUnit XML and JSON.

A pure rendering of the record that `resonance verify --json` stores: nothing is computed here that a verdict rests on. The
record may come from elsewhere: it is checked against its schema, and none of its texts reaches the page as markup.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from resonance_theory import _output
from resonance_theory.evidence.claims.record import DATA, FORMAT, UNPRINTABLE, read, schema
from resonance_theory.evidence.pages import gallery, markup

__all__ = ["DATA", "FORMAT", "claim_body", "prepare", "read", "schema", "vacuous", "write"]

Record = Mapping[str, Any]


def prepare(directory: str | Path) -> Path:
    """Make the report folder, or say in one sentence why it cannot be written; before the work, not after."""
    return _output.folder("report folder", directory)


def write(record: Record, directory: str | Path, *, audit_report: Any = None) -> Path:
    """Write index.html, ledger.md, junit.xml, ledger.json, and explorer.html beside the package's own ledger.

    Args:
        record: of a verification run.
        directory: made where it is missing.
        audit_report: draws the audit's figure; without it the page shows the audit's numbers alone.

    Returns:
        The path of index.html.

    Raises:
        ValueError: the folder cannot be written, or a formula of the record is not LaTeX; then nothing is written.
    """
    folder = prepare(directory)
    audit_figure = ""
    if audit_report is not None:
        buffer = io.BytesIO()
        audit_report.figure(buffer)
        audit_figure = buffer.getvalue().decode()
    contents = {
        "index.html": _html(record, audit_figure, folder),
        "ledger.md": _markdown(record),
        "junit.xml": _junit(record),
        "ledger.json": json.dumps(record, indent=1, allow_nan=False) + "\n",
    }
    if not record.get("project"):  # a page of this package's own laws
        contents["explorer.html"] = (DATA / "explorer.html").read_text(encoding="utf-8")
    for name, text in contents.items():  # what an exception said may hold what no page and no XML can
        _output.write(folder / name, UNPRINTABLE.sub("\ufffd", text))
    return folder / "index.html"


def vacuous(row: Record) -> bool:
    """Whether any rate at all meets what is stated: at least 0, or at most 1. Only the mutant needs such a row."""
    return bool((row["relation"], row["law"]) in {("at_least", 0), ("at_most", 1)})


# --- other formats ----------------------------------------------------------------------------------------------------


def _tally(record: Record) -> str:
    counts = Counter(claim["verdict"] for claim in record["claims"])
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def _cell(text: str) -> str:
    """A text for a cell of a Markdown table: words and `code` as they stand, never markup; $formulas$ as they are."""
    pieces = text.replace("\n", " ").split("$")
    for index, piece in enumerate(pieces):
        if index % 2 == 0 or index == len(pieces) - 1:
            piece = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(piece, quote=False))
            piece = piece.replace("`", "&#96;").replace("[", "&#91;")
        else:
            piece = piece.replace("<", r"\lt ").replace(">", r"\gt ").replace("`", "'")
        pieces[index] = piece.replace("|", r"\|")
    return "$".join(pieces)


def _markdown(record: Record) -> str:
    lines = [
        "# Ledger of claims",
        "",
        f"{_cell(_tally(record))}. {'Full' if record['full'] else 'Quick'} run, seed {record['seed']}, "
        f"suite-wide false-alarm budget {record['false_alarm_budget']:g}.",
        "",
        "| claim | source | verdict | statement | evidence |",
        "|---|---|---|---|---|",
    ]
    for claim in record["claims"]:
        evidence = "; ".join(f"{c['name']}: {c['truth']['evidence']}" for c in claim["checks"])
        statement = claim["statement"] + (f" **Correction.** {claim['correction']}" if claim["correction"] else "")
        row = (f"`{claim['id']}`", claim["source"], claim["verdict"], statement, evidence or claim["reason"])
        lines.append("| " + " | ".join(map(_cell, row)) + " |")
    if record.get("published"):
        lines += ["", "## Published statements", "", "| place | as published | claims |", "|---|---|---|"]
        for row in record["published"]:
            claims = ", ".join(f"`{i}`" for i in row["claims"])
            lines.append("| " + " | ".join(map(_cell, (f"{row['paper']} {row['place']}", row["text"], claims))) + " |")
    if record.get("baseline"):
        lines += ["", "## Since the baseline", "", record["baseline"]["markdown"].rstrip()]
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
                broke = "error" in (check["truth"]["status"], check["mutant"]["status"])
                ElementTree.SubElement(
                    case,
                    "error" if broke else "failure",
                    message=f"{check['truth']['evidence']} | mutant: {check['mutant']['evidence']}",
                )
        case = ElementTree.SubElement(suite, "testcase", classname=claim["id"], name=f"verdict {claim['expected']}")
        if not claim["passed"]:
            failed += 1
            kind = "error" if claim["verdict"] == "ERROR" else "failure"
            ElementTree.SubElement(case, kind, message=claim["problem"])
        suite.set("tests", str(len(claim["checks"]) + 1))
        errors = sum(case.find("error") is not None for case in suite)
        suite.set("errors", str(errors))
        suite.set("failures", str(failed - errors))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


# --- pictures ---------------------------------------------------------------------------------------------------------


def _inline_svg(text: str, title: str) -> str:
    """An SVG file's element alone, one picture of that title to screen readers, its identifiers unlike any other's."""
    body = text[text.index("<svg") :]
    prefix = f"f{zlib.crc32(body.encode()):08x}-"
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r"url\(#", f"url(#{prefix}", body)
    body = re.sub(r'href="#', f'href="#{prefix}', body)
    return body.replace("<svg", f'<svg class="plot" role="img" aria-label="{escape(title)}"', 1)


def _drawn(name: str) -> str:
    """A stored figure; where its data cannot be read, one sentence in its place, so that the rest is still reported."""
    try:
        return _inline_svg(gallery.svg(name), gallery.about(name)[0])
    except ValueError as problem:
        return f'<p class="verdict">This figure could not be drawn: {escape(str(problem))}</p>'


def _forest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Estimates with their intervals around the law, in units of the smallest detectable difference.

    The law sits at 0 (equal) or marks the edge of the allowed side (at most, at least); the hollow diamond is the
    mutant's value, on the edge with an arrowhead where it lies outside. Labels are text beside the strips, not in
    them, so that they stay readable when the page is narrow.
    """
    width, reach = 336, 3.0
    scale = (width - 24) / (2 * reach)

    def x(value: float, edge: float = reach) -> float:
        return width / 2 + max(-edge, min(edge, value)) * scale

    parts = ['<div class="forest" role="group" aria-label="estimates against the law">']
    for row in sorted(rows, key=vacuous):  # what any rate meets comes last
        unit = row["detectable"] if 0 < row["detectable"] < 1 else max(row["high"] - row["low"], 1e-12)
        low, high, estimate, mutant = ((row[k] - row["law"]) / unit for k in ("low", "high", "estimate", "mutant"))
        case = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in row["case"].items())
        sign = {"equal": "=", "at_most": "≤", "at_least": "≥"}[row["relation"]]
        numbers = (
            f"{row['estimate']:.6g} {sign} law {row['law']:.6g}; mutant {row['mutant']:.6g}; "
            f"{row['trials']:,} trials detect {row['detectable']:.2g}"
            + ("; any rate meets this, only the mutant needs it" if vacuous(row) else "")
        )
        m = x(mutant)  # an estimate stops a little before the edge, where a mutant's arrowhead would cover it
        if abs(mutant) <= reach:
            shape = f"M{m:.1f} 6l5 5l-5 5l-5 -5z"
        else:
            shape = f"M{m:.1f} 11l{-8 if mutant > 0 else 8} -5v10z"
        parts.append(
            f'<div class="row"><span>{escape(row["key"])}: {escape(case)}'
            f'<span class="numbers">{escape(numbers)}</span></span>'
            f'<svg viewBox="0 0 {width} 22" role="img" aria-label="{escape(numbers)}">'
            f"<title>[{row['low']:.6g}, {row['high']:.6g}]</title>"
            f'<line class="law" x1="{x(0):g}" x2="{x(0):g}" y1="0" y2="22"/>'
            f'<line class="interval" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="11" y2="11"/>'
            f'<circle cx="{x(estimate, 2.7):.1f}" cy="11" r="3.4"/><path class="mutant" d="{shape}"/></svg></div>'
        )
    ticks = "".join(f'<text class="tick" x="{x(t):g}" y="15">{t}</text>' for t in range(-3, 4))
    parts.append(
        '<div class="row"><span class="numbers">distance from the law, in smallest detectable differences</span>'
        f'<svg viewBox="0 0 {width} 20" aria-hidden="true">'
        f'<line class="axis" x1="{x(-reach):g}" x2="{x(reach):g}" y1="1" y2="1"/>{ticks}</svg></div></div>'
    )
    return "".join(parts)


def _overview(claims: Iterable[Record]) -> tuple[str, int]:
    """All rates that a law gives exactly, one bar each, in units of the smallest detectable difference; and their number."""
    width, height, reach = 1000, 150, 1.5
    rows = [
        (claim, row)
        for claim in claims
        for check in claim["checks"]
        for row in check["rows"]
        if row["relation"] == "equal" and 0 < row["detectable"] < 1
    ]

    def y(value: float) -> float:
        return height / 2 - max(-reach, min(reach, value)) * (height - 10) / (2 * reach)

    parts = [
        f'<svg class="overview" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="every simulated rate against its law">',
        *(f'<line class="{kind}" x1="0" x2="{width}" y1="{y(at):g}" y2="{y(at):g}"/>' for at, kind in LEVELS),
    ]
    for index, (claim, row) in enumerate(rows):
        x = (index + 0.5) * width / len(rows)
        low, high, estimate = (y((row[k] - row["law"]) / row["detectable"]) for k in ("low", "high", "estimate"))
        parts.append(
            f'<a href="#{escape(claim["id"])}"><title>{escape(claim["id"])}: {escape(row["key"])}</title>'
            f'<path class="interval" d="M{x:.1f} {low:.1f}V{high:.1f}"/><circle cx="{x:.1f}" cy="{estimate:.1f}" r="1.6"/></a>'
        )
    return "".join([*parts, "</svg>"]), len(rows)


LEVELS = ((1, "axis"), (0, "law"), (-1, "axis"))


# --- the page ---------------------------------------------------------------------------------------------------------


def _environment(link: markup.Link, study: markup.Link) -> Any:
    """link, study: where a claim, and the findings of a study, are shown."""
    import jinja2

    loader = jinja2.FileSystemLoader(DATA)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["rich"] = lambda text: markup.rich_text(text, link)
    environment.filters["proof"] = lambda text: markup.proof(text, link)
    environment.filters["forest"] = _forest
    environment.filters["study"] = study
    environment.filters["picture"] = _inline_svg
    environment.filters["drawn"] = _drawn
    return environment


def claim_body(claim: Record, link: markup.Link, study: markup.Link) -> str:
    """One claim's record as HTML; checks without `truth` and `mutant` have not been run."""
    body: str = _environment(link, study).get_template("claim.html").render(claim=claim)
    return body


def _bounds() -> str:
    """The name of the figure of what is wrong as printed, where the checkout that draws it is beside the package."""
    try:
        return "published_bounds" if "published_bounds" in gallery.names() else ""
    except FileNotFoundError:
        return ""


def _html(record: Record, audit_figure: str, folder: Path) -> str:
    claims = record["claims"]
    known = {claim["id"] for claim in claims}
    site = folder / ".." / "docs"  # `make docs` writes it beside the report
    findings = {path.stem for path in (site / "results").glob("*.html")}
    environment = _environment(
        lambda claim_id: f"#{claim_id}" if claim_id in known else None,
        lambda name: f"../docs/results/{name}.html" if name in findings else None,
    )
    rates = [row for claim in claims for check in claim["checks"] for row in check["rows"]]
    overview, equal = _overview(claims)
    bounds = "" if record.get("project") else _bounds()
    page: str = environment.get_template("report.html").render(
        record=record,
        audit_figure=audit_figure,
        tally=sorted(Counter(claim["verdict"] for claim in claims).items()),
        verdicts={claim["id"]: claim["verdict"] for claim in claims},
        corrected=[claim for claim in claims if claim["correction"]],
        rates=len(rates),
        vacuous=sum(map(vacuous, rates)),
        trials=sum(row["trials"] for row in rates),
        overview=overview,
        equal=equal,
        bounds=bounds,
        caption=gallery.about(bounds)[1] if bounds else "",
        site=(site / "index.html").exists(),
    )
    return page
