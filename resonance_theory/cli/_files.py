"""Files and folders among the arguments: which are read and which written, so that none is overwritten by mistake."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from resonance_theory import _output

__all__ = ["Drawing", "Folder", "Input", "Json", "Output", "Store", "check", "overwrites"]


class Input(str):
    """A file that is read, or a folder with all that is in it."""

    def holds(self, path: str) -> bool:
        """Whether a file to be written, as a real path, is this one or in it, by whatever name."""
        mine = os.path.realpath(self)
        if path == mine or _same(path, mine):
            return True
        if not os.path.isdir(mine):
            return False
        return path.startswith(os.path.join(mine, "")) or any(_same(path, entry.path) for entry in os.scandir(mine))


class Store(Input):
    """A store of finished blocks: a file, with those of other ranks beside it, or a folder of them."""

    def holds(self, path: str) -> bool:
        mine, (folder, name) = os.path.realpath(self), os.path.split(path)
        beside = path.startswith(f"{mine}.rank") or (folder == mine and ".jsonl" in name)
        return path == mine or _same(path, mine) or beside


class Output(str):
    """A file that is written."""

    def holds(self, path: str) -> bool:
        """Whether another file to be written, as a real path, is this one."""
        return path == os.path.realpath(self) or _same(path, self)


class Json(Output):
    """A file for a record, or `-` for standard output. A lone word is more likely a claim or a study: it is refused."""


class Drawing(Output):
    """A file for a figure."""


class Folder(Output):
    """A folder that receives a report: anything but records under names of the user's."""

    def holds(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return folder == os.path.realpath(self) and (name == "ledger.json" or not name.endswith(".json"))


def _same(a: str, b: str) -> bool:
    try:
        return os.path.samefile(a, b)
    except (OSError, ValueError):
        return False


def overwrites(path: str, other: Input | Output) -> bool:
    """Whether writing `path` would replace the other, or a part of it."""
    return other.holds(os.path.realpath(path))


def check(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse, before the work, files that cannot be read or written, and outputs that replace an input or each other.

    Raises:
        ValueError: one sentence with the argument and its value.
    """
    called = {a.dest: a.option_strings[-1] if a.option_strings else str(a.metavar) for a in parser._actions}
    given = {called[dest]: value for dest, value in vars(options).items() if isinstance(value, Input | Output)}
    for label, path in given.items():
        if isinstance(path, Input) and os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise ValueError(f"{label} = {str(path)!r} is a device or a pipe but must be a file")
    written = sorted((label, path) for label, path in given.items() if isinstance(path, Output) and path != "-")
    every = getattr(options, "all", False)  # makes its store's folder
    folders = (path for path in given.values() if isinstance(path, Folder) or (every and isinstance(path, Store)))
    made = {os.path.realpath(path) for path in folders}
    taken: dict[str, Input | Output] = {label: path for label, path in given.items() if isinstance(path, Input)}
    taken |= {label: path for label, path in written if isinstance(path, Folder)}
    files = [
        (label, path) for label, path in written if not isinstance(path, Folder)
    ]  # folders are made by the command
    for label, path in files:
        for other, its in taken.items():
            if overwrites(path, its):
                raise ValueError(f"{label} = {str(path)!r} would overwrite {other}: name another file")
        taken[label] = path
    for label, path in files:
        if isinstance(path, Json):
            _check_name(label, path)
        _output.check(label, path, made)
        if isinstance(path, Drawing):
            from resonance_theory import _style  # and with it, before the work, whether matplotlib is there

            _style.file_kind(str(path))


def _check_name(label: str, path: str) -> None:
    """Refuse a name under which nobody looks for JSON: most likely it was meant as another argument."""
    kind, lone = Path(path).suffix, os.path.basename(path) == path
    if kind != ".json" and (kind or lone) and not (os.path.exists(path) and not os.path.isfile(path)):
        wanted = f"such as {Path(path).stem}.json" + (f" or ./{path}" if lone and not kind else "")
        raise ValueError(f"{label} = {str(path)!r} must be a file {wanted}, or - for standard output")
