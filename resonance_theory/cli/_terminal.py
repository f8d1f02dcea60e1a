"""What is shown on a terminal or sent down a pipe: harmless, never the reason why a result is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from resonance_theory import _output

__all__ = ["close", "colour", "complain", "emit", "lost", "prepare", "room", "show", "visible"]

_COLOURS = {"PROVED": "32", "SUPPORTED": "36", "CORRECTED": "33", "REFUTED": "35", "NOT REPRODUCIBLE HERE": "2"}
# control characters, ends of line, and marks that turn the direction of writing
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_lost: list[OSError] = []  # why standard output takes no more


def prepare() -> None:
    """Make standard output and error safe to write to.

    Raises:
        ValueError: standard output is closed, so that no result could be delivered.
    """
    _lost.clear()
    for number in (0, 1, 2):  # else the next file that is opened takes the number, and is printed into
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        raise ValueError("standard output is closed: redirect it to a file or to /dev/null")


def _silence(stream: Any) -> None:
    """Drop what a stream still holds: the interpreter would fail on it again at its end, with status 120."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def show(text: str) -> None:
    """Print; where standard output takes no more, the work goes on and `close` says so."""
    if _lost:
        return
    try:
        print(text, flush=True)
    except OSError as problem:
        _lost.append(problem)
        _silence(sys.stdout)


def lost() -> bool:
    """Whether standard output takes no more."""
    return bool(_lost)


def complain(text: str) -> None:
    """One line on standard error, if it takes any."""
    try:
        print(visible(" ".join(text.split())), file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def close(status: int) -> int:
    """The exit status, once everything is printed. A reader who left, as `head` does, is no error; a full disk is."""
    if sys.stdout is not None and not _lost:
        try:
            sys.stdout.flush()
        except OSError as problem:
            _lost.append(problem)
            _silence(sys.stdout)
    if _lost and not isinstance(_lost[0], BrokenPipeError):
        complain(f"resonance: standard output cannot be written ({_lost[0].strerror or _lost[0]})")
        return status or 2
    return status


def visible(value: Any) -> Any:
    """A text, or every text in a record or result, with what a terminal would obey written out.

    Example:
        >>> print(visible("layer\\x1b[2J"))
        layer\\x1b[2J
    """
    if isinstance(value, str):
        return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    if isinstance(value, tuple | list):
        return type(value)(map(visible, value))
    if isinstance(value, Mapping):
        return {visible(key): visible(entry) for key, entry in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value))
        return dataclasses.replace(value, **{name: visible(getattr(value, name)) for name in fields})
    return value


def room() -> int | None:
    """Columns of the terminal; None where standard output is none, and nothing needs to be left out."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def colour(text: str, verdict: str) -> str:
    """The text in the colour of a verdict, on a terminal alone."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{_COLOURS.get(verdict, '31')}m{text}\033[0m"


def emit(record: Any, path: str | None, text: str) -> None:
    """Show the text; with --json FILE also write the record there, first; with `--json -` show the record instead."""
    content = None if path is None else json.dumps(record, indent=1, allow_nan=False)
    if path == "-":
        text = str(content)
    elif path is not None:
        _output.write(path, f"{content}\n")
    show(text)
