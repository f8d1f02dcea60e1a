"""An append-only store of finished blocks: JSON lines that survive a kill at any byte."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from resonance_theory.montecarlo.task import Tally, Task

__all__ = ["Store"]

_FORMAT = "resonance-theory store 1"


def _line(record: dict[str, Any]) -> str:
    """One record with the checksum of its own text."""
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    return json.dumps({"crc": zlib.crc32(text.encode()), "record": record}, sort_keys=True) + "\n"


def _parse(line: str) -> dict[str, Any]:
    """Raises ValueError unless the line is whole and its checksum fits."""
    outer = json.loads(line)
    if not isinstance(outer, dict) or set(outer) != {"crc", "record"} or not isinstance(outer["record"], dict):
        raise ValueError("not a store line")
    if zlib.crc32(json.dumps(outer["record"], sort_keys=True, allow_nan=False).encode()) != outer["crc"]:
        raise ValueError("checksum differs")
    return outer["record"]


class Store:
    """Finished blocks on disk, one line each: task id, block number, tally.

    The first line names the format and the versions. A half line at the end (an interrupted write) is cut off on
    opening and its block simply runs again; damage anywhere else is refused with its line number, and the file left
    alone. A lock keeps a second process out. Use as a context manager.
    """

    def __init__(self, path: str | Path, *, resume: bool) -> None:
        self.path = Path(path)
        self.cut = 0  # bytes of an interrupted line removed on opening
        self.blocks: dict[str, dict[int, Tally]] = {}
        if self.path.is_dir():
            raise ValueError(f"store = {str(path)!r} is a folder but must be a file")
        try:
            self._file: IO[bytes] = open(self.path, "a+b")  # noqa: SIM115  closed by __exit__
        except OSError as problem:
            raise ValueError(f"store = {str(path)!r} cannot be written ({problem.strerror})") from None
        try:
            self._lock()
            self._file.seek(0)
            content = self._file.read()
            if content and not resume:
                raise ValueError(
                    f"store = {str(path)!r} already holds results: give --resume to go on, or name another file"
                )
            self._read(content)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not a POSIX system: no lock, as before locks existed
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"store = {str(self.path)!r} is in use by another process") from None

    def _read(self, content: bytes) -> None:
        whole = content[: content.rfind(b"\n") + 1]
        for number, raw in enumerate(whole.splitlines(), start=1):
            try:
                record = _parse(raw.decode())
                if number == 1:
                    if record.get("format") != _FORMAT:
                        raise ValueError(f"format is not {_FORMAT!r}")
                else:
                    self.blocks.setdefault(str(record["task"]), {})[int(record["block"])] = Tally.from_json(
                        record["tally"]
                    )
            except (ValueError, KeyError, TypeError) as problem:
                raise ValueError(
                    f"store = {str(self.path)!r} is damaged or no store at line {number} ({problem}); "
                    "it was left as it is"
                ) from None
        if content and not whole and not content[:6] == b'{"crc"'[: len(content)]:
            raise ValueError(f"store = {str(self.path)!r} is no store; it was left as it is")
        self.cut = len(content) - len(whole)
        if self.cut:
            self._file.truncate(len(whole))
        if not whole:
            self._append(
                {
                    "format": _FORMAT,
                    "python": platform.python_version(),
                    "numpy": np.__version__,
                    "platform": f"{platform.system()} {platform.machine()}",
                }
            )

    def _append(self, record: dict[str, Any]) -> None:
        self._file.write(_line(record).encode())
        self._file.flush()

    def add(self, task: Task, block: int, tally: Tally) -> None:
        """Append one finished block; in the kernel's hands when this returns, so a killed process loses nothing."""
        self._append({"task": task.id, "block": block, "tally": tally.to_json(), "name": task.name})
        self.blocks.setdefault(task.id, {})[block] = tally

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.fsync(self._file.fileno())  # and on the disk, in case the machine itself goes down
        self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.blocks)
