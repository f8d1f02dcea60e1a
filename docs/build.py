"""The pages that `make docs` generates: the README as the start, the tour, one page a claim, a study, a public module.

A hook of MkDocs (mkdocs.yml). Nothing about a claim is written by hand here or there: its page comes from its file in
`proofs/`, and from the record of the last `make verify` where there is one (out/report/ledger.json).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import resonance_theory as rt  # noqa: E402
from resonance_theory.evidence.claims import coverage, ledger  # noqa: E402
from resonance_theory.evidence.claims.claim import Claim  # noqa: E402
from resonance_theory.evidence.pages import gallery, markup, report  # noqa: E402

RECORD = ROOT / "out" / "report" / "ledger.json"
SIMULATIONS = ROOT / "simulations"
FINDINGS = SIMULATIONS / "findings"
TOPICS = ledger.topics()


# --- claims -----------------------------------------------------------------------------------------------------------


def recorded() -> dict[str, Mapping[str, Any]]:
    """Claims of the last verification run by id, if there was one that today's records resemble."""
    if not RECORD.exists():
        return {}
    try:
        return {claim["id"]: claim for claim in report.read(RECORD)["claims"]}
    except ValueError:  # of an older version
        return {}


def still_valid(claim: Claim, run: Mapping[str, Any] | None) -> bool:
    """Whether a run speaks of the claim as its file now stands: same statement, same proof, same checks."""
    if run is None:
        return False
    names = [[c.kind, c.name] for c in claim.checks] + [["simulation", s.name] for s in claim.simulations]
    same = all(run.get(name) == getattr(claim, name) for name in ("statement", "mutation", "correction", "proof"))
    return same and [[c["kind"], c["name"]] for c in run["checks"]] == names


