"""A claim: one statement, its proof, its simulation, and its nearest false neighbour.

A file in `proofs/` holds one `claim = Claim(...)` and registers checks on it:

    @claim.derivation("the recurrence in s")            # symbolic steps, each reduced to 0
    @claim.certificate("the bound for all C and n")     # proof over the whole parameter set
    @claim.reference("50-digit values by another route")  # numeric agreement of two independent routes
    def _(side): ... return an Outcome ...

    @claim.counterexample("s=100, n=8, C=90")           # only for statements that are wrong as printed
    def _(side): ...

    claim.simulate(sample, cases=[...], law=law)        # Monte Carlo of the model, against the exact law

Every check is a function of a *side* and runs twice: with `claim.truth`, where it must hold, and with
`claim.mutant` (a counterexample: with `claim.printed`), where it must fail. A check that does not reject the false
side is toothless, and the claim is then INCONCLUSIVE, never green.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resonance_theory.evidence import statistics
from resonance_theory.evidence.claims.limits import NONE, Limit, TimedOut
from resonance_theory.evidence.outcome import Outcome, error, every, undecided
from resonance_theory.evidence.sampling import Tally, Task, run

__all__ = ["Check", "CheckResult", "Claim", "ClaimResult", "Simulation", "Verdict"]


class Verdict(enum.Enum):
    PROVED = "PROVED"
    SUPPORTED = "SUPPORTED"
    CORRECTED = "CORRECTED"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    VIOLATED = "VIOLATED"
    ERROR = "ERROR"
    NOT_REPRODUCIBLE = "NOT REPRODUCIBLE HERE"

    @property
    def green(self) -> bool:
        """Whether a suite may pass with it."""
        return self not in (Verdict.INCONCLUSIVE, Verdict.VIOLATED, Verdict.ERROR)


Side = Any
Run = Callable[[Side], Outcome]
Case = Mapping[str, Any]
Pairs = Sequence[tuple[Mapping[str, float], Mapping[str, float]]]  # laws of each case: the claim's and its mutant's
Laws = Pairs | Outcome


@dataclass(frozen=True)
class Check:
    """One check; `kind` is derivation, certificate, reference or counterexample."""

    name: str
    kind: str
    run: Run


@dataclass(frozen=True)
class Simulation:
    """A sampler, the cases it runs, and what the claim says of each tally.

    Attributes:
        name: Short text.
        sample: sample(rng, trials, **case) -> {key: number of successes}, a module-level function.
        cases: JSON-able keyword arguments.
        law: law(side, **case) -> {key: probability}, with the sampler's keys.
        relation: The measured rate is "equal" to the law, "at_most" it, or "at_least" it.
        trials, full: Number of trials of each case, and of a full run.
    """

    name: str
    sample: Callable[..., Mapping[str, int]]
    cases: Sequence[Mapping[str, Any]]
    law: Callable[..., Mapping[str, float]]
    relation: str
    trials: int
    full: int


@dataclass(frozen=True)
class CheckResult:
    """How one check went on both sides; `rows` holds the estimates of a simulation."""

    name: str
    kind: str
    truth: Outcome
    mutant: Outcome
    seconds: float
    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def passed(self) -> bool:
        return self.truth.holds and self.mutant.fails

    def to_json(self) -> dict[str, Any]:
        def outcome(o: Outcome) -> dict[str, Any]:
            return {"status": o.status.value, "evidence": o.evidence}

        return {
            "name": self.name,
            "kind": self.kind,
            "passed": self.passed,
            "truth": outcome(self.truth),
            "mutant": outcome(self.mutant),
            "seconds": round(self.seconds, 3),
            "rows": [dict(row) for row in self.rows],
        }


@dataclass
class Claim:
    """One statement of the ledger.

    Attributes:
        title: One line.
        statement: Text with LaTeX between dollar signs.
        source: Where it is printed (equation, version).
        kind: equality, bound, asymptotic or empirical.
        expected: The verdict this ledger stands for.
        hypotheses: One text each, LaTeX between dollar signs.
        truth: What the checks receive as the true side (any object: a function, a formula, a namespace).
        mutant: The nearest false neighbour, of the same shape; `mutation` says in words what was changed.
        printed: For CORRECTED and REFUTED: the statement as printed, as a side for the counterexample checks.
        correction: What is wrong with it, and what is true instead.
        lemmas: Published inequalities and theorems that the proof uses, by name.
        formal: Theorems proved in Coq that it uses or restates, as "file.v: theorem" in proofs/formal.
        theorem: That one of them which is the claim itself.
        studies: Studies of simulations/ whose trained networks or simulations bear on it, by name.
        reason: For NOT REPRODUCIBLE HERE: why.
        tag: The short name of its equation, such as "N4".
        id, topic, proof: Name and folder of its file, and that file's docstring; `ledger.load` fills them in.
    """

    title: str
    statement: str
    source: str
    kind: str
    expected: Verdict
    truth: Side = None
    mutant: Side = None
    mutation: str = ""
    hypotheses: Sequence[str] = ()
    printed: Side = None
    correction: str = ""
    lemmas: Sequence[str] = ()
    formal: Sequence[str] = ()
    theorem: str = ""
    studies: Sequence[str] = ()
    reason: str = ""
    id: str = ""
    topic: str = ""
    tag: str = ""
    proof: str = ""
    checks: list[Check] = field(default_factory=list)
    simulations: list[Simulation] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kind not in ("equality", "bound", "asymptotic", "empirical"):
            raise ValueError(f"kind = {self.kind!r} must be equality, bound, asymptotic or empirical")

    @property
    def grade(self) -> str:
        """What kind of proof stands behind it, the strongest first.

        formal: a theorem of proofs/formal is the claim itself. certified: a machine-checked certificate covers a whole
        parameter set. argued: a complete proof in words, whose symbolic steps are checked. numerical: references and
        simulations only, never PROVED. "" for a claim without checks.
        """
        kinds = {check.kind for check in self.checks}
        if self.theorem:
            return "formal"
        for kind, grade in (("certificate", "certified"), ("derivation", "argued")):
            if kind in kinds:
                return grade
        return "numerical" if kinds or self.simulations else ""

    def _register(self, kind: str, name: str) -> Callable[[Run], Run]:
        def decorate(function: Run) -> Run:
            self.checks.append(Check(name, kind, function))
            return function

        return decorate

    def derivation(self, name: str) -> Callable[[Run], Run]:
        return self._register("derivation", name)

    def certificate(self, name: str) -> Callable[[Run], Run]:
        return self._register("certificate", name)

    def reference(self, name: str) -> Callable[[Run], Run]:
        return self._register("reference", name)

    def counterexample(self, name: str) -> Callable[[Run], Run]:
        return self._register("counterexample", name)

    def simulate(
        self,
        sample: Callable[..., Mapping[str, int]],
        *,
        cases: Sequence[Mapping[str, Any]],
        law: Callable[..., Mapping[str, float]],
        relation: str = "equal",
        trials: int = 100_000,
        full: int = 5_000_000,
        name: str = "Monte Carlo",
    ) -> None:
        """Register a simulation; `sample` must be a module-level function, cases must be JSON-able."""
        if relation not in ("equal", "at_most", "at_least"):
            raise ValueError(f"relation = {relation!r} must be equal, at_most or at_least")
        self.simulations.append(Simulation(name, sample, cases, law, relation, trials, full))

    def evaluate(
        self, *, alpha: float, full: bool = False, seed: int = 0, workers: int = 1, limit: Limit = NONE
    ) -> ClaimResult:
        """Run every check on both sides; one that raises is an ERROR, and the others go on.

        Args:
            alpha: This claim's share of the suite's false-alarm budget, in (0, 1).
            full: Whether simulations take their full number of trials.
            seed: Whole number of at least 0.
            workers: Processes for the simulations, at least 1.
            limit: How long each side of a check, and each simulation, may take.

        Returns:
            The claim with what its checks said.
        """
        results = [self.check(check, limit) for check in self.checks]
        laws = self.laws(limit)
        for index in range(len(self.simulations)):
            results.append(self.simulated(index, laws, alpha=alpha, full=full, seed=seed, workers=workers, limit=limit))
        return ClaimResult(self, tuple(results))

    def check(self, check: Check, limit: Limit = NONE) -> CheckResult:
        """One check on both sides."""
        false_side = self.printed if check.kind == "counterexample" else self.mutant
        start = time.perf_counter()
        truth, mutant = _outcome(check.run, self.truth, limit), _outcome(check.run, false_side, limit)
        return CheckResult(check.name, check.kind, truth, mutant, time.perf_counter() - start)

    def laws(self, limit: Limit = NONE) -> list[Laws]:
        """Of each simulation, the probabilities of every case on both sides; what went wrong where they cannot be had."""
        return [self._laws(simulation, limit) for simulation in self.simulations]

    def simulated(
        self,
        index: int,
        laws: Sequence[Laws],
        *,
        alpha: float,
        full: bool = False,
        seed: int = 0,
        workers: int = 1,
        limit: Limit = NONE,
    ) -> CheckResult:
        """The simulation of that number against `laws()` of both sides; all of them share the claim's alpha."""
        tests = sum(len(true) for pairs in laws if not isinstance(pairs, Outcome) for true, _ in pairs)
        simulation, pairs, start = self.simulations[index], laws[index], time.perf_counter()
        rows: list[dict[str, Any]] = []
        truth = mutant = pairs if isinstance(pairs, Outcome) else undecided("no case")
        if not isinstance(pairs, Outcome):
            plan = _Plan(self.id, simulation, pairs, alpha / max(tests, 1), full, seed, workers)
            try:
                with limit.soft(), limit.hard():
                    truth, mutant, rows = plan.run()
            except (Exception, SystemExit, TimedOut) as problem:
                truth = mutant = error(problem)
        return CheckResult(simulation.name, "simulation", truth, mutant, time.perf_counter() - start, rows)

    def _laws(self, simulation: Simulation, limit: Limit) -> Laws:
        try:
            with limit.soft(), limit.hard():
                return [
                    (dict(simulation.law(self.truth, **case)), dict(simulation.law(self.mutant, **case)))
                    for case in simulation.cases
                ]
        except (Exception, SystemExit, TimedOut) as problem:
            return error(problem)


