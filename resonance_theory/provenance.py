"""Where a record comes from: this package's version and commit, the time, and what it ran on."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["provenance"]

PACKAGES = ("numpy", "scipy", "sympy", "python-flint", "mpmath", "numba", "torch")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """The commit of a checkout and whether anything in it differs; (None, None) where `root` is not one itself.

    A wheel installed in an environment inside another project's repository must not take that project's commit.
    """
    if not (root / ".git").exists():
        return None, None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    return commit, None if commit is None or changes is None else bool(changes)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def provenance() -> dict[str, Any]:
    """Fields that every record carries, so that it can be repeated.

    Returns:
        A JSON-able dictionary: `version` of this package; `commit` of its checkout and whether that is `dirty` (changed or
        untracked files), both None for an installed wheel; `time`, now, in UTC to the second; `python`, `platform`; and
        `packages`, the versions of what the numbers rest on, None for one that is not installed. Nothing is imported.

    Example:
        >>> from resonance_theory.provenance import provenance
        >>> sorted(provenance())
        ['commit', 'dirty', 'packages', 'platform', 'python', 'time', 'version']
    """
    from resonance_theory import __version__

    commit, dirty = _commit(Path(__file__).resolve().parents[1])
    return {
        "version": __version__,
        "commit": commit,
        "dirty": dirty,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }
