"""Every study of a project, one after the other: what `make evidence` runs."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from resonance_theory.evidence.project import Project
from resonance_theory.evidence.sampling import ranks
from resonance_theory.evidence.studies import study
from resonance_theory.evidence.studies.result import StudyResult, head
from resonance_theory.evidence.studies.study import Unavailable
from resonance_theory.provenance import provenance

__all__ = ["Evidence", "run_all"]


@dataclass(frozen=True)
class Evidence:
    """What came of one study.

    Attributes:
        name: The study's.
        result: What it found; None where it broke off.
        problem: Why it broke off, in one sentence; else empty.
        seconds: How long it took.
        absent: Whether it broke off because something it needs is not on this machine.
    """

    name: str
    result: StudyResult | None
    problem: str
    seconds: float
    absent: bool = False

    @property
    def status(self) -> str:
        """passed, failed, or neither of them.

        not run    something it needs is not on this machine
        no claim   trainings without the premises, or of a size, from which anything may be claimed
        undecided  a comparison of trainings that this few runs leave open, and none violated
        """
        if self.result is None:
            return "not run" if self.absent else "failed"
        if self.result.passed:
            return "passed"
        verdicts = {row["verdict"] for row in self.result.rows if "expect" in row}
        if "NO CLAIM" in verdicts:
            return "no claim"
        return "undecided" if "INCONCLUSIVE" in verdicts and "VIOLATED" not in verdicts else "failed"

    def line(self) -> str:
        """One line for a terminal."""
        said = self.problem if self.result is None else self.result.table().splitlines()[-1].split("; ")[0]
        mark = {"passed": "✓", "failed": "✗"}.get(self.status, "?")
        return f"{mark} {self.name:<24} {self.seconds:6.1f} s  {self.status:<9}  {said}"

    def to_json(self) -> dict[str, Any]:
        record = head(self.name, False) | {"provenance": provenance()} if self.result is None else self.result.to_json()
        return {**record, "status": self.status, "problem": self.problem}


def run_all(
    pattern: str = "*",
    *,
    project: Project | None = None,
    full: bool = False,
    seed: int = 0,
    workers: int = 1,
    store: str | Path | None = None,
    resume: bool = False,
    on_result: Callable[[Evidence], None] = lambda _: None,
    progress: IO[str] | None = None,
) -> list[Evidence]:
    """Run the studies whose names match, in alphabetical order; one that fails does not stop the others.

    Every study has its own false-alarm budget.

    Args:
        pattern: Shell pattern of names.
        project: Where they lie; the working folder's project by default.
        full, seed, workers, progress: As for `run_study`.
        store: Folder of finished blocks, one file <study>.jsonl each, made where it is missing.
        resume: Whether to go on from what the store holds.
        on_result: Receives each study as it ends.

    Returns:
        What came of each.

    Raises:
        ValueError: Nothing matches, the store cannot be used, or the environment holds only part of what torchrun sets.
    """
    ranks.rank()
    names = [name for name in study.studies(project) if fnmatch.fnmatch(name, pattern)]
    if not names:
        raise ValueError(f"study = {pattern!r} matches none of {', '.join(study.studies(project))}")
    folder = None if store is None else Path(store)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ValueError(f"store = {str(store)!r} must be a folder for --all ({problem.strerror})") from None
    found = []
    for name in names:
        start, result, said, absent = time.perf_counter(), None, "", False
        file = None if folder is None else folder / f"{name}.jsonl"
        try:
            result = study.run_study(
                name,
                project=project,
                full=full,
                seed=seed,
                workers=workers,
                store=file,
                resume=resume,
                progress=progress,
            )
        except Exception as problem:  # whatever a study raises, the others still have their say
            said = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
            absent = isinstance(problem.__cause__ or problem, Unavailable | ModuleNotFoundError)  # or a sampler met it
        found.append(Evidence(name, result, said, time.perf_counter() - start, absent))
        on_result(found[-1])
    return found
