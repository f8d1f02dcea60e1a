"""The start of a claim, study, rule or figure: this package's own template under a name of anybody's."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import resonance_theory
from resonance_theory import _output
from resonance_theory.evidence.project import Project, default, folder

__all__ = ["STARTS", "write"]

Files = dict[str, str]  # text by path below the project's root


def _template(path: Path, said: str) -> str:
    """The code of a file under another docstring."""
    text = path.read_text(encoding="utf-8")
    first = ast.parse(text).body[0]
    assert isinstance(first, ast.Expr)
    body = text.splitlines(keepends=True)[first.end_lineno :]
    return f'"""{said}"""\n\n{"".join(body).lstrip()}'


def _claim(name: str) -> Files:
    said = """In one sentence: what is true, and why.

This text is the proof on the claim's page. Every check runs with `claim.truth`, where it must hold, and with `claim.mutant`,
the nearest false neighbour, where it must fail.
"""
    return {f"{name}.py": _template(folder("proofs") / "_template.py", said)}


def _study(name: str) -> Files:
    said = "In one sentence: what is measured, and against which law.\n"
    tables = (("quick", 4, 10_000, [6]), ("full", 40, 100_000, [4, 6, 20]))
    settings = "\n".join(f"[{t}]\nblocks = {n}\nblock_size = {size}\nsides = {sides}\n" for t, n, size, sides in tables)
    return {f"{name}.py": _template(folder("simulations") / "_template.py", said), f"{name}.toml": settings}


def _figure(name: str) -> Files:
    said = """In one sentence: what the figure shows.

`DATA` names files of stored results, which `draw` receives in their order; it computes nothing.
"""
    text = _template(folder("paper_figures") / "_template.py", said)
    return {f"{name}.py": text.replace("figures/published_bounds.json", f"{name}.json")}


def _figure_data() -> str:
    return '{"small": {"capacity": [10, 20, 40, 80], "exact": [0.25, 0.5, 0.8, 1.0]}}\n'


def _rule(name: str) -> Files:
    title, kind = name.replace("_", " "), "".join(part.capitalize() for part in name.split("_"))
    said = f"""{title[:1].upper()}{title[1:]}: which candidates an expert keeps, and the law of that.

Known to `resonance plan` by an entry point of the group `resonance_theory.rules` in the pyproject.toml of your package:

    [project.entry-points."resonance_theory.rules"]
    {name} = "{name}:{name}"
"""
    home = Path(resonance_theory.__file__).parent / "rules"
    text = _template(home / "random_keep.py", said)
    for old, new in (("RandomKeep", kind), ("random_keep", name), ("random keep", title), ("Random keep", title)):
        text = text.replace(old, new)
    # the example shows figures of the rule that this one starts from
    return {f"{name}.py": text.replace(f"rt.{name}.", "rt.random_keep.")}


STARTS: dict[str, Callable[[str], Files]] = {"claim": _claim, "study": _study, "rule": _rule, "figure": _figure}
_KINDS = {"claim": "claims", "study": "studies", "figure": "figures"}
_USUAL = {"claims": "proofs", "studies": "simulations", "figures": "figures"}
_NEXT = {
    "claim": "resonance verify {0}",
    "study": "resonance simulate {0}",
    "figure": "resonance figures {0}",
    "rule": "rt.register_rule, or the entry point in its docstring; then resonance plan --rule {1}",
}


def _home(kind: str, project: Project) -> Path:
    """The folder of a project where such files are; the usual one in the working folder where no project says."""
    if kind not in _KINDS:
        return Path()
    places = [] if project.own else [place for place in project.places(_KINDS[kind]) if not place.is_file()]
    return places[0] if places else Path(_USUAL[_KINDS[kind]])


def write(kind: str, name: str, to: str | Path | None = None) -> tuple[list[Path], str]:
    """Write the files of a start, never over a file that is there.

    Args:
        kind: One of `STARTS`.
        name: A Python name.
        to: The folder; by default the one that the working folder's project has for such files.

    Returns:
        The files, and the command that runs what they hold.

    Raises:
        ValueError: A file is there already, or the folder cannot be written.
    """
    project = default()
    home = _home(kind, project) if to is None else Path(to)
    files = {home / file: text for file, text in STARTS[kind](name).items()}
    if kind == "figure":
        results = Path("results") if project.own else project.results
        files[(results if to is None else home / "results") / f"{name}.json"] = _figure_data()
    for path in files:
        if path.exists():
            raise ValueError(f"name = {name!r} must be another: {path} is there already")
    for path, text in files.items():
        _output.folder("folder", path.parent)
        _output.write(path, text)
    shown = [Path(os.path.relpath(path)) for path in files]
    first = str(shown[0]) if os.sep in str(shown[0]) else f"./{shown[0]}"
    return shown, _NEXT[kind].format(first, name)
