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

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy.special import stdtrit

from resonance_theory.evidence.sampling.engine import run
from resonance_theory.evidence.sampling.progress import Progress
from resonance_theory.evidence.sampling.store import Store
from resonance_theory.evidence.sampling.task import Tally, Task, versions
from resonance_theory.evidence.studies.study import StudyResult, notices

__all__ = ["Arm", "TrainingResult", "interval", "run_training"]

WIDEST = 16  # metrics that a line of a terminal shows; a record holds all


@dataclass(frozen=True)
class Arm:
    """One way to train.

    label       short text; distinct within the study
    train       module-level function train(rng, runs, **parameters) -> {"metric/run": whole number of at least 0}
    parameters  its JSON-able arguments
    per         what the whole numbers are divided by, such as the number of test samples
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
            "study": self.name,
            "passed": self.passed,
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
        lines = [*_aligned(table), ""] if len(metrics) <= WIDEST else []
        table = [("comparison", "metric", "difference", "expected", "verdict")]
        for row in self.rows:
            if "arm" not in row:
                expected = f"{row['expect']}, margin {row['margin']:g}" if "expect" in row else ""
                difference = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
                other = _other(row)
                sides = row["first"] if row["first"] == other else f"{row['first']} - {other}"
                metric = f"{row['metric']} - {row['against']}" if "against" in row else row["metric"]
                table.append((sides, metric, difference, expected, row["verdict"]))
        lines += _aligned(table)
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


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths)).rstrip() for line in table]


def interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Student's two-sided limits for the mean of at least two independent, roughly normal values; misses with `level`."""
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    half = stdtrit(len(values) - 1, 1 - level / 2) * error
    return float(mean - half), float(mean + half)


def compare(
    first: np.ndarray, second: np.ndarray | float, level: float, expect: str | None, margin: float
) -> dict[str, Any]:
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
    name: str,
    arms: Sequence[Arm],
    settings: Mapping[str, Any],
    *,
    command: str,
    packages: Sequence[str] = (),
    seed: int = 0,
    workers: int = 1,
    store: str | Path | None = None,
    resume: bool = False,
    progress: IO[str] | None = sys.stderr,
) -> TrainingResult:
    """Train every run of every arm and make the comparisons; `study.run_study` calls this and says what may be raised.

    packages: what the study needs besides NumPy; their versions join the record. Raises ModuleNotFoundError without them.
    """
    _check(name, settings, arms)
    used = {package: metadata.version(package) for package in packages}
    groups, size = settings["blocks"], settings["block_size"]
    tasks: dict[tuple[int, str], Task] = {}
    for group in range(groups):
        for arm in arms:
            # The name addresses the stream: without the arm in it, all arms draw the same numbers.
            tasks[group, arm.label] = Task(
                name=f"{name}/runs {group * size}-{(group + 1) * size - 1}",
                function=f"{arm.train.__module__}:{arm.train.__qualname__}",
                parameters=arm.parameters,
                block_size=size,
                seed=seed,
            )
    owner = {tasks[group, arm.label].id: arm for group in range(groups) for arm in arms}
    display = Progress(
        lambda task, tally: f"{owner[task.id].label:<28} {_line(tally, owner[task.id].per, settings.get('columns'))}",
        dict.fromkeys(owner, size),
        stream=progress,
    )
    start = time.perf_counter()
    opened = Store(store, resume=resume) if store is not None else None
    try:
        if opened is not None and progress is not None:
            notices(opened, owner, progress)
        totals = run(list(tasks.values()), 1, workers=workers, store=opened, on_block=display)
    finally:
        display.close()
        if opened is not None:
            opened.close()

    values = {
        arm.label: _by_metric([totals[tasks[g, arm.label].id] for g in range(groups)], size, arm.per) for arm in arms
    }
    premises, comparisons = settings.get("premises", []), settings.get("comparisons", [])
    level = settings["level"] / max(1, len(premises) + len(comparisons))
    rows: list[dict[str, Any]] = []
    for arm in arms:
        metrics = {}
        for metric, runs in values[arm.label].items():
            low, high = interval(runs, settings["level"])
            metrics[metric] = {"mean": float(runs.mean()), "low": low, "high": high, "runs": runs.tolist()}
        rows.append({"arm": arm.label, "parameters": dict(arm.parameters), "metrics": metrics})
    compared = []
    for row in [*premises, *comparisons]:
        first = _metric(name, values[row["first"]], row["metric"])
        second = row.get("published")
        if second is None:
            second = _metric(name, values[row["second"]], row.get("against", row["metric"]))
        compared.append({**row, **compare(first, second, level, row.get("expect"), row.get("margin", 0.0))})
    why = _no_claim(settings, compared[: len(premises)])
    for row in compared[len(premises) :]:
        rows.append({**row, "verdict": "NO CLAIM"} if why and "expect" in row else row)
    rows += [{**row, "premise": True} for row in compared[: len(premises)]]
    provenance = {
        "command": command,
        **versions(),
        **used,
        "seed": seed,
        "level": settings["level"],
        "runs": groups * size,
        "seconds": round(time.perf_counter() - start, 1),
    }
    provenance |= {"no claim": why} if why else {}
    provenance |= {key: settings[key] for key in ("columns", "device") if key in settings}
    return TrainingResult(name, rows, {}, provenance)


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


def _by_metric(tallies: Sequence[Tally], size: int, per: int) -> dict[str, np.ndarray]:
    """Values of all runs by metric, in the order of the runs."""
    metrics = dict.fromkeys(key.rpartition("/")[0] for key in tallies[0].counts)
    return {
        metric: np.array([tally.counts[f"{metric}/{run}"] / per for tally in tallies for run in range(size)])
        for metric in metrics
    }


def _metric(name: str, values: Mapping[str, np.ndarray], metric: str) -> np.ndarray:
    if metric not in values:
        raise ValueError(f"the study {name} compares the metric {metric!r} but its runs measure {', '.join(values)}")
    return values[metric]


def _line(tally: Tally, per: int, columns: Sequence[str] | None) -> str:
    """Means over the runs of one group."""
    found = _by_metric([tally], tally.trials, per)
    means = {metric: runs.mean() for metric, runs in found.items() if columns is None or metric in columns}
    return ", ".join(f"{metric} {mean:.3f}" for metric, mean in list(means.items())[:WIDEST])
