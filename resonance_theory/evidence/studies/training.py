"""A training study: networks trained under several arms from the same seeds, compared in pairs.

It is a study (see `study.py`) that defines `arms(settings) -> list[Arm]` in place of `cases`. `blocks` in its TOML is
the number of groups of runs, `block_size` the runs trained side by side in a group; `level` is the study's false-alarm
budget, and `comparisons` lists what is to be compared, fixed before anything is run:

    { metric = "accuracy", first = "arm A", second = "arm B", expect = "more", margin = 0.01 }

`against` names the second's metric where it is another one; first and second may then be the same arm. In place of
`second`, `published` gives a number to compare with, taken as exact: whoever published it is not run here.
expect: "more" (first exceeds second by more than the margin), "equal" (they differ by at most the margin), or absent (the
difference is measured, nothing is claimed). Run g of every arm draws from the same stream, so the differences are paired.
`premises` lists comparisons that say when the others mean anything: unless all of them are supported, no expectation gets
a verdict. `smoke = true` says beforehand that the sizes are too small for any. `columns` names the metrics of the table.
Networks train over `workers` processes, on the CPU unless the study's `DEVICES` offers another device; its full sizes are then
those of the TOML's table [gpu], and each arm's parameters name it. Under torchrun rank 0 trains them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from scipy.special import stdtrit

from resonance_theory.evidence.sampling.task import Tally, Task
from resonance_theory.evidence.studies.result import StudyResult, aligned, head
from resonance_theory.evidence.studies.running import Run
from resonance_theory.typing import Floats

__all__ = ["Arm", "TrainingResult", "interval", "run_training"]

WIDEST = 16  # metrics that a line of a terminal shows; a record holds all


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        label: Short text; distinct within the study.
        train: Module-level function train(rng, runs, **parameters) -> {"metric/run": whole number of at least 0}.
        parameters: Its JSON-able arguments.
        per: What the whole numbers are divided by, such as the number of test samples.
    """

    label: str
    train: Callable[..., Mapping[str, int]]
    parameters: Mapping[str, Any]
    per: int


class TrainingResult(StudyResult):
    """Rows of arms (mean and interval over runs) and of comparisons (paired differences, with verdicts)."""

    @property
    def passed(self) -> bool:
        """Every expectation and premise is supported, and there is an expectation at least."""
        verdicts = [row["verdict"] for row in self.rows if "expect" in row]
        if all("premise" in row for row in self.rows if "expect" in row):
            return False
        return bool(verdicts) and all(verdict == "SUPPORTED" for verdict in verdicts)

    def to_json(self) -> dict[str, Any]:
        return {
            **head(self.name, self.passed),
            "rows": [dict(row) for row in self.rows],
            "provenance": dict(self.provenance),
        }

    def table(self) -> str:
        """Lines for a terminal: the arms where they have no more than `WIDEST` metrics, and the comparisons."""
        arms = [row for row in self.rows if "arm" in row]
        metrics = self.provenance.get("columns") or list(arms[0]["metrics"])
        table = [("arm", *metrics)]
        for row in arms:
            found = [row["metrics"].get(metric) for metric in metrics]
            cells = [f"{m['mean']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" if m else "" for m in found]
            table.append((row["arm"], *cells))
        lines = [*aligned(table), ""] if len(metrics) <= WIDEST else []
        table = [("comparison", "metric", "difference", "expected", "verdict")]
        for row in self.rows:
            if "arm" not in row:
                expected = f"{row['expect']}, margin {row['margin']:g}" if "expect" in row else ""
                difference = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
                other = _other(row)
                sides = row["first"] if row["first"] == other else f"{row['first']} - {other}"
                metric = f"{row['metric']} - {row['against']}" if "against" in row else row["metric"]
                table.append((sides, metric, difference, expected, row["verdict"]))
        lines += aligned(table)
        runs = len(next(iter(arms[0]["metrics"].values()))["runs"])
        lines += ["", f"{runs} runs of each arm; {self._summary()}"]
        return "\n".join(lines)

    def _summary(self) -> str:
        """One line on all expectations; an inconclusive one is neither a success nor a failure."""
        if why := self.provenance.get("no claim"):
            return f"smoke test: no claim ({why})"
        count = Counter(row["verdict"] for row in self.rows if "expect" in row)
        if not count:
            return "measured: no expectation to pass or fail"
        ending = "passed" if self.passed else "FAILED" if count["VIOLATED"] else "undecided"
        parts = [f"{count['SUPPORTED']} of {count.total()} expectations supported"]
        parts += [f"{count[verdict]} {verdict.lower()}" for verdict in ("INCONCLUSIVE", "VIOLATED") if count[verdict]]
        return f"{', '.join(parts)}: {ending}"


