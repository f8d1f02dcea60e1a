"""A study: rates measured by simulation, each confronted with its exact law within one false-alarm budget.

A study is one file `simulations/<name>.py` with `cases(settings) -> list[Case]` and a module docstring, and one
`simulations/<name>.toml` with the tables [quick] and [full]; nothing else needs editing. `blocks` in a table is the
number of blocks of every case, `block_size` the trials of each; all other keys are the study's own. A study that
defines `arms` instead trains networks: see `training.py`.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from resonance_theory import _output
from resonance_theory.evidence import statistics
from resonance_theory.evidence.claims.ledger import folder
from resonance_theory.evidence.sampling import ranks
from resonance_theory.evidence.sampling.engine import run
from resonance_theory.evidence.sampling.progress import Progress
from resonance_theory.evidence.sampling.store import Store
from resonance_theory.evidence.sampling.task import Tally, Task, versions

__all__ = ["Case", "StudyResult", "Unavailable", "run_study", "studies"]


class Unavailable(ValueError):
    """What a study needs is not on this machine, such as the text that its settings name."""


@dataclass(frozen=True)
class Case:
    """One setting of a study.

    label       short text for tables; distinct within the study
    sampler     module-level function sample(rng, trials, **parameters) -> {key: successes}
    parameters  its JSON-able arguments
    laws        exact probability by key
    mutants     name of a wrong law -> its probability by key; each must be rejected in at least one case
    """

    label: str
    sampler: Callable[..., Mapping[str, int]]
    parameters: Mapping[str, Any]
    laws: Mapping[str, float]
    mutants: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class StudyResult:
    """Rows of estimates against laws, which mutants were rejected, and where it all comes from."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    mutants: Mapping[str, bool]
    provenance: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Every rate agrees with its law at a level that could tell, and every mutant is rejected somewhere.

        A study without rates or without mutants has shown nothing and does not pass.
        """
        agree = all(row["verdict"] == "SUPPORTED" for row in self.rows)
        return bool(self.rows) and bool(self.mutants) and agree and all(self.mutants.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "study": self.name,
            "passed": self.passed,
            "mutants_rejected": dict(self.mutants),
            # JSON knows no infinity: null where so few trials detect no difference at all
            "rows": [{k: None if v == float("inf") else v for k, v in row.items()} for row in self.rows],
            "provenance": dict(self.provenance),
        }

    def table(self) -> str:
        """Lines for a terminal."""
        head = ("case", "rate of", "trials", "estimate", "interval", "exact", "detects", "verdict")
        body = [
            (
                row["case"],
                row["key"],
                f"{row['trials']:,}",
                f"{row['estimate']:.6f}",
                f"[{row['low']:.5f}, {row['high']:.5f}]",
                f"{row['law']:.6f}",
                f"{row['detectable']:.2g}",
                row["verdict"],
            )
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths)).rstrip() for line in [head, *body]]
        lines.append("")
        for name, rejected in self.mutants.items():
            lines.append(f"mutant law: {name}: {'rejected' if rejected else 'NOT REJECTED'}")
        agree = sum(row["verdict"] == "SUPPORTED" for row in self.rows)
        lines.append(f"{agree} of {len(self.rows)} rates agree with their law; {'passed' if self.passed else 'FAILED'}")
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """JSON lines: provenance and summary first, then one row a line. An earlier file stays until this one is whole."""
        record = self.to_json()
        rows = record.pop("rows")
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in [record, *rows])
        _output.write(path, text)


def studies() -> list[str]:
    """Names of the studies of the checkout, sorted."""
    return sorted(p.stem for p in folder("simulations").glob("*.py") if p.with_suffix(".toml").exists())


def settings_of(name: str, *, full: bool, device: str = "cpu") -> dict[str, Any]:
    """The study's settings table over the common entries at the file's top: [quick], or [full], or [gpu] for another device."""
    path, mode = folder("simulations") / f"{name}.toml", "quick"
    if full:
        mode = "full" if device == "cpu" else "gpu"
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    settings = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    settings |= tables.get(mode, {})
    for key in ("blocks", "block_size"):
        value = settings.get(key)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{path.name} has {key} = {value!r} for [{mode}] but needs a whole number of at least 1")
    return settings


def run_study(
    name: str,
    *,
    full: bool = False,
    seed: int = 0,
    workers: int = 1,
    backend: str = "numpy",
    device: str = "cpu",
    store: str | Path | None = None,
    resume: bool = False,
    progress: IO[str] | None = sys.stderr,
) -> StudyResult:
    """Run a study of the checkout and confront every rate with its law.

    backend, device: the array library that draws and routes, where the study offers a choice (its `BACKENDS`); its
    sampler then receives them as keywords. Under torchrun the blocks are shared by all ranks, rank 0 alone reports, and
    rank k > 0 stores beside it in `<store>.rank<k>`, so that a run resumes with the same number of ranks.
    store: file of finished blocks, continued if resume. progress: where to show estimates and notices, None for nowhere.
    The false-alarm budget `statistics.ALPHA` is divided over all rates. Raises ValueError for an unknown study or backend,
    and what `Store` and `engine.run` raise.
    """
    if name not in studies():
        raise ValueError(f"study = {name!r} must be one of {', '.join(studies())}")
    if resume and store is None:
        raise ValueError("resume = True needs a store to go on from")
    module = importlib.import_module(f"simulations.{name}")
    backends = getattr(module, "BACKENDS", ("numpy",))
    if backend not in backends:
        raise ValueError(f"backend = {backend!r} must be {' or '.join(backends)} for the study {name}")
    devices = getattr(module, "DEVICES", ("cpu",))  # where a study that trains networks can do so
    if device not in devices and backend == "numpy":
        raise ValueError(f"device = {device!r} must be 'cpu' for backend = 'numpy'")
    if backend == "cupy":
        device = "cuda"
    where = {"backend": backend, "device": device} if len(backends) > 1 else {}
    if ranks.rank():
        progress = None
        store = None if store is None else f"{store}.rank{ranks.rank()}"
    settings = settings_of(name, full=full, device=device if hasattr(module, "arms") else "cpu")
    options = (" --full" if full else "") + (f" --backend {backend} --device {device}" if where else "")
    if device != "cpu" and hasattr(module, "arms"):
        settings["device"] = device
        options += f" --device {device}"
    command = f"resonance simulate {name}{options} --seed {seed} --record"
    if hasattr(module, "arms"):
        from resonance_theory.evidence.studies.training import run_training

        return run_training(
            name,
            module.arms(settings),
            settings,
            command=command,
            packages=getattr(module, "PACKAGES", ()),
            seed=seed,
            workers=workers,
            store=store,
            resume=resume,
            progress=progress,
        )
    cases: list[Case] = module.cases(settings)
    if len({case.label for case in cases}) != len(cases):
        raise ValueError(f"the study {name} gives two cases the same label but labels must be distinct")
    blocks, block_size = settings["blocks"], settings["block_size"]
    alpha = statistics.ALPHA / sum(len(case.laws) for case in cases)
    tasks = [
        Task(
            name=f"{name}/{case.label}",
            function=f"{case.sampler.__module__}:{case.sampler.__qualname__}",
            parameters={**case.parameters, **where},
            block_size=block_size,
            seed=seed,
        )
        for case in cases
    ]
    by_id = {task.id: case for task, case in zip(tasks, cases)}
    display = Progress(
        lambda task, tally: _progress_line(by_id[task.id], tally, alpha),
        dict.fromkeys(by_id, blocks * block_size),
        stream=progress,
    )
    start = time.perf_counter()
    opened = Store(store, resume=resume) if store is not None else None
    try:
        if opened is not None and progress is not None:
            notices(opened, by_id, progress)
        totals = run(tasks, blocks, workers=workers, store=opened, on_block=display)
    finally:
        display.close()
        if opened is not None:
            opened.close()
    rows = []
    rejected: dict[str, bool] = {}
    for task, case in zip(tasks, cases):
        tally = totals[task.id]
        for key, law in case.laws.items():
            if key not in tally.counts:
                raise ValueError(
                    f"the study {name} has a law for {key!r} but its sampler counts {', '.join(tally.counts)}"
                )
            count = tally.counts[key]
            outcome = statistics.equal(count, tally.trials, law, alpha)
            low, high = statistics.clopper_pearson(count, tally.trials, alpha)
            rows.append(
                {
                    "case": case.label,
                    "key": key,
                    "parameters": dict(case.parameters),
                    "trials": tally.trials,
                    "successes": count,
                    "estimate": count / tally.trials,
                    "low": float(low),
                    "high": float(high),
                    "law": float(law),
                    "detectable": float(statistics.detectable(law, tally.trials, alpha)),
                    "verdict": "SUPPORTED" if outcome.holds else "VIOLATED" if outcome.fails else "INCONCLUSIVE",
                }
            )
            for mutant, wrong in case.mutants.items():
                if key in wrong:
                    fails = statistics.equal(count, tally.trials, wrong[key], alpha).fails
                    rejected[mutant] = rejected.get(mutant, False) or fails
    provenance = {
        "command": command,
        **versions(),
        "backend": backend,
        **_device(backend, device),
        "seed": seed,
        "false_alarm_budget": statistics.ALPHA,
        "seconds": round(time.perf_counter() - start, 1),
    }
    return StudyResult(name, rows, rejected, provenance)


def _device(backend: str, device: str) -> dict[str, str]:
    """The library and the device that drew and routed, with version and name; empty for NumPy."""
    if backend == "numpy":
        return {}
    library = importlib.import_module(backend)
    if backend == "torch":
        name = library.cuda.get_device_name() if device == "cuda" else "cpu"
    else:
        name = library.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return {"device": name, backend: library.__version__}


def _progress_line(case: Case, tally: Tally, alpha: float) -> str:
    """The rate of a case that lies farthest from its law, in units of its interval."""
    keys = [key for key in case.laws if key in tally.counts]
    count, law = np.asarray([tally.counts[key] for key in keys]), np.asarray([case.laws[key] for key in keys])
    if not keys:
        return case.label
    low, high = statistics.clopper_pearson(count, tally.trials, alpha)
    estimate, half = count / tally.trials, (high - low) / 2
    i = int(np.argmax(np.abs(estimate - law) / half))
    return f"{case.label:<34} {keys[i]:<20} {estimate[i]:.5f} ± {half[i]:.5f}  exact {law[i]:.5f}"


def notices(store: Store, ids: Mapping[str, object], stream: IO[str]) -> None:
    """What of an opened store is used, and what is not."""
    if store.cut:
        print(f"{store.path}: {store.cut} bytes of an interrupted line were cut off", file=stream)
    known = sum(len(blocks) for id, blocks in store.blocks.items() if id in ids)
    other = sum(len(blocks) for id, blocks in store.blocks.items() if id not in ids)
    if known or other:
        text = f", {other} of other settings, seeds or code are left alone" if other else ""
        print(f"{store.path}: {known} finished blocks are used{text}", file=stream)
