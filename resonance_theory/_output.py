"""Files and folders that are written: whole or not at all, and refused before the work if they cannot be."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["check", "folder", "write"]


def check(name: str, path: str | Path) -> None:
    """Raise ValueError, calling the argument by its name, where a file cannot be written."""
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"{name} = {str(path)!r} is a folder but must be a file")
    parent = target.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ValueError(f"{name} = {str(path)!r} cannot be written: its folder must exist and be writable")


def folder(name: str, path: str | Path) -> Path:
    """The folder, made where it is missing; ValueError, calling it by its name, where it cannot be written."""
    target = Path(path)
    if not str(path):
        raise ValueError(f"{name} = '' must name a folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        probe = target / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise ValueError(f"{name} = {str(path)!r} must be writable ({problem.strerror or problem})") from None
    return target


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) completely or not at all: an earlier one stays until the new one is whole.

    A link is followed, and a device or pipe written as it is, not replaced by a file. Raises OSError naming the path.
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(path).resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        try:
            part.write_bytes(data)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as problem:
        raise OSError(f"{str(path)!r} cannot be written ({problem.strerror or problem})") from None
