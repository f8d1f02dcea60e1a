"""The ledger: every claim found in `proofs/`, and the run that gives each its verdict."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resonance_theory.evidence import statistics
from resonance_theory.evidence.claims.claim import CheckResult, Claim, ClaimResult, Verdict
from resonance_theory.evidence.outcome import error
from resonance_theory.evidence.sampling import pool, ranks

__all__ = ["Ledger", "claim_ids", "folder", "load", "select", "strays", "topics", "verify"]

_CLAIM = re.compile(r"^claim\b.*=", re.MULTILINE)


def folder(name: str) -> Path:
    """A folder of the checkout (`proofs`, `simulations`, ...), which an installed wheel does not carry."""
    path = Path(__file__).resolve().parents[3] / name
    if not path.is_dir():
        raise FileNotFoundError(
            f"the folder {name}/ is not beside the package at {path.parent}: "
            "clone the project and install it with `pip install -e .` to use it"
        )
    return path


def claim_ids() -> list[str]:
    """Names of the claim files, sorted; a leading underscore marks a file that is no claim."""
    return sorted(_files())


def _candidates() -> list[Path]:
    """Files that should hold a claim, one folder a topic: proofs/<topic>/<claim>.py."""
    found = sorted(folder("proofs").glob("*/*.py"))
    return [path for path in found if not path.stem.startswith("_") and (path.parent / "__init__.py").exists()]


def _holds_claim(path: Path) -> bool:
    return bool(_CLAIM.search(path.read_text(encoding="utf-8", errors="replace")))


def strays() -> list[str]:
    """Files of `proofs/` that should hold a claim and define none, as topic/name.py; a run leaves them out."""
    return [f"{path.parent.name}/{path.name}" for path in _candidates() if not _holds_claim(path)]


def _files() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in filter(_holds_claim, _candidates()):
        if path.stem in found:
            raise ValueError(
                f"{path.parent.name}/{path.name} has the name of {found[path.stem].parent.name}/{path.name}"
            )
        found[path.stem] = path
    return found


def topics() -> dict[str, str]:
    """Name and title of each topic folder of proofs/; the title is the first line of its package's docstring."""
    names = sorted(path.parent.name for path in folder("proofs").glob("*/__init__.py"))
    titles = {name: importlib.import_module(f"proofs.{name}").__doc__ or name for name in names}
    return {name: title.strip().splitlines()[0].rstrip(".") for name, title in titles.items()}


def load(claim_id: str) -> Claim:
    """The claim of one file."""
    topic = _files()[claim_id].parent.name
    module = importlib.import_module(f"proofs.{topic}.{claim_id}")
    claim = module.claim
    if not isinstance(claim, Claim):
        raise TypeError(f"proofs/{topic}/{claim_id}.py must define claim = Claim(...)")
    claim.id, claim.topic = claim_id, topic
    claim.proof = (module.__doc__ or "").strip()
    return claim


def select(pattern: str = "") -> list[str]:
    """Ids that equal, contain or match (shell wildcards) the pattern; all of them for an empty one."""
    ids = claim_ids()
    chosen = [i for i in ids if not pattern or i == pattern or pattern in i or fnmatch.fnmatch(i, pattern)]
    if not chosen:
        near = difflib.get_close_matches(pattern, ids, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"pattern = {pattern!r} matches no claim: {hint}`resonance claims` lists all {len(ids)}")
    return chosen


@dataclass(frozen=True)
class Ledger:
    """Results of a run, in the order of their ids, as plain JSON-able records (`ClaimResult.to_json`)."""

    results: Sequence[dict[str, Any]]
    seed: int
    full: bool
    budget: float

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(result["passed"] for result in self.results)


def _record(claim_id: str, alpha: float, full: bool, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        claim = load(claim_id)
    except ModuleNotFoundError:  # an extra that is not installed: no fault of the claim's
        raise
    except (Exception, SystemExit) as problem:  # a file that cannot be imported: nothing but its name is known
        said = error(problem)
        claim = Claim(claim_id, "", "", "empirical", Verdict.PROVED, id=claim_id, topic=_files()[claim_id].parent.name)
        check = CheckResult("loading the file", "reference", said, said, time.perf_counter() - start)
        return ClaimResult(claim, (check,)).to_json()
    return claim.evaluate(alpha=alpha, full=full, seed=seed).to_json()


def verify(
    ids: Sequence[str],
    *,
    full: bool = False,
    seed: int = 0,
    workers: int = 1,
    on_result: Callable[[dict[str, Any]], None] | None = None,
) -> Ledger:
    """Evaluate claims over a pool of processes; the outcome does not depend on their number.

    Each claim gets an equal share of the false-alarm budget `statistics.ALPHA`, counted over the whole ledger whether or
    not all of it runs, so that a claim's verdict is the same alone and in company. A check that raises makes its claim an
    ERROR and stops nothing; a file without a claim is named in a warning and left out.

    Args:
        ids: Names of claims, as `select` gives them.
        full: Whether to simulate at the full sizes.
        seed: Whole number of at least 0.
        workers: Processes, at least 1.
        on_result: Receives each record as it comes in.

    Returns:
        The ledger of these claims.

    Raises:
        RuntimeError: A worker process died; nothing of the run is kept.
        ValueError: It is started under torchrun.
    """
    if ranks.world() > 1:
        raise ValueError(
            f"WORLD_SIZE = {ranks.world()} must be 1 or unset: claims run over `workers`, not under torchrun"
        )
    for stray in strays():
        warnings.warn(f"proofs/{stray} defines no claim = Claim(...) and is left out", stacklevel=2)
    alpha = statistics.ALPHA / len(claim_ids())
    records: dict[str, dict[str, Any]] = {}

    def collect(_: int, record: dict[str, Any]) -> None:
        records[record["id"]] = record
        if on_result is not None:
            on_result(record)

    try:
        pool.each(_record, [(claim_id, alpha, full, seed) for claim_id in ids], workers=workers, finish=collect)
    except pool.Failed as failed:
        if failed.died:
            text = f"a worker process died (killed, or out of memory) at the claim {ids[failed.index]}, or soon after"
            raise RuntimeError(text) from failed.__cause__
        raise (failed.__cause__ or failed) from None  # ModuleNotFoundError
    return Ledger(tuple(records[i] for i in sorted(records)), seed, full, statistics.ALPHA)