def claim_record(claim: Claim, run: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the page shows: texts from the claim's file, evidence from a run that is `still_valid`."""
    problem = run["problem"] if run else ""
    names = [(c.kind, c.name) for c in claim.checks] + [("simulation", s.name) for s in claim.simulations]
    checks = run["checks"] if run else [{"kind": kind, "name": name} for kind, name in names]
    fields = ("id", "topic", "title", "statement", "source", "kind", "correction", "mutation", "reason", "proof")
    lists = {name: list(getattr(claim, name)) for name in ("hypotheses", "lemmas", "formal", "studies")}
    return {**{name: getattr(claim, name) for name in fields}, **lists, "problem": problem, "checks": checks}


def earned(claim: Claim, run: Mapping[str, Any] | None) -> str:
    """The verdict of the run; without one, the verdict that the ledger stands for."""
    return run["verdict"] if run else claim.expected.value


def fenced(title: str, code: str) -> str:
    body = "\n".join(f"    {line}".rstrip() for line in code.strip().splitlines())
    return f'??? abstract "{title}"\n\n    ```python\n{body}\n    ```\n'


def quoted(text: str) -> str:
    return text.replace('"', "'").replace("<", "&lt;")


def claim_page(claim: Claim, run: Mapping[str, Any] | None, ids: Iterable[str]) -> str:
    """The Markdown of one claim: its card as in the report, then the code of every check and the whole file."""
    known = set(ids)
    known_studies = {path.stem for path in FINDINGS.glob("*.md")}
    body = report.claim_body(
        claim_record(claim, run),
        lambda i: f"{i}.html" if i in known else None,
        lambda name: f"../results/{name}.html" if name in known_studies else None,
    )
    body = re.sub(r"\n\s*\n", "\n", body)  # a blank line would end the block of HTML
    body = re.sub(r"<pre>(.*?)</pre>", lambda m: "<pre>" + m[1].replace("\n", "&#10;") + "</pre>", body, flags=re.S)
    verdict = earned(claim, run)
    ran = "evidence from the last `make verify`" if run else "not run for this page; the ledger stands for the verdict"
    lines = [
        f"# {claim.title}",
        f'<span class="verdict {verdict}">{verdict}</span> &nbsp; {claim.kind}, {ran} · [all claims](index.md)',
        body.strip(),
        "## The checks, as they run",
    ]
    for check in claim.checks:
        lines.append(fenced(quoted(f"{check.kind}: {check.name}"), inspect.getsource(check.run)))
    for simulation in claim.simulations:
        sources = "\n\n".join(
            inspect.getsource(f) for f in (simulation.sample, simulation.law) if f.__name__ != "<lambda>"
        )
        lines.append(fenced(quoted(f"simulation: {simulation.name}"), sources))
    whole = (ledger.folder("proofs") / claim.topic / f"{claim.id}.py").read_text(encoding="utf-8")
    lines.append(fenced(f"the whole file, proofs/{claim.topic}/{claim.id}.py", whole))
    if not (claim.checks or claim.simulations):
        lines.remove("## The checks, as they run")
    return "\n\n".join(lines) + "\n"


def group(claim: Claim) -> str:
    """Where a claim stands in the list: the title of its folder."""
    return TOPICS[claim.topic]


def claims_index(claims: Sequence[Claim], runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The list of all claims, and the published statements with the claims on each."""
    lines = ["# Claims", f"{len(claims)} claims, each with its statement, hypotheses, proof, checks and mutant."]
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(group(claim), []).append(claim)

    def cell(text: str) -> str:
        return text.replace("|", "&#124;").replace("$", r"\$")

    def verdict(claim: Claim) -> str:
        word = earned(claim, runs.get(claim.id))
        return f'<span class="verdict {word}">{word}</span>'

    for name in sorted(groups, key=list(TOPICS.values()).index):
        rows = [f"| [{cell(c.title)}]({c.id}.md)<br>`{c.id}` | {verdict(c)} |" for c in groups[name]]
        lines += [f"## {name}", "\n".join(["| claim | verdict |", "|---|---|", *rows])]
    rows = []
    for row in coverage.records(claims):
        links = ", ".join(f"[{i}]({i}.md)" for i in row["claims"])
        cells = (f"{row['paper']} {row['place']}", row["text"], links)
        rows.append("| " + " | ".join(map(cell, cells)) + " |")
    lines += [
        "## Statement by statement through the papers",
        "\n".join(["| place | as published | claims |", "|---|---|---|", *rows]),
    ]
    return "\n\n".join(lines) + "\n"


def stated() -> dict[str, list[str]]:
    """For each claim, the functions and classes of the library whose docstrings name it ("Claim: token_choice_exact.")."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "resonance_theory").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                continue
            name = module if isinstance(node, ast.Module) else f"{module}.{node.name}"
            for ids in re.findall(r"\bClaims?: ([a-z0-9_*, \n]+)", ast.get_docstring(node) or ""):
                for claim in re.findall(r"\w+", ids):
                    found.setdefault(claim, []).append(name)
    return found


def tags_page(claims: Sequence[Claim]) -> str:
    """Tag = claim = functions, for the claims that no paper states; then the others that functions rest on."""
    functions = stated()
    rows = [
        f"| {claim.tag or '&nbsp;'} | [{claim.title.replace('|', '&#124;')}]({claim.id}.md) | "
        + ", ".join(f"`{name}`" for name in functions.get(claim.id, ()))
        + " |"
        for claim in sorted(
            claims, key=lambda c: (not c.tag, c.tag[:1], int(re.sub(r"\D.*", "", c.tag[1:]) or 0), c.id)
        )
        if claim.tag or claim.id in functions
    ]
    return "\n".join(["# Tags and claims", "", "| tag | claim | functions |", "|---|---|---|", *rows, ""])


# --- results, figures and the tour ------------------------------------------------------------------------------------


def tour() -> str:
    """The notebook as Markdown: its texts, its code, and what the code printed."""
    parts = []
    for cell in json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        printed = "".join(line for output in cell.get("outputs", []) for line in output["text"])
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Finding:
    """What a study of trained networks found: its name, title, Markdown without its title, and the figures of its record."""

    name: str
    title: str
    text: str
    figures: tuple[str, ...]


def titled(path: Path) -> tuple[str, str]:
    """Title and the rest of a page of Markdown."""
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    return first.lstrip("# ").strip(), rest.strip()


def findings() -> list[Finding]:
    """Every study's finding: those that RESULTS.md links in the order of their last link, then the others by name."""
    overview = titled(SIMULATIONS / "RESULTS.md")[1]
    linked = list(dict.fromkeys(reversed(re.findall(r"\(findings/(\w+)\.md\)", overview))))[::-1]
    files = sorted(FINDINGS.glob("*.md"), key=lambda p: (linked.index(p.stem) if p.stem in linked else len(linked), p))
    drawn = {name: {Path(file).stem for file in gallery.about(name)[2]} for name in gallery.names()}
    result = []
    for path in files:
        title, text = titled(path)
        figures = tuple(name for name, data in drawn.items() if path.stem in data)
        result.append(Finding(path.stem, re.sub(r"\s*\(`\w+`\)$", "", title), text, figures))
    return result


def picture(name: str, folder: str) -> str:
    """The figure, a link to itself at full size, and its caption."""
    title, caption, _ = gallery.about(name)
    address = f"{folder}{name}.svg"
    return f"[![{title}]({address})]({address})\n\n{caption}\n{{ .caption }}"


def result_links(text: str) -> str:
    """Links of simulations/ as links of the site; of a file that is no page only the words stay."""

    def address(match: re.Match[str]) -> str:
        words, file = match[1], Path(match[2])
        if file.suffix == ".md":
            return f"[{words}]({file.name})"
        known = file.suffix == ".py" and file.parent.parent.name == "proofs"
        return f"[{words}](../theory/{file.stem}.md)" if known else words

    return re.sub(r"\[([^]]+)\]\((?!https?:)([^)#]+)[^)]*\)", address, text)


def result_pages() -> dict[str, str]:
    """Training results, one page a study, and all figures with the files that draw them."""
    title, text = titled(SIMULATIONS / "RESULTS.md")
    out = {"results/index.md": f"# {title}\n\n{result_links(text)}\n"}
    for finding in findings():
        parts = [f"# {finding.title}", *(picture(name, "../figures/") for name in finding.figures)]
        out[f"results/{finding.name}.md"] = "\n\n".join([*parts, result_links(finding.text)]) + "\n"
    parts = ["# Figures", "Drawn from stored results alone; `resonance figures` writes each as SVG and PNG."]
    for name in gallery.names():
        title, _, data = gallery.about(name)
        source = f"`paper_figures/{name}.py`, from " + ", ".join(f"`simulations/results/{file}`" for file in data)
        parts += [f"## {title}", picture(name, "figures/"), f"{source}\n{{ .caption }}"]
    return {**out, "figures.md": "\n\n".join(parts) + "\n"}


def record_page() -> str:
    """The list of JSON Schemas, one for each kind of record."""
    lines = [
        "# JSON records",
        "Every command writes its result with `--json FILE`. Its `provenance` says how it was made: `version`, `commit` and "
        "whether the checkout was `dirty`, `time` in UTC, `python`, `platform` and `packages`. These JSON Schemas "
        "(draft 2020-12) describe the rest; the tests check the commands' records against them.",
        "| schema | of |\n|---|---|\n"
        + "\n".join(f"| [{name}.json](schemas/{name}.json) | {report.schema(name)['title']} |" for name in schemas()),
    ]
    return "\n\n".join(lines) + "\n"


def schemas() -> list[str]:
    return sorted(path.stem for path in (report.DATA / "schemas").glob("*.json"))


# --- the library and the start ----------------------------------------------------------------------------------------


# besides the names of `rt.`: what the author of a claim needs, and the function `rt.plan` with what it returns
FURTHER = (
    "planning",
    "provenance",
    "evidence.outcome",
    "evidence.statistics",
    "evidence.claims.claim",
    "evidence.claims.certify",
    "evidence.claims.ledger",
    "evidence.claims.compare",
    "evidence.project",
)


def modules() -> dict[str, str]:
    """Public names of the package and the modules behind them."""
    return dict(sorted({**rt._MODULES, **{name: f"resonance_theory.{name}" for name in FURTHER}}.items()))


def api_page(name: str, module: str) -> str:
    """A page of mkdocstrings directives: the module's docstring, then what its `__all__` lists."""
    public = getattr(importlib.import_module(module), "__all__", []) if name not in ("nn", "kernels") else _all(module)
    lazy = {} if name in ("nn", "kernels") else getattr(importlib.import_module(module), "_NAMES", {})
    places = [f"{lazy.get(member, module)}.{member}" for member in public]  # what loads on first use is found at home
    members = [f"::: {place}\n    options:\n      heading_level: 2" for place in places]
    return "\n\n".join(
        [
            f"# `rt.{name}`",
            f"::: {module}\n    options:\n      members: false\n      show_root_heading: false",
            *members,
        ]
    )


def _all(module: str) -> list[str]:
    """`__all__` of a module that needs torch or numba, read without importing it."""
    path = ROOT / Path(*module.split(".")) / "__init__.py"
    found = re.search(r"__all__ = \[(.*?)\]", path.read_text(encoding="utf-8"), re.S)
    return re.findall(r'"(\w+)"', found[1]) if found else []


def api_index() -> str:
    rows = []
    for name, module in modules().items():
        path = ROOT / Path(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        first = re.match(r'"""(.+?)(?:\n\n|"""|$)', file.read_text(encoding="utf-8"), re.S)
        summary = " ".join(first[1].split()) if first else ""
        rows.append(f"| [`rt.{name}`]({name}.md) | {summary.replace('|', '&#124;')} |")
    return "\n".join(
        [
            "# Reference",
            "",
            "`import resonance_theory as rt`; submodules load on first use.",
            "",
            "| module | |",
            "|---|---|",
            *rows,
        ]
    )


def site_links(text: str) -> str:
    """Links of the checkout as links of the site: a claim's file is its page."""
    # docs/ is the site's root: a path that leaves it has one step up too many
    text = re.sub(r"\(((?:\.\./)*)proofs/\w+/(\w+)\.py\)", lambda m: f"({m[1][3:]}theory/{m[2]}.md)", text)
    text = text.replace("](proofs)", "](theory/index.md)").replace("](../proofs)", "](theory/index.md)")
    return (
        text.replace("](docs/", "](")
        .replace("](tour.ipynb)", "](tour.md)")
        .replace("](simulations/RESULTS.md)", "](results/index.md)")
    )


def formulas(html: str) -> str:
    """The spans that arithmatex leaves around LaTeX as MathML."""

    def convert(match: re.Match[str]) -> str:
        latex = unescape(match[2]).strip()
        block = match[1] == "div"
        return markup.mathml(latex[2:-2].strip(), "block" if block else "inline")

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', convert, html, flags=re.S)


def pages() -> dict[str, str]:
    """Every generated page by its path."""
    ids, runs = ledger.claim_ids(), recorded()
    claims = [ledger.load(i) for i in ids]
    runs = {claim.id: runs[claim.id] for claim in claims if still_valid(claim, runs.get(claim.id))}
    out = {"index.md": (ROOT / "README.md").read_text(encoding="utf-8"), "theory/index.md": claims_index(claims, runs)}
    out["theory/tags.md"] = tags_page(claims)
    out |= {f"theory/{claim.id}.md": claim_page(claim, runs.get(claim.id), ids) for claim in claims}
    out |= {"tour.md": tour(), "records.md": record_page()} | result_pages()
    out |= {"api/index.md": api_index()} | {
        f"api/{name}.md": api_page(name, module) for name, module in modules().items()
    }
    return out


# --- MkDocs calls these -----------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    claims: dict[str, list[Any]] = {}
    for claim in map(ledger.load, ledger.claim_ids()):
        claims.setdefault(group(claim), []).append({claim.id: f"theory/{claim.id}.md"})
    systems = sorted(path.name for path in (ROOT / "docs" / "systems").glob("*.md") if path.stem != "index")
    config.nav += [
        {"Explorer": "explorer.html"},
        {"Related systems": ["systems/index.md", *(f"systems/{name}" for name in systems)]},
        {
            "Results": [
                "results/index.md",
                *(f"results/{finding.name}.md" for finding in findings()),
                {"Figures": "figures.md"},
            ]
        },
        {
            "Claims": [
                "theory/index.md",
                {"Tags": "theory/tags.md"},
                *({name: claims[name]} for name in sorted(claims, key=list(TOPICS.values()).index)),
            ]
        },
        {
            "Reference": [
                "api/index.md",
                {"JSON records": "records.md"},
                *({f"rt.{name}": f"api/{name}.md"} for name in modules()),
            ]
        },
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    style = (report.DATA / "claim.css").read_text(encoding="utf-8")
    generated = pages()
    explorer = (report.DATA / "explorer.html").read_text(encoding="utf-8")
    for path, content in {**generated, "assets/claim.css": style, "explorer.html": explorer}.items():
        files.append(File.generated(config, path, content=content))
    for name in gallery.names():
        files.append(File.generated(config, f"figures/{name}.svg", content=gallery.svg(name)))
    for name in schemas():
        files.append(
            File.generated(config, f"schemas/{name}.json", abs_src_path=str(report.DATA / f"schemas/{name}.json"))
        )
    for path in re.findall(r"!\[[^]]*\]\((?!http)([^)]+)\)", generated["index.md"]):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def drawn(markdown: str) -> str:
    """The page of a system with each figure that it names, before the paragraph that says how to draw it."""
    said = r"^`resonance figures (\w+)` draws it"
    return re.sub(said, r"![The figure \1](../figures/\1.svg)\n\n\g<0>", markdown, flags=re.M)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    if page.file.src_uri.startswith("systems/"):
        return site_links(drawn(markdown))
    return markdown if "/" in page.file.src_uri else site_links(markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    return formulas(html)
