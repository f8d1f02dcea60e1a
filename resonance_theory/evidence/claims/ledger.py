"""The ledger: every claim found in a project, and the run that gives each its verdict."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resonance_theory import _extras
from resonance_theory.evidence import statistics
from resonance_theory.evidence.claims import limits
from resonance_theory.evidence.claims.claim import CheckResult, Claim, ClaimResult, Verdict
from resonance_theory.evidence.outcome import Outcome, Status, error
from resonance_theory.evidence.project import Project, default, folder, loaded, python_files, within
from resonance_theory.evidence.sampling import pool, ranks

__all__ = ["Ledger", "claim_ids", "folder", "holds_claim", "load", "read", "select", "strays", "topics", "verify"]

_CLAIM = re.compile(r"^claim\b.*=", re.MULTILINE)


def claim_ids(project: Project | None = None) -> list[str]:
    """Names of the claim files, sorted; a leading underscore marks a file that is no claim."""
    return sorted(_files(project))


def _candidates(project: Project | None) -> list[Path]:
    """Files that should hold a claim: our own one folder a topic, proofs/<topic>/<claim>.py; another project's anywhere."""
    project = project or default()
    if not project.own:
        return python_files(project.claims)
    found = sorted(folder("proofs").glob("*/*.py"))
    return [path for path in found if not path.stem.startswith("_") and (path.parent / "__init__.py").exists()]


def holds_claim(path: Path) -> bool:
    """Whether a file has a line that defines a claim; it is not imported."""
    return bool(_CLAIM.search(path.read_text(encoding="utf-8", errors="replace")))


def strays(project: Project | None = None) -> list[str]:
    """Files among the claims that define none, as topic/name.py; a run leaves them out."""
    return [f"{path.parent.name}/{path.name}" for path in _candidates(project) if not holds_claim(path)]


