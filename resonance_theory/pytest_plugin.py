"""pytest collects claims: each check is a test on its true side and a test on its mutant.

    pytest --claims                   the tests, and the claims that [tool.resonance] of pyproject.toml names
    pytest --claims proofs/mine.py    those of a file or folder, and nothing else
    pytest --claims -m certificate    by kind: derivation, certificate, reference, counterexample, simulation
    pytest --claims -m "not mutant" -k my_claim -n auto

Without `--claims`, or the ini option `claims = true`, nothing is collected, and this module imports nothing of the package.
Every claim also has a test `verdict`: that its checks, if all pass, amount to the verdict that it states.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from resonance_theory.evidence.claims.claim import CheckResult, Claim
    from resonance_theory.evidence.outcome import Outcome
    from resonance_theory.evidence.project import Project

__all__ = ["ClaimFile", "ClaimItem"]

KINDS = ("derivation", "certificate", "reference", "counterexample", "simulation")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option and the ini option."""
    group = parser.getgroup("resonance", "claims of resonance-theory")
    group.addoption(
        "--claims", action="store_true", help="collect claims: each check on its true side and on its mutant"
    )
    group.addoption("--claims-full", action="store_true", help="the same with full simulations")
    parser.addini("claims", "whether to collect claims without --claims", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers."""
    for kind in KINDS:
        config.addinivalue_line("markers", f"{kind}: checks of claims of that kind")
    config.addinivalue_line("markers", "claim: tests of claims")
    config.addinivalue_line("markers", "mutant: that a check rejects the nearest false neighbour")
    if _wanted(config) and config.args_source is not pytest.Config.ArgsSource.ARGS:
        from resonance_theory.evidence import project

        config.args += [str(place) for place in project.default().places("claims") if place.exists()]


def _wanted(config: pytest.Config) -> bool:
    return bool(config.getoption("claims") or config.getoption("claims_full") or config.getini("claims"))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ClaimFile | None:
    """A file that defines a claim, where claims are wanted."""
    if not _wanted(parent.config) or file_path.suffix != ".py" or file_path.stem.startswith("_"):
        return None
    from resonance_theory.evidence.claims import ledger

    return ClaimFile.from_parent(parent, path=file_path) if ledger.holds_claim(file_path) else None


class ClaimFile(pytest.File):
    """A file with a claim."""

    def collect(self) -> Iterator[ClaimItem]:
        """A test for each side of each check, and one for the verdict."""
        from resonance_theory.evidence import project
        from resonance_theory.evidence.claims import ledger

        claim = ledger.read(self.path)
        runs = _Runs(claim, project.of([self.path], "claims"), bool(self.config.getoption("claims_full")))
        names: dict[str, int] = {}
        for index, (kind, name) in enumerate(runs.names):
            names[name] = names.get(name, 0) + 1
            label = name if names[name] == 1 else f"{name} {names[name]}"
            for side in ("truth", "mutant"):
                yield ClaimItem.of(self, f"{label} [{side}]", runs, index, side, kind)
        yield ClaimItem.of(self, "verdict", runs, -1, "verdict", "")


class _Runs:
    """The checks of a claim, each run at most once in a process."""

    def __init__(self, claim: Claim, project: Project, full: bool) -> None:
        self.claim, self.project, self.full = claim, project, full
        self.names = [(c.kind, c.name) for c in claim.checks] + [("simulation", s.name) for s in claim.simulations]
        self._done: dict[int, CheckResult] = {}
        self._laws: Any = None

    def result(self, index: int) -> CheckResult:
        """What the check of that number said."""
        if index not in self._done:
            self._done[index] = self._run(index)
        return self._done[index]

    def _run(self, index: int) -> CheckResult:
        from resonance_theory.evidence import statistics
        from resonance_theory.evidence.claims import ledger

        if index < len(self.claim.checks):
            return self.claim.check(self.claim.checks[index])
        if self._laws is None:
            self._laws = self.claim.laws()
        alpha = statistics.ALPHA / len(ledger.claim_ids(self.project))
        return self.claim.simulated(index - len(self.claim.checks), self._laws, alpha=alpha, full=self.full)


class Lost(Exception):
    """A claim's test does not pass; its text says why."""


class ClaimItem(pytest.Item):
    """One side of one check of a claim, or its verdict."""

    runs: _Runs
    index: int
    side: str

    @classmethod
    def of(cls, parent: ClaimFile, name: str, runs: _Runs, index: int, side: str, kind: str) -> ClaimItem:
        """A test of that name, with the markers `claim`, its kind, and `mutant` on the false side."""
        item: ClaimItem = cls.from_parent(parent, name=name)
        item.runs, item.index, item.side = runs, index, side
        for marker in ("claim", *([kind] if kind else []), *(["mutant"] if side == "mutant" else [])):
            item.add_marker(marker)
        return item

    def runtest(self) -> None:
        """Raise `Lost` unless the check holds on the true side, fails on the false one, or the verdict is as stated."""
        if self.side == "verdict":
            _verdict(self.runs)
            return
        result = self.runs.result(self.index)
        if self.side == "truth":
            _expect(result.truth, result.truth.holds, "must hold")
            return
        _expect(result.mutant, result.mutant.fails, f"must reject the mutant ({self.runs.claim.mutation or 'unnamed'})")
        if result.mutant.evidence == result.truth.evidence:
            raise Lost(f"it says the same of both sides, and does not look at them: {result.truth.evidence}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The sentence alone for a claim that does not pass."""
        return str(excinfo.value) if isinstance(excinfo.value, Lost) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """File and name."""
        return self.path, None, f"{self.runs.claim.id}: {self.name}"


def _expect(outcome: Outcome, met: bool, wanted: str) -> None:
    if not met:
        raise Lost(f"the check {wanted}, but it is {outcome.status.value}: {outcome.evidence}")


def _verdict(runs: _Runs) -> None:
    """Whether passing checks amount to the stated verdict, and the claim says what a reader needs."""
    from resonance_theory.evidence.claims.claim import CheckResult, ClaimResult, Verdict
    from resonance_theory.evidence.outcome import fails, holds

    claim = runs.claim
    wanted = ["title", "statement", "source"]
    wanted += [] if claim.expected is Verdict.NOT_REPRODUCIBLE else ["mutation"]
    missing = [name for name in wanted if not getattr(claim, name)]
    if missing:
        raise Lost(f"the claim must say its {', '.join(missing)}")
    passing = [CheckResult(name, kind, holds("assumed"), fails("assumed"), 0.0) for kind, name in runs.names]
    result = ClaimResult(claim, passing)
    if not result.passed:
        raise Lost(f"the verdict is {result.verdict.value} if all checks pass, but {claim.expected.value} is stated")