def _outcome(run: Run, side: Side, limit: Limit = NONE) -> Outcome:
    try:
        with limit.soft(), limit.hard():
            outcome = run(side)
        if not isinstance(outcome, Outcome):
            raise TypeError(f"a check returned {outcome!r} but must return an Outcome")
        return outcome
    except (Exception, SystemExit, TimedOut) as problem:
        return error(problem)


@dataclass(frozen=True)
class _Plan:
    """How a simulation of a claim is run: its laws, the level of each test, its size and its seed."""

    claim: str
    simulation: Simulation
    laws: Pairs
    alpha: float
    full: bool
    seed: int
    workers: int

    def run(self) -> tuple[Outcome, Outcome, list[dict[str, Any]]]:
        """Outcomes of the claim and of its mutant, and the estimates."""
        found = self._attempt(0)
        # One repetition on fresh, pre-allocated streams: what fails twice is no accident, what fails once is.
        return self._attempt(1) if found[0].fails else found

    def _attempt(self, attempt: int) -> tuple[Outcome, Outcome, list[dict[str, Any]]]:
        simulation = self.simulation
        test = {"equal": statistics.equal, "at_most": statistics.at_most, "at_least": statistics.at_least}
        truths, mutants, rows = [], [], []
        for case, tally, (true, false) in zip(simulation.cases, self._tallies(attempt), self.laws):
            _same_keys(simulation.name, case, tally, true, false)
            for key, law in true.items():
                count, trials = tally.counts[key], tally.trials
                truths.append(test[simulation.relation](count, trials, law, self.alpha))
                mutants.append(test[simulation.relation](count, trials, false[key], self.alpha))
                rows.append({"case": dict(case), **statistics.row(key, count, trials, law, self.alpha)})
                rows[-1] |= {"mutant": float(false[key]), "relation": simulation.relation}
        summary = every(truths)
        if summary.holds:
            worst = max(row["detectable"] for row in rows)
            text = f"{len(rows)} rates agree at level {self.alpha:.1e} each; differences beyond {worst:.2g} would show"
            summary = Outcome(summary.status, text, {})
        return (
            summary,
            next((m for m in mutants if m.fails), undecided("no case tells the mutant from the claim")),
            rows,
        )

    def _tallies(self, attempt: int) -> list[Tally]:
        simulation = self.simulation
        trials = simulation.full if self.full else simulation.trials
        blocks = 1 if trials <= 100_000 else min(64, -(-trials // 100_000))
        tasks = [
            Task(
                name=f"{self.claim}/{simulation.name}/{index}/{attempt}",
                function=f"{simulation.sample.__module__}:{simulation.sample.__qualname__}",
                parameters=dict(case),
                block_size=-(-trials // blocks),
                seed=self.seed,
            )
            for index, case in enumerate(simulation.cases)
        ]
        totals = run(tasks, blocks, workers=self.workers)
        return [totals[task.id] for task in tasks]


def _same_keys(name: str, case: Case, tally: Tally, true: Mapping[str, float], false: Mapping[str, float]) -> None:
    for whose, keys in (("sampler counts", tally.counts.keys()), ("mutant's law has", false.keys())):
        if keys != true.keys():
            raise ValueError(f"{name}, {dict(case)}: the law has {', '.join(true)} but the {whose} {', '.join(keys)}")


@dataclass(frozen=True)
class ClaimResult:
    """A claim with everything its checks said."""

    claim: Claim
    checks: Sequence[CheckResult]

    @property
    def seconds(self) -> float:
        return sum(check.seconds for check in self.checks)

    @property
    def verdict(self) -> Verdict:
        claim = self.claim
        if any(check.truth.fails for check in self.checks):
            return Verdict.VIOLATED
        if any(check.truth.broke or check.mutant.broke for check in self.checks):
            return Verdict.ERROR
        if claim.expected is Verdict.NOT_REPRODUCIBLE:
            # it may check what is printed about itself; a reason is needed either way
            return claim.expected if claim.reason and all(c.passed for c in self.checks) else Verdict.INCONCLUSIVE
        kinds = {check.kind for check in self.checks}
        if not self.checks or not all(check.passed for check in self.checks):
            return Verdict.INCONCLUSIVE
        if claim.printed is not None:
            if "counterexample" not in kinds or not claim.correction:
                return Verdict.INCONCLUSIVE
            return Verdict.REFUTED if claim.expected is Verdict.REFUTED else Verdict.CORRECTED
        if claim.expected is Verdict.PROVED:
            return Verdict.PROVED if kinds & {"derivation", "certificate"} else Verdict.SUPPORTED
        return Verdict.SUPPORTED

    @property
    def passed(self) -> bool:
        """The verdict is a green one and the one the ledger stands for."""
        return self.verdict.green and self.verdict is self.claim.expected

    @property
    def problem(self) -> str:
        """The first thing that kept the claim from its expected verdict; empty if nothing did."""
        for check in self.checks:
            if not check.truth.holds:
                return f"{check.name}: {check.truth.evidence}"
            if check.mutant.broke:
                return f"{check.name}, on the mutant: {check.mutant.evidence}"
            if not check.mutant.fails:
                return f"{check.name} does not reject the mutant: {check.mutant.evidence}"
        if self.passed:
            return ""
        return f"verdict {self.verdict.value} where {self.claim.expected.value} is expected"

    def to_json(self) -> dict[str, Any]:
        claim = self.claim
        return {
            "id": claim.id,
            "topic": claim.topic,
            "title": claim.title,
            "statement": claim.statement,
            "hypotheses": list(claim.hypotheses),
            "source": claim.source,
            "tag": claim.tag,
            "kind": claim.kind,
            "expected": claim.expected.value,
            "verdict": self.verdict.value,
            "grade": claim.grade,
            "passed": self.passed,
            "problem": self.problem,
            "correction": claim.correction,
            "mutation": claim.mutation,
            "lemmas": list(claim.lemmas),
            "formal": list(claim.formal),
            "studies": list(claim.studies),
            "reason": claim.reason,
            "proof": claim.proof,
            "seconds": round(self.seconds, 3),
            "checks": [check.to_json() for check in self.checks],
        }