def _other(row: Mapping[str, Any]) -> str:
    """What the first is compared with."""
    return f"{row['published']:g} (published)" if "published" in row else str(row["second"])


def interval(values: Floats, level: float) -> tuple[float, float]:
    """Student's two-sided limits for the mean of at least two independent, roughly normal values; misses with `level`."""
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    half = stdtrit(len(values) - 1, 1 - level / 2) * error
    return float(mean - half), float(mean + half)


def compare(first: Floats, second: Floats | float, level: float, expect: str | None, margin: float) -> dict[str, Any]:
    """The difference, in pairs or from a number, its limits, and what they say of the expectation."""
    low, high = interval(first - second, level)
    if expect is None:
        verdict = "MEASURED"
    elif expect == "more":
        verdict = "SUPPORTED" if low > margin else "VIOLATED" if high <= margin else "INCONCLUSIVE"
    else:
        apart = low > margin or high < -margin
        verdict = "SUPPORTED" if -margin <= low and high <= margin else "VIOLATED" if apart else "INCONCLUSIVE"
    return {"difference": float((first - second).mean()), "low": low, "high": high, "verdict": verdict}


def _check(name: str, settings: Mapping[str, Any], arms: Sequence[Arm]) -> None:
    labels = [arm.label for arm in arms]
    if len(set(labels)) != len(labels):
        raise ValueError(f"the study {name} gives two arms the same label but labels must be distinct")
    runs = settings["blocks"] * settings["block_size"]
    if runs < 2:
        raise ValueError(f"the study {name} has {runs} run of each arm but an interval needs at least 2")
    level = settings.get("level")
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"the study {name} has level = {level!r} but needs a number in (0, 1)")
    for row in settings.get("premises", []):
        if "expect" not in row:
            raise ValueError(f"the study {name} has a premise without expect but a premise must expect something")
    for row in [*settings.get("premises", []), *settings.get("comparisons", [])]:
        if ("second" in row) == ("published" in row):
            raise ValueError(f"the study {name} compares {row['first']!r} but needs either second or published")
        for side in ("first", "second"):
            if side in row and row[side] not in labels:
                raise ValueError(f"the study {name} compares {row[side]!r} but its arms are {', '.join(labels)}")
        if "published" in row and not (isinstance(row["published"], int | float) and np.isfinite(row["published"])):
            raise ValueError(f"the study {name} has published = {row['published']!r} but needs a finite number")
        if row.get("expect", "more") not in ("more", "equal"):
            raise ValueError(f"the study {name} has expect = {row['expect']!r} but must have 'more' or 'equal'")
        if "expect" in row and not row.get("margin", -1) >= 0:
            raise ValueError(f"the study {name} has margin = {row.get('margin')!r} but needs a number of at least 0")


def run_training(
    name: str, arms: Sequence[Arm], settings: Mapping[str, Any], run: Run, packages: Sequence[str] = ()
) -> TrainingResult:
    """Train every run of every arm and make the comparisons; `study.run_study` calls this and says what may be raised.

    Args:
        name: The study's.
        arms: Distinct ways to train.
        settings: The study's table, as the module's docstring says.
        run: Seed, workers, store and progress.
        packages: What the study needs besides NumPy; their versions join the record.

    Returns:
        Arms and comparisons.

    Raises:
        ModuleNotFoundError: A package is not installed.
        ValueError: The settings are not as the module's docstring says.
    """
    _check(name, settings, arms)
    used = {package: metadata.version(package) for package in packages}
    groups, size = settings["blocks"], settings["block_size"]
    tasks = {(group, arm.label): _task(name, arm, group, size, run.seed) for group in range(groups) for arm in arms}
    owner = {tasks[group, arm.label].id: arm for group in range(groups) for arm in arms}

    def label(task: Task, tally: Tally) -> str:
        arm = owner[task.id]
        return f"{arm.label:<28} {_line(tally, arm.per, settings.get('columns'))}"

    totals, made = run.totals(list(tasks.values()), 1, label)
    if run.shard[1] > 1:  # a part says nothing yet
        return TrainingResult(name, [], {}, made)
    values = {
        arm.label: _by_metric([totals[tasks[g, arm.label].id] for g in range(groups)], size, arm.per) for arm in arms
    }
    comparisons, why = _comparisons(name, settings, values)
    made |= {**used, "level": settings["level"], "runs": groups * size}
    made |= {"no claim": why} if why else {}
    made |= {key: settings[key] for key in ("columns", "device") if key in settings}
    rows = [_arm_row(arm, values[arm.label], settings["level"]) for arm in arms]
    return TrainingResult(name, [*rows, *comparisons], {}, made)


