"""Text to train on that ships with CPython: the sources of its library, of its tests, and its documentation topics.

Nothing is downloaded, so every reader with the same Python has the same bytes; their SHA-256 says so. Files of equal
content count once. Each file goes to one of three splits by the hash of its content, so no file is in two of them.
"""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resonance_theory.evidence.studies.study import Unavailable

__all__ = ["SPLITS", "check", "collect", "digest", "load", "split"]

SPLITS = {"training": 0.8, "calibration": 0.1, "test": 0.1}
# What an installation adds: packages, its own configuration, byte code.
LEFT_OUT = ("site-packages/", "dist-packages/", "config-", "__pycache__/")


def collect(root: Path) -> dict[str, bytes]:
    """Contents by path below root, in the order of the paths: the .py files, without copies, empty ones and LEFT_OUT."""
    files: dict[str, bytes] = {}
    seen = set()
    for path in sorted(p.relative_to(root).as_posix() for p in root.rglob("*.py")):
        if any(path.startswith(part) or f"/{part}" in path for part in LEFT_OUT) or "_sysconfigdata" in path:
            continue
        content = (root / path).read_bytes()
        key = hashlib.sha256(content).digest()
        if content and key not in seen:
            seen.add(key)
            files[path] = content
    return files


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the paths and contents."""
    total = hashlib.sha256()
    for path, content in files.items():
        total.update(f"{path}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def split(files: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Paths of each of SPLITS, by the hash of the content alone: other files move no file from one split to another."""
    edges = np.cumsum(list(SPLITS.values()))[:-1]
    paths: dict[str, list[str]] = {name: [] for name in SPLITS}
    for path, content in files.items():
        place = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64
        paths[list(SPLITS)[int(np.searchsorted(edges, place, side="right"))]].append(path)
    return paths


def check(found: str, accepted: Sequence[str], python: str) -> None:
    """Raises Unavailable, a ValueError, unless the corpus is one whose hash the study's settings hold."""
    if found not in accepted:
        raise Unavailable(
            f"the library of Python {python} is a corpus of SHA-256 {found}, which `corpora` in the study's TOML does not "
            "hold: write it there to train on this text, or use a Python whose hash stands there"
        )


@cache
def load(accepted: tuple[str, ...]) -> dict[str, NDArray[np.uint8]]:
    """The bytes of each split of this Python's library, its files one after the other."""
    files = collect(Path(sysconfig.get_paths()["stdlib"]))
    check(digest(files), accepted, platform.python_version())
    return {name: np.frombuffer(b"".join(files[p] for p in paths), np.uint8) for name, paths in split(files).items()}
