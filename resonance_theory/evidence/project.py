"""Where claims, studies and figures lie: this package's own, or a project of anybody's.

A project says so in its `pyproject.toml`; paths are relative to it, and these are the defaults:

    [tool.resonance]
    claims = ["proofs"]          # files, or folders with one claim a file
    studies = ["simulations"]    # each study has a file and a TOML beside it
    figures = ["figures"]
    results = "results"          # what figures read and `simulate --record` writes

An installed package offers its own by an entry point of the group `resonance_theory.claims`, `.studies` or `.figures`: a name
and the module, package or file's folder that holds them.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

__all__ = [
    "ADDED",
    "KINDS",
    "Project",
    "default",
    "find",
    "folder",
    "loaded",
    "of",
    "python_files",
    "recorded",
    "within",
]

KINDS = {"claims": "proofs", "studies": "simulations", "figures": "figures"}
"""What a project holds, and the folder where it is looked for unless the project says otherwise."""

_HERE = Path(__file__).resolve().parents[2]
_BUNDLE = _HERE / "resonance_theory" / "_bundled"  # where a wheel carries the folders of the checkout
_PASSED_BY = re.compile(r"conftest|setup|test_.*|.*_test")
_NOT_SEARCHED = {"venv", "node_modules", "site-packages", "build", "dist"}


@dataclass(frozen=True)
class Project:
    """Files and folders to search.

    Attributes:
        root: The folder that relative names start from.
        claims, studies, figures: Files and folders.
        results: The folder of stored results.
        own: Whether it is this package's own.
    """

    root: Path
    claims: tuple[Path, ...] = ()
    studies: tuple[Path, ...] = ()
    figures: tuple[Path, ...] = ()
    results: Path = Path("results")
    own: bool = False

    def places(self, kind: str) -> tuple[Path, ...]:
        """Where claims, studies or figures are."""
        found: tuple[Path, ...] = getattr(self, kind)
        return found

    def short(self, path: Path) -> str:
        """A path below the root as it is read best."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def folder(name: str) -> Path:
    """A folder of this package's own (`proofs`, `simulations`, `paper_figures`): of the checkout, or as the wheel carries it.

    Raises:
        FileNotFoundError: It is in neither.
    """
    base = _BUNDLE if _BUNDLE.is_dir() else _HERE
    if not (base / name).is_dir():
        raise FileNotFoundError(f"the folder {name}/ is not beside the package at {base}: install the package anew")
    _importable(base)
    return base / name


def recorded(name: str) -> Path:
    """A folder of this package's own to write records in; ValueError where that is an installed wheel, not a checkout."""
    if _BUNDLE.is_dir():
        raise ValueError(f"records of {name}/ are stored in a checkout of the project, not in the installed {_BUNDLE}")
    return folder(name)


ADDED: list[str] = []
"""Folders that were added to the path of this process, for workers that do not inherit it."""


def _importable(base: Path) -> None:
    """Let modules below the folder be imported here and, as they inherit the path, in processes started from here."""
    if str(base) not in ADDED:
        ADDED.append(str(base))
    if str(base) not in sys.path:
        sys.path.append(str(base))  # never before what is installed: a claim may have the name of a library


def loaded(path: Path) -> ModuleType:
    """The module of a Python file, under its name in the package that holds it, or else under its own.

    Raises:
        ValueError: Another module has that name.
    """
    path = path.resolve()
    base = path.parent
    while (base / "__init__.py").exists():
        base = base.parent
    _importable(base)
    name = ".".join(path.relative_to(base).with_suffix("").parts)
    importlib.invalidate_caches()
    module = import_module(name)
    file = getattr(module, "__file__", None)
    if file is None or not os.path.samefile(file, path):
        raise ValueError(f"{path} needs another name: the module {name} is {file or 'built in'} already")
    return module


def python_files(places: Iterable[Path]) -> list[Path]:
    """Python files named, and those in the folders named and below; names with a leading underscore, tests, hidden folders and
    environments left out, unless they are named themselves."""
    found: dict[Path, None] = {}
    for place in places:
        if place.is_file():
            found[place] = None
        for path in sorted(place.rglob("*.py")) if place.is_dir() else []:
            parts = path.relative_to(place).parts
            hidden = any(part.startswith(("_", ".")) or part in _NOT_SEARCHED for part in parts)
            if not hidden and not _PASSED_BY.fullmatch(path.stem):
                found[path] = None
    return list(found)


