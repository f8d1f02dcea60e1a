"""Files and folders that are written: whole or not at all, and refused before the work if they cannot be."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

__all__ = ["check", "folder", "write"]


def _obstacle(path: str | Path) -> str | None:
    """What stands in the way of writing to something that is there already; raises OSError where it is unknown."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return "is a folder but must be a file"
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        return "is a disk or a socket but must be a file"
    # a superuser could write to a file without any permission to write, but hardly means to
    if not mode & 0o222 or not os.access(path, os.W_OK):
        return "cannot be written: it is read-only"
    return None


def check(name: str, path: str | Path, made: Collection[str] = ()) -> None:
    """Refuse a file that could not be written, before the work.

    Args:
        name: what the argument is called.
        path: the file; what is there already may be a file, a pipe or a character device.
        made: real paths of folders that will have been made until then.

    Raises:
        ValueError: one sentence with name and path.
    """
    label = f"{name} = {str(path)!r}"
    try:
        obstacle = _obstacle(path)
    except FileNotFoundError:
        parent = os.path.dirname(os.path.realpath(path))
        if parent in made or (os.path.isdir(parent) and os.access(parent, os.W_OK)):
            return
        obstacle = "cannot be written: its folder must exist and be writable"
    except (OSError, ValueError) as problem:
        obstacle = f"cannot be written ({getattr(problem, 'strerror', None) or problem})"
    if obstacle is not None:
        raise ValueError(f"{label} {obstacle}")


def folder(name: str, path: str | Path) -> Path:
    """The folder, made where it is missing; ValueError, calling it by its name, where it cannot be written."""
    target = Path(path)
    if not str(path):
        raise ValueError(f"{name} = '' must name a folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target):
            pass
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise ValueError(f"{name} = {str(path)!r} must be writable ({reason})") from None
    return target


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) completely or not at all: an earlier one stays until the new one is on the disk.

    A link is followed, and a device or pipe written as it is, not replaced by a file. A file that is replaced keeps its
    permissions and, where that is allowed, its owner; its other hard links keep the earlier content.

    Raises:
        OSError: one sentence with the path.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            _through(path, data)
        else:
            _replace(Path(path).resolve(), data)
    except OSError as problem:
        raise OSError(f"{str(path)!r} cannot be written ({problem.strerror or problem})") from None


def _through(path: str | Path, data: bytes) -> None:
    """Write into a device or pipe; a pipe that nobody reads is an error, not a wait without end."""
    obstacle = _obstacle(path)
    if obstacle is not None:
        raise OSError(f"it {obstacle}")
    with open(os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)), "wb") as file:
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(file.fileno(), True)
        file.write(data)


def _replace(target: Path, data: bytes) -> None:
    earlier = target.stat() if target.exists() else None
    if earlier is not None and not earlier.st_mode & 0o222:
        raise PermissionError("it is read-only")
    # a name that nobody can foresee, made anew and never through a link: the folder may be shared
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(part, flags, 0o666 if earlier is None else 0o600), "wb") as file:
            if earlier is not None and hasattr(os, "fchown"):
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), earlier.st_uid, earlier.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(earlier.st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every system can: then the name is as safe as it makes it
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