def _task(name: str, arm: Arm, group: int, size: int, seed: int) -> Task:
    return Task(
        # The name addresses the stream: without the arm in it, all arms draw the same numbers.
        name=f"{name}/runs {group * size}-{(group + 1) * size - 1}",
        function=f"{arm.train.__module__}:{arm.train.__qualname__}",
        parameters=arm.parameters,
        block_size=size,
        seed=seed,
    )


def _arm_row(arm: Arm, values: Mapping[str, Floats], level: float) -> dict[str, Any]:
    metrics = {}
    for metric, runs in values.items():
        low, high = interval(runs, level)
        metrics[metric] = {"mean": float(runs.mean()), "low": low, "high": high, "runs": runs.tolist()}
    return {"arm": arm.label, "parameters": dict(arm.parameters), "metrics": metrics}


def _comparisons(
    name: str, settings: Mapping[str, Any], values: Mapping[str, Mapping[str, Floats]]
) -> tuple[list[dict[str, Any]], str]:
    """Rows of the comparisons and then of the premises, and why the expectations get no verdict, if so."""
    premises, comparisons = settings.get("premises", []), settings.get("comparisons", [])
    level = settings["level"] / max(1, len(premises) + len(comparisons))

    def judged(row: Mapping[str, Any]) -> dict[str, Any]:
        first = _metric(name, values[row["first"]], row["metric"])
        second = row.get("published")
        if second is None:
            second = _metric(name, values[row["second"]], row.get("against", row["metric"]))
        return {**row, **compare(first, second, level, row.get("expect"), row.get("margin", 0.0))}

    met = [judged(row) for row in premises]
    why = _no_claim(settings, met)
    found = [judged(row) for row in comparisons]
    silent = [{**row, "verdict": "NO CLAIM"} if why and "expect" in row else row for row in found]
    return [*silent, *({**row, "premise": True} for row in met)], why


def _no_claim(settings: Mapping[str, Any], premises: Sequence[Mapping[str, Any]]) -> str:
    """Why the expectations get no verdict; empty if they do."""
    if settings.get("smoke"):
        return "its sizes are said to be too small"
    missed = [row for row in premises if row["verdict"] != "SUPPORTED"]
    return "; ".join(
        f"{row['first']} is not shown to have {'more' if row['expect'] == 'more' else 'the same'} {row['metric']} "
        f"{'than' if row['expect'] == 'more' else 'as'} {_other(row)}"
        for row in missed
    )


def _by_metric(tallies: Sequence[Tally], size: int, per: int) -> dict[str, Floats]:
    """Values of all runs by metric, in the order of the runs."""
    metrics = dict.fromkeys(key.rpartition("/")[0] for key in tallies[0].counts)
    return {
        metric: np.array([tally.counts[f"{metric}/{run}"] / per for tally in tallies for run in range(size)])
        for metric in metrics
    }


def _metric(name: str, values: Mapping[str, Floats], metric: str) -> Floats:
    if metric not in values:
        raise ValueError(f"the study {name} compares the metric {metric!r} but its runs measure {', '.join(values)}")
    return values[metric]


def _line(tally: Tally, per: int, columns: Sequence[str] | None) -> str:
    """Means over the runs of one group."""
    found = _by_metric([tally], tally.trials, per)
    means = {metric: runs.mean() for metric, runs in found.items() if columns is None or metric in columns}
    return ", ".join(f"{metric} {mean:.3f}" for metric, mean in list(means.items())[:WIDEST])
