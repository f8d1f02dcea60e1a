"""An append-only store of finished blocks: JSON lines that survive a kill at any byte."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from resonance_theory import _output
from resonance_theory.evidence.sampling.task import Tally, Task, identity, versions

__all__ = ["Store", "merge"]

_FORMAT = "resonance-theory store 1"
_START = b'{"crc": '
_SYNC = 5.0  # seconds of work that a power cut may cost; a killed process loses no finished block


def _line(record: dict[str, Any]) -> bytes:
    """One record with the checksum of its own text."""
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    return (json.dumps({"crc": zlib.crc32(text.encode()), "record": record}, sort_keys=True) + "\n").encode()


def _parse(line: bytes) -> dict[str, Any]:
    """Raises ValueError unless the line is whole and its checksum fits."""
    try:
        outer = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(outer, dict) or set(outer) != {"crc", "record"} or not isinstance(outer["record"], dict):
        raise ValueError("not a line of a store")
    if zlib.crc32(json.dumps(outer["record"], sort_keys=True).encode()) != outer["crc"]:
        raise ValueError("its checksum differs")
    return outer["record"]


class Store:
    """Finished blocks on disk, one JSON line each: task id, block number, tally.

    The first line names the format and the versions that drew the blocks below; a resumed run with other versions adds
    such a line. Before a task's first block stands a line with its name, sampler, parameters, block size and seed.

    A half line at the end (an interrupted write) is cut off on opening and its block simply runs again; damage anywhere
    else is refused with its line number, and the file left alone. Where files can be locked, a second process is kept
    out. Use as a context manager.

    Why not SQLite: two stores are merged by `cat`, differences are read in any editor, damage is found line by line where
    a database of which a page is damaged is lost or silently short, and there are no side files to carry along.

    Args:
        path: A regular file, made where it is missing.
        resume: Whether to go on with the blocks that it holds.
        alter: Whether the file may be changed; otherwise it is read alone.

    Attributes:
        lines: Its whole lines, if it is read alone.
        blocks: Tallies by task id and block.
        cut: Bytes of an interrupted line that were removed on opening.

    Raises:
        ValueError: The path cannot be used, the file is no store or damaged, or it holds results and `resume` is false.
    """

    def __init__(self, path: str | Path, *, resume: bool, alter: bool = True) -> None:
        self.path = Path(path)
        self._alter = alter
        self.lines: list[bytes] = []
        self.cut = 0
        self.blocks: dict[str, dict[int, Tally]] = {}
        self._block_size: dict[str, int] = {}  # of each task described so far
        self._versions: dict[str, Any] = {}
        self._drawn: dict[str, list[dict[str, Any]]] = {}  # versions that drew a task's blocks
        self._synced = time.monotonic()
        try:
            if self.path.exists() and not self.path.is_file():  # reading a device or a pipe might never end
                raise ValueError(f"store = {str(path)!r} must be a regular file")
            # Unbuffered, so that a failed write leaves nothing behind to be written later.
            self._file = open(self.path, "a+b" if alter else "rb", buffering=0)  # noqa: SIM115  closed by __exit__
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
        except ImportError:  # not a POSIX system: two runs on one store are the user's to avoid
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"store = {str(self.path)!r} is in use by another process") from None
        except OSError:  # a file system without locks
            return

    def _read(self, content: bytes) -> None:
        *lines, tail = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                self._take(_parse(line), first=number == 1)
            except (ValueError, KeyError, TypeError) as problem:
                self._refuse(number, problem)
        if tail[: len(_START)] != _START[: len(tail)]:
            self._refuse(len(lines) + 1, "not a line of a store")
        self.cut = len(tail)
        if not self._alter:
            self.lines = lines
            return
        if tail:
            self._file.truncate(len(content) - len(tail))
        if self._versions != versions():
            self._append({"format": _FORMAT, "versions": versions()})

    def _refuse(self, number: int, problem: object) -> None:
        raise ValueError(
            f"store = {str(self.path)!r} is damaged or no store: line {number} cannot be read ({problem}); "
            "the file was left as it is"
        ) from None

    def _take(self, record: dict[str, Any], *, first: bool) -> None:
        if first or "format" in record:
            if record.get("format") != _FORMAT or not isinstance(record["versions"], dict):
                raise ValueError(f"its format is not {_FORMAT!r}")
            self._versions = record["versions"]
        elif "block" in record:
            self._take_block(record["task"], record["block"], Tally.from_json(record["tally"]))
        else:
            task = record.pop("task")
            if identity(record) != task:
                raise ValueError("a task's id does not belong to its description")
            self._block_size[task] = record["block_size"]

    def _take_block(self, task: str, block: Any, tally: Tally) -> None:
        if type(block) is not int or block < 0:
            raise ValueError(f"block = {block!r} is not a whole number of at least 0")
        if task not in self._block_size:
            raise ValueError("a block stands before the description of its task")
        if tally.trials != self._block_size[task]:
            raise ValueError(f"block {block} has {tally.trials} trials where its task has {self._block_size[task]}")
        if self.blocks.setdefault(task, {}).setdefault(block, tally) != tally:
            raise ValueError(f"block {block} differs from an earlier line")
        if self._versions not in self._drawn.setdefault(task, []):
            self._drawn[task].append(self._versions)

    def other_versions(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """Versions other than the present ones that drew stored blocks of these tasks."""
        found: list[dict[str, Any]] = []
        for made in (made for id in ids for made in self._drawn.get(id, ())):
            if made != versions() and made not in found:
                found.append(made)
        return found

    def _append(self, record: dict[str, Any]) -> None:
        line, size = _line(record), os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(None, "no space left")
            if time.monotonic() - self._synced > _SYNC:
                self._sync()
        except OSError as problem:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise OSError(
                f"store = {str(self.path)!r} cannot be written ({problem.strerror}); finished blocks are kept"
            ) from None

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def add(self, task: Task, block: int, tally: Tally) -> None:
        """Append one finished block; in the kernel's hands when this returns, so a killed process loses nothing.

        Raises OSError where it cannot be written; the file then ends with the block before.
        """
        if task.id not in self._block_size:
            self._append({"task": task.id, **task.describe()})
            self._block_size[task.id] = task.block_size
        self._append({"task": task.id, "block": block, "tally": tally.to_json()})
        self.blocks.setdefault(task.id, {})[block] = tally

    def close(self) -> None:
        """Force everything to the disk and release the file."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._sync()
            self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def merge(out: str | Path, parts: Sequence[str | Path]) -> str:
    """Write a store with the blocks of others, which are left as they are; returns a sentence on it.

    Raises:
        ValueError: A part is no store, two have the same block, or a block is missing below another of its task; then nothing
            is written. What is missing above all others cannot be seen: a resumed run draws it.
    """
    owner: dict[tuple[str, int], str] = {}
    lines: list[bytes] = []
    for part in parts:
        if not Path(part).is_file():
            raise ValueError(f"part = {str(part)!r} must be a store")
        with Store(part, resume=True, alter=False) as one:
            lines += one.lines
            for key in ((task, block) for task, blocks in one.blocks.items() for block in blocks):
                if key in owner:
                    raise ValueError(f"part = {str(part)!r} has block {key[1]} of a task, which {owner[key]!r} has too")
                owner[key] = str(part)
    counts: dict[str, set[int]] = {}
    for task, block in owner:
        counts.setdefault(task, set()).add(block)
    for task, blocks in counts.items():
        if gap := sorted(set(range(max(blocks))) - blocks):
            raise ValueError(
                f"parts = {len(parts)} files lack block {gap[0]} of the task {task}, but have block {max(blocks)}"
            )
    if not owner:
        raise ValueError(f"parts = {len(parts)} files hold no finished block")
    _output.write(out, b"".join(line + b"\n" for line in lines))
    return f"{len(owner)} blocks of {len(counts)} tasks from {len(parts)} parts"