def within(path: Path, places: Iterable[Path]) -> bool:
    """Whether a path is one of the places or below one."""
    return any(path.resolve().is_relative_to(place.resolve()) for place in places)


def _own() -> Project:
    base = _BUNDLE if _BUNDLE.is_dir() else _HERE
    claims, studies, figures = ((base / name,) for name in ("proofs", "simulations", "paper_figures"))
    return Project(base, claims, studies, figures, base / "simulations" / "results", own=True)


def _table(file: Path) -> dict[str, object] | None:
    """[tool.resonance] of a pyproject.toml; None where it has none."""
    try:
        tools = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError) as problem:
        raise ValueError(f"{file} cannot be read ({problem})") from None
    table = tools.get("resonance") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ValueError(f"tool.resonance of {file} must be a table")
    return table


def _configured(start: Path) -> Project | None:
    """The project of the nearest pyproject.toml with [tool.resonance], in the folder or above."""
    for root in (start, *start.parents):
        file = root / "pyproject.toml"
        table = _table(file) if file.is_file() else None
        if table is not None:
            return _project(file, table)
    return None


def _project(file: Path, table: dict[str, object]) -> Project:
    known = (*KINDS, "results")
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"tool.resonance.{key} of {file} is unknown: it must be one of {', '.join(known)}{hint}")
    places = {}
    for kind, usual in KINDS.items():
        places[kind] = tuple(_named(file, kind, table[kind]) if kind in table else [file.parent / usual])
    results = _named(file, "results", table.get("results", "results"), there=False)
    claims, studies, figures = (places[kind] for kind in KINDS)
    return Project(file.parent, claims, studies, figures, next(iter(results)))


def _named(file: Path, key: str, value: object, there: bool = True) -> Iterator[Path]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"tool.resonance.{key} = {value!r} of {file} must be a path or a list of paths")
    for name in names:
        path = file.parent / name
        if there and not path.exists():
            raise ValueError(f"tool.resonance.{key} = {value!r} of {file} names {name}, which is not there")
        yield path.resolve()


def default() -> Project:
    """The project of the working folder, from the nearest pyproject.toml with [tool.resonance]; else this package's own."""
    return _configured(Path.cwd()) or _own()


def of(places: Sequence[Path], kind: str) -> Project:
    """The project that holds these files and folders of a kind; they alone where none does."""
    places = [place.resolve() for place in places]
    for project in (_own(), _configured(places[0] if places[0].is_dir() else places[0].parent)):
        if project is not None and all(within(place, project.places(kind)) for place in places):
            return project
    start = places[0] if places[0].is_dir() else places[0].parent
    results = next((path for base in (start, start.parent) if (path := base / "results").is_dir()), start / "results")
    return Project(start, **{kind: tuple(places)}, results=results)  # type: ignore[arg-type]


def _module_place(name: str) -> Path | None:
    """The file or folder of an importable module or package; None for a name that is none."""
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin in ("built-in", "frozen"):
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin else None


def _place(word: str, kind: str) -> Path | None:
    """The file or folder that a word names: a path, an entry point, or a dotted module; None for a pattern."""
    if not word:
        return None
    path = Path(word)
    if "/" in word or os.sep in word or word.endswith(".py"):
        if not path.exists():
            raise FileNotFoundError(f"{kind} = {word!r} must be a file or folder that is there")
        return path
    if path.is_dir():
        return path
    for entry in metadata.entry_points(group=f"resonance_theory.{kind}", name=word):
        found = _module_place(entry.value)
        if found is None:
            raise ValueError(
                f"the entry point {word} of resonance_theory.{kind} names {entry.value}, which is not there"
            )
        return found
    return _module_place(word) if "." in word else None


def find(words: Sequence[str], kind: str) -> tuple[Project, list[Path], list[str]]:
    """What the words of a command name: the project, files and folders of it to choose from, and patterns of names.

    A word is a path if it has a slash, ends in .py or names a folder; an entry point; a module if it has a dot; and a
    pattern of names otherwise.

    Args:
        words: From a command line.
        kind: "claims", "studies" or "figures".

    Raises:
        FileNotFoundError, ValueError: A path that is not there, or a `pyproject.toml` that says nothing that can be used.
    """
    named = {word: _place(word, kind) for word in words if word}
    places = [place for place in named.values() if place is not None]
    project = of(places, kind) if places else default()
    return project, places, [word for word, place in named.items() if place is None]