def _files(project: Project | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in filter(holds_claim, _candidates(project)):
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


def load(claim_id: str, project: Project | None = None) -> Claim:
    """The claim of one file, by its name."""
    return read(_files(project)[claim_id])


def read(path: Path) -> Claim:
    """The claim of a file; its name is the claim's id, and its folder the topic.

    Raises:
        TypeError: It defines no claim = Claim(...).
        Exception: Whatever the file itself raises.
    """
    module = loaded(path)
    claim = module.claim
    if not isinstance(claim, Claim):
        raise TypeError(f"{path.parent.name}/{path.name} must define claim = Claim(...)")
    claim.id, claim.topic = path.stem, path.parent.name
    claim.proof = (module.__doc__ or "").strip()
    return claim


def select(pattern: str = "", project: Project | None = None, places: Iterable[Path] = ()) -> list[str]:
    """Ids that equal, contain or match (shell wildcards) the pattern; all of them for an empty one.

    Args:
        pattern: Part of an id, or a shell pattern.
        project: Where to look; the working folder's by default.
        places: Files and folders that the claims must lie in; none for anywhere.

    Raises:
        ValueError: No claim matches.
    """
    files, places = _files(project), list(places)
    ids = sorted(i for i, path in files.items() if not places or within(path, places))
    if places and not ids:
        raise ValueError(f"{', '.join(map(str, places))} holds no claim: a file with a line claim = Claim(...)")
    chosen = [i for i in ids if not pattern or i == pattern or pattern in i or fnmatch.fnmatch(i, pattern)]
    if not chosen:
        near = difflib.get_close_matches(pattern, ids, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        where = "" if pattern else f" in {', '.join(map(str, (project or default()).claims))}"
        raise ValueError(
            f"pattern = {pattern!r} matches no claim{where}: {hint}`resonance claims` lists all {len(ids)}"
        )
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


def _record(claim_id: str, path: Path, alpha: float, full: bool, seed: int, limit: limits.Limit) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        loading = limit.for_loading()
        with loading.soft(), loading.hard():
            claim = read(path)
    except (Exception, SystemExit, limits.TimedOut) as problem:  # nothing but the file's name is known
        if isinstance(problem, ModuleNotFoundError) and _extras.of_claims(problem.name):
            raise  # an extra that every claim needs is not installed: no fault of this one's
        return _broken(claim_id, path, "loading the file", error(problem), time.perf_counter() - start)
    return claim.evaluate(alpha=alpha, full=full, seed=seed, limit=limit).to_json()


def _broken(claim_id: str, path: Path, check: str, said: Outcome, seconds: float) -> dict[str, Any]:
    """The record of a claim of which nothing is known but that it broke, and where."""
    claim = Claim(claim_id, "", "", "empirical", Verdict.PROVED, id=claim_id, topic=path.parent.name)
    return ClaimResult(claim, (CheckResult(check, "reference", said, said, seconds),)).to_json()


def verify(
    ids: Sequence[str],
    *,
    project: Project | None = None,
    full: bool = False,
    seed: int = 0,
    workers: int = 1,
    timeout: float | None = None,
    apart: bool = False,
    executor: Executor | None = None,
    on_result: Callable[[dict[str, Any]], None] | None = None,
) -> Ledger:
    """Evaluate claims over a pool of processes; the outcome does not depend on their number.

    Each claim gets an equal share of the false-alarm budget `statistics.ALPHA`, counted over the whole ledger whether or
    not all of it runs, so that a claim's verdict is the same alone and in company. A check that raises or takes too long makes
    its claim an ERROR and stops nothing. So does one that kills its process, or hangs in compiled code, where claims run in
    other processes than this one: with more than one worker, or `apart`. A file without a claim is named in a warning and
    left out.

    Args:
        ids: Names of claims, as `select` gives them.
        project: Where they lie; the working folder's project by default.
        full: Whether to simulate at the full sizes.
        seed: Whole number of at least 0.
        workers: Processes, at least 1.
        timeout: Seconds for each side of a check, and for a simulation; None for no limit.
        apart: Whether even a single worker is another process.
        executor: Any executor with the interface of `concurrent.futures`, in place of processes started here; its workers
            must see the files of the claims. Where they run calls in other threads than the main one, no timeout holds.
        on_result: Receives each record as it comes in.

    Returns:
        The ledger of these claims.

    Raises:
        ModuleNotFoundError: A package that all claims need is not installed.
        ValueError: It is started under torchrun.
    """
    if ranks.world() > 1:
        raise ValueError(
            f"WORLD_SIZE = {ranks.world()} must be 1 or unset: claims run over `workers`, not under torchrun"
        )
    project = project or default()
    if left := strays(project):
        names, more = ", ".join(left[:5]), f" and {len(left) - 5} more" if len(left) > 5 else ""
        said = "defines no claim = Claim(...) and is" if len(left) == 1 else "define no claim = Claim(...) and are"
        warnings.warn(f"{'proofs/' if project.own else ''}{names}{more} {said} left out", stacklevel=2)
    files = _files(project)
    records: dict[str, dict[str, Any]] = {}

    def collect(record: dict[str, Any]) -> None:
        records[record["id"]] = record
        if on_result is not None:
            on_result(record)

    with tempfile.TemporaryDirectory() as scratch:
        limit = limits.Limit(timeout, scratch if executor is None else None)
        shared = (statistics.ALPHA / len(files), full, seed, limit)
        _evaluate([(claim_id, files[claim_id], *shared) for claim_id in ids], workers, apart, executor, collect)
    return Ledger(tuple(records[i] for i in sorted(records)), seed, full, statistics.ALPHA)


def _evaluate(
    todo: list[Any],
    workers: int,
    apart: bool,
    executor: Executor | None,
    collect: Callable[[dict[str, Any]], None],
) -> None:
    """Evaluate claims, and go on after the death of a worker with those that were not done."""
    while todo:
        done: set[int] = set()

        def finish(index: int, record: dict[str, Any], done: set[int] = done) -> None:
            done.add(index)
            collect(record)

        try:
            pool.each(_record, todo, workers=workers, finish=finish, apart=apart, executor=executor)
            return
        except pool.Failed as failed:
            if not failed.died:
                raise (failed.__cause__ or failed) from None  # ModuleNotFoundError
        todo = [item for index, item in enumerate(todo) if index not in done]
        executor = None  # which may be broken for good
        # one of those under way is at fault, and which is seen where each has a process to itself
        suspects, todo = todo[: pool.AHEAD * workers], todo[pool.AHEAD * workers :]
        for suspect in suspects:
            _alone(suspect, collect)


def _alone(item: Any, collect: Callable[[dict[str, Any]], None]) -> None:
    start = time.perf_counter()
    try:
        pool.each(_record, [item], workers=1, finish=lambda _, record: collect(record), apart=True)
    except pool.Failed as failed:
        if not failed.died:
            raise (failed.__cause__ or failed) from None
        claim_id, path, *_, limit = item
        said = Outcome(Status.ERROR, f"its process died (killed, out of memory, or out of time){limit.last_frame()}")
        collect(_broken(claim_id, path, "running the claim", said, time.perf_counter() - start))
