"""The report of a verification run: HTML pages that load nothing, Markdown, JUnit XML and JSON.

A pure rendering of the stored record (`resonance verify --json`), and of the training results and figures that the checkout
stores: nothing is computed here that a verdict rests on.
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
from resonance_theory.evidence.pages import markup, results

__all__ = ["claim_body", "prepare", "read", "write"]

FORMAT = "resonance-theory ledger 1"
Record = Mapping[str, Any]


def prepare(directory: str | Path) -> Path:
    """Make the report folder, or say in one sentence why it cannot be written; before the work, not after."""
    return _output.folder("report folder", directory)


def read(path: str | Path) -> dict[str, Any]:
    """A stored ledger record; one sentence if the file is none."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise ValueError(f"record = {str(path)!r} cannot be read ({problem.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"record = {str(path)!r} must be the JSON of `resonance verify --json` ({problem})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"record = {str(path)!r} must be the JSON of `resonance verify --json` (format {FORMAT!r})")
    return record


def write(record: Record, directory: str | Path, *, audit_report: Any = None) -> Path:
    """Write index.html, training.html, figures.html, ledger.md, junit.xml and ledger.json; returns the first's path.

    `audit_report` draws the audit's figure; without it the page shows the audit's numbers alone.
    """
    folder = prepare(directory)
    audit_figure = ""
    if audit_report is not None:
        buffer = io.BytesIO()
        audit_report.figure(buffer)
        audit_figure = buffer.getvalue().decode()
    contents = {
        **_html(record, audit_figure),
        "ledger.md": _markdown(record),
        "junit.xml": _junit(record),
        "ledger.json": json.dumps(record, indent=1, allow_nan=False) + "\n",
    }
    for name, text in contents.items():
        _output.write(folder / name, text)
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
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def _drawn(figure: results.Figure) -> str:
    """A stored figure; where its data cannot be read, one sentence in its place, so that the rest is still reported."""
    try:
        return _inline_svg(figure.svg(), figure.title)
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

    def x(value: float) -> float:
        return width / 2 + max(-reach, min(reach, value)) * scale

    parts = ['<div class="forest" role="group" aria-label="estimates against the law">']
    for row in rows:
        unit = row["detectable"] if 0 < row["detectable"] < 1 else max(row["high"] - row["low"], 1e-12)
        low, high, estimate, mutant = ((row[k] - row["law"]) / unit for k in ("low", "high", "estimate", "mutant"))
        case = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in row["case"].items())
        sign = {"equal": "=", "at_most": "≤", "at_least": "≥"}[row["relation"]]
        numbers = (
            f"{row['estimate']:.6g} {sign} law {row['law']:.6g}; mutant {row['mutant']:.6g}; "
            f"{row['trials']:,} trials detect {row['detectable']:.2g}"
        )
        m = x(mutant)
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
            f'<circle cx="{x(estimate):.1f}" cy="11" r="3.4"/><path class="mutant" d="{shape}"/></svg></div>'
        )
    ticks = "".join(f'<text class="tick" x="{x(t):g}" y="15">{t}</text>' for t in range(-3, 4))
    parts.append(
        '<div class="row"><span class="numbers">distance from the law, in smallest detectable differences</span>'
        f'<svg viewBox="0 0 {width} 20" aria-hidden="true">'
        f'<line class="axis" x1="{x(-reach):g}" x2="{x(reach):g}" y1="1" y2="1"/>{ticks}</svg></div></div>'
    )
    return "".join(parts)


# --- the page ---------------------------------------------------------------------------------------------------------


def _flat(rows: Iterable[Record]) -> list[Mapping[str, Any]]:
    return [row for claim in rows for check in claim["checks"] for row in check["rows"]]


def _environment(link: markup.Link, study: markup.Link) -> Any:
    """link, study: where a claim, and the findings of a study, are shown."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parents[2] / "data")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["rich"] = lambda text: markup.rich_text(text, link)
    environment.filters["proof"] = lambda text: markup.proof(text, link)
    environment.filters["forest"] = _forest
    environment.filters["study"] = study
    environment.filters["picture"] = _inline_svg
    environment.filters["drawn"] = _drawn
    environment.filters["markdown"] = lambda text, sink: markup.markdown(
        text, link, lambda file: _address(file, link), sink
    )
    return environment


def _address(file: str, link: markup.Link) -> str | None:
    """Where the report shows a file that stored Markdown links to: a finding or a claim."""
    name = Path(file.partition("#")[0])
    if name.suffix == ".md":
        return f"#{name.stem}"
    return link(name.stem) if name.parent.parent.name == "proofs" else None


def claim_body(claim: Record, link: markup.Link, study: markup.Link) -> str:
    """One claim's record as HTML; checks without `truth` and `mutant` have not been run."""
    return _environment(link, study).get_template("claim.html").render(claim=claim)


PAGES = (
    ("index.html", "Ledger of claims"),
    ("training.html", "Training results"),
    ("figures.html", "Speed and figures"),
)
ABSENT = (
    "Training results, benchmark and figures are stored in the folders simulations/ and paper_figures/ of a checkout, "
    "and this report was written by an installation without them."
)


def _stored() -> dict[str, Any]:
    """What the checkout stores beside the proofs; a sentence in its place where there is no checkout."""
    try:
        findings, drawn = results.findings(), results.figures()
        training = {figure.name for finding in findings for figure in finding.figures}
        return {
            "overview": results.overview(),
            "findings": findings,
            "figures": [figure for figure in drawn if figure.name not in training],
            "bounds": next(figure for figure in drawn if figure.name == "published_bounds"),
            "speed": results.speed(),
        }
    except FileNotFoundError:
        return {"absent": ABSENT}


def _html(record: Record, audit_figure: str) -> dict[str, str]:
    """The pages by file name."""
    known = {claim["id"] for claim in record["claims"]}
    rates = _flat(record["claims"])
    shown = {
        "record": record,
        "audit_figure": audit_figure,
        "tally": sorted(Counter(claim["verdict"] for claim in record["claims"]).items()),
        "verdicts": {claim["id"]: claim["verdict"] for claim in record["claims"]},
        "corrected": [claim for claim in record["claims"] if claim["correction"]],
        "rates": len(rates),
        "trials": sum(row["trials"] for row in rates),
        "pages": PAGES,
        **_stored(),
    }
    templates = {"index.html": "report.html", "training.html": "training.html", "figures.html": "figures.html"}
    return {file: _page(file, template, known, shown) for file, template in templates.items()}


def _page(file: str, template: str, known: set[str], shown: Mapping[str, Any]) -> str:
    ledger = "" if file == "index.html" else "index.html"
    findings = {finding.name for finding in shown.get("findings", ())}
    environment = _environment(
        lambda claim_id: f"{ledger}#{claim_id}" if claim_id in known else None,
        lambda name: f"training.html#{name}" if name in findings else None,
    )
    return environment.get_template(template).render(**shown, here=file)
