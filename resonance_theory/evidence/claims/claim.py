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
from resonance_theory.evidence.outcome import Outcome, every, undecided

__all__ = ["Check", "CheckResult", "Claim", "ClaimResult", "Simulation", "Verdict"]


class Verdict(enum.Enum):
    PROVED = "PROVED"
    SUPPORTED = "SUPPORTED"
    CORRECTED = "CORRECTED"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    VIOLATED = "VIOLATED"
    NOT_REPRODUCIBLE = "NOT REPRODUCIBLE HERE"

    @property
    def green(self) -> bool:
        """Whether a suite may pass with it."""
        return self not in (Verdict.INCONCLUSIVE, Verdict.VIOLATED)


Side = Any
Run = Callable[[Side], Outcome]


@dataclass(frozen=True)
class Check:
    """One check; `kind` is derivation, certificate, reference or counterexample."""

    name: str
    kind: str
    run: Run


@dataclass(frozen=True)
class Simulation:
    """A sampler, the cases it runs, and what the claim says of each tally.

    sample(rng, trials, **case) -> {key: number of successes}; law(side, **case) -> {key: probability}.
    relation: the measured rate is "equal" to the law, "at_most" it, or "at_least" it.
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
    """One statement of the ledger. `id` is the name of its file.

    title        one line
    statement    text with LaTeX between dollar signs
    source       where it is printed (equation, version), and the project's own tag if new
    kind         equality, bound, asymptotic or empirical
    expected     the verdict this ledger stands for
    hypotheses   one text each, LaTeX between dollar signs
    truth        what the checks receive as the true side (any object: a function, a formula, a namespace)
    mutant       the nearest false neighbour, of the same shape; `mutation` says in words what was changed
    printed      for CORRECTED and REFUTED: the statement as printed, as a side for the counterexample checks;
    correction   and what is wrong with it, and what is true instead
    lemmas       published inequalities and theorems that the proof uses, by name
    formal       theorems proved in Coq that it uses or restates, as "file.v: theorem" in proofs/formal
    studies      studies of simulations/ whose trained networks or simulations bear on it, by name
    reason       for NOT REPRODUCIBLE HERE: why
    proof        the proof in words: the docstring of the claim's file, which `ledger.load` fills in
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
    studies: Sequence[str] = ()
    reason: str = ""
    id: str = ""
    topic: str = ""
    proof: str = ""
    checks: list[Check] = field(default_factory=list)
    simulations: list[Simulation] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kind not in ("equality", "bound", "asymptotic", "empirical"):
            raise ValueError(f"kind = {self.kind!r} must be equality, bound, asymptotic or empirical")

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

    def evaluate(self, *, alpha: float, full: bool = False, seed: int = 0, workers: int = 1) -> ClaimResult:
        """Run every check on both sides. `alpha` is this claim's share of the suite's false-alarm budget."""
        results = []
        for check in self.checks:
            false_side = self.printed if check.kind == "counterexample" else self.mutant
            start = time.perf_counter()
            truth = check.run(self.truth)
            mutant = check.run(false_side)
            results.append(CheckResult(check.name, check.kind, truth, mutant, time.perf_counter() - start))
        laws = [
            [(dict(s.law(self.truth, **c)), dict(s.law(self.mutant, **c))) for c in s.cases] for s in self.simulations
        ]
        tests = sum(len(true) for simulation in laws for true, _ in simulation)
        for simulation, pairs in zip(self.simulations, laws):
            results.append(self._simulate(simulation, pairs, alpha / tests, full=full, seed=seed, workers=workers))
        return ClaimResult(self, tuple(results))

    def _simulate(
        self,
        simulation: Simulation,
        laws: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
        alpha: float,
        *,
        full: bool,
        seed: int,
        workers: int,
    ) -> CheckResult:
        from resonance_theory.evidence.sampling import Task, run

        start = time.perf_counter()
        trials = simulation.full if full else simulation.trials
        blocks = 1 if trials <= 100_000 else min(64, -(-trials // 100_000))
        test = {"equal": statistics.equal, "at_most": statistics.at_most, "at_least": statistics.at_least}[
            simulation.relation
        ]
        function = f"{simulation.sample.__module__}:{simulation.sample.__qualname__}"

        def sampled(attempt: int) -> tuple[Outcome, Outcome, list[dict[str, Any]]]:
            tasks = [
                Task(
                    name=f"{self.id}/{simulation.name}/{index}/{attempt}",
                    function=function,
                    parameters=dict(case),
                    block_size=-(-trials // blocks),
                    seed=seed,
                )
                for index, case in enumerate(simulation.cases)
            ]
            totals = run(tasks, blocks, workers=workers)
            truths, mutants = [], []
            rows: list[dict[str, Any]] = []
            for task, case, (true, false) in zip(tasks, simulation.cases, laws):
                tally = totals[task.id]
                for key, law in true.items():
                    count, total = int(tally.counts[key]), int(tally.trials)
                    low, high = statistics.clopper_pearson(count, total, alpha)
                    truths.append(test(count, total, law, alpha))
                    mutants.append(test(count, total, false[key], alpha))
                    rows.append(
                        {
                            "case": dict(case),
                            "key": key,
                            "trials": total,
                            "estimate": count / total,
                            "low": float(low),
                            "high": float(high),
                            "law": float(law),
                            "mutant": float(false[key]),
                            "detectable": float(statistics.detectable(law, total, alpha)),
                            "relation": simulation.relation,
                        }
                    )
            rejected = next((m for m in mutants if m.fails), undecided("no case tells the mutant from the claim"))
            summary = every(truths)
            if summary.holds:
                worst = max(row["detectable"] for row in rows)
                text = f"{len(rows)} rates agree at level {alpha:.1e} each; differences beyond {worst:.2g} would show"
                summary = Outcome(summary.status, text, {})
            return summary, rejected, rows

        truth, mutant, rows = sampled(0)
        if truth.fails:
            # One repetition on fresh, pre-allocated streams: what fails twice is no accident, what fails once is.
            truth, mutant, rows = sampled(1)
        return CheckResult(simulation.name, "simulation", truth, mutant, time.perf_counter() - start, rows)


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
            "kind": claim.kind,
            "expected": claim.expected.value,
            "verdict": self.verdict.value,
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
