"""A study: rates measured by simulation, each confronted with its exact law within one false-alarm budget.

A study is one file `simulations/<name>.py` with `cases(settings) -> list[Case]` and a module docstring, and one
`simulations/<name>.toml` with the tables [quick] and [full]; nothing else needs editing. `blocks` in a table is the
number of blocks of every case, `block_size` the trials of each; all other keys are the study's own. A study that
defines `arms` instead trains networks: see `training.py`.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from resonance_theory.evidence import statistics
from resonance_theory.evidence.project import Project, default, folder, loaded, python_files
from resonance_theory.evidence.sampling import ranks
from resonance_theory.evidence.sampling.task import Tally, Task
from resonance_theory.evidence.studies.result import StudyResult
from resonance_theory.evidence.studies.running import Run
from resonance_theory.evidence.studies.training import run_training

__all__ = ["Case", "StudyResult", "Unavailable", "run_study", "settings_of", "studies"]


class Unavailable(ValueError):
    """What a study needs is not on this machine, such as the text that its settings name."""


@dataclass(frozen=True)
class Case:
    """One setting of a study.

    Attributes:
        label: Short text for tables; distinct within the study.
        sampler: Module-level function sample(rng, trials, **parameters) -> {key: successes}.
        parameters: Its JSON-able arguments.
        laws: Exact probability by key.
        mutants: Name of a wrong law -> its probability by key; each must be rejected in at least one case.
    """

    label: str
    sampler: Callable[..., Mapping[str, int]]
    parameters: Mapping[str, Any]
    laws: Mapping[str, float]
    mutants: Mapping[str, Mapping[str, float]]


def _files(project: Project | None) -> dict[str, Path]:
    """The file of each study by its name; a study has settings beside it."""
    project = project or default()
    files = sorted(folder("simulations").glob("*.py")) if project.own else python_files(project.studies)
    found: dict[str, Path] = {}
    for path in files:
        if path.with_suffix(".toml").exists() and found.setdefault(path.stem, path) != path:
            raise ValueError(f"{project.short(path)} has the name of {project.short(found[path.stem])}")
    return found


def _file(name: str, project: Project | None) -> Path:
    """The file of one study; ValueError for a name that none has."""
    known = _files(project)
    if name not in known:
        raise ValueError(f"study = {name!r} must be one of {', '.join(sorted(known))}")
    return known[name]


def studies(project: Project | None = None) -> list[str]:
    """Names of the studies of a project, the working folder's by default, sorted."""
    return sorted(_files(project))


def settings_of(name: str, *, full: bool, device: str = "cpu", project: Project | None = None) -> dict[str, Any]:
    """The study's settings table over the common entries at the file's top: [quick], or [full], or [gpu] for another device."""
    path, mode = _file(name, project).with_suffix(".toml"), "quick"
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
    project: Project | None = None,
    full: bool = False,
    seed: int = 0,
    workers: int = 1,
    backend: str = "numpy",
    device: str = "cpu",
    store: str | Path | None = None,
    resume: bool = False,
    progress: IO[str] | None = sys.stderr,
    executor: Executor | None = None,
    shard: tuple[int, int] = (1, 1),
) -> StudyResult:
    """Run a study and confront every rate with its law.

    The false-alarm budget `statistics.ALPHA` is divided over all rates. Under torchrun the blocks are shared by all ranks,
    rank 0 alone reports, and rank k > 0 stores beside it in `<store>.rank<k>`, so that a run resumes with the same number
    of ranks.

    Args:
        name: One of `studies(project)`.
        project: Where it lies; the working folder's project by default.
        full: Whether to take the sizes of the table [full].
        seed: Whole number of at least 0.
        workers: Processes, at least 1.
        backend: The array library that draws and routes, where the study offers a choice (its `BACKENDS`); its sampler
            then receives backend and device as keywords.
        device: Where it does so; "cpu" for NumPy.
        store: File of finished blocks, continued if `resume`.
        resume: Whether the store holds blocks to go on from.
        progress: Where to show estimates and notices, None for nowhere.
        executor: Any executor of the interface of `concurrent.futures`; None for processes.
        shard: (i, n) for the i-th of n shares of the blocks alone, to be merged by their stores; the result is then empty.

    Returns:
        Rates and verdicts; for a study that trains networks, a `TrainingResult`.

    Raises:
        ValueError: The study, the backend or the device is unknown, the store cannot be used, the sampler counts other keys
            than its law has, or the environment holds only part of what torchrun sets.
        SamplerError: A sampler raised or a worker died.
    """
    file = _file(name, project)
    if resume and store is None:
        raise ValueError("resume = True needs a store to go on from")
    rank = ranks.rank()
    module = loaded(file)
    trains, backends = hasattr(module, "arms"), getattr(module, "BACKENDS", ("numpy",))
    device = _checked_device(name, module, backend, device)
    where = {"backend": backend, "device": device} if len(backends) > 1 else {}
    settings = settings_of(name, full=full, device=device if trains else "cpu", project=project)
    if trains and device != "cpu":
        where = {"device": device}
        settings = settings | where
    options = (" --full" if full else "") + "".join(f" --{key} {value}" for key, value in where.items())
    run = Run(
        command=f"resonance simulate {name}{options} --seed {seed} --record",
        seed=seed,
        workers=workers,
        store=f"{store}.rank{rank}" if rank and store is not None else store,
        resume=resume,
        progress=None if rank else progress,
        executor=executor,
        shard=shard,
    )
    if trains:
        return run_training(name, module.arms(settings), settings, run, getattr(module, "PACKAGES", ()))
    return _run_rates(name, module.cases(settings), settings, run, where)


def _checked_device(name: str, module: ModuleType, backend: str, device: str) -> str:
    """The device that the backend will use; ValueError where the study does not offer either."""
    backends = getattr(module, "BACKENDS", ("numpy",))
    if backend not in backends:
        raise ValueError(f"backend = {backend!r} must be {' or '.join(backends)} for the study {name}")
    devices = getattr(module, "DEVICES", ("cpu",))  # where a study that trains networks can do so
    if device not in devices and backend == "numpy":
        raise ValueError(f"device = {device!r} must be 'cpu' for backend = 'numpy'")
    return "cuda" if backend == "cupy" else device


def _run_rates(
    name: str, cases: Sequence[Case], settings: Mapping[str, Any], run: Run, where: Mapping[str, str]
) -> StudyResult:
    if len({case.label for case in cases}) != len(cases):
        raise ValueError(f"the study {name} gives two cases the same label but labels must be distinct")
    alpha = statistics.ALPHA / sum(len(case.laws) for case in cases)
    tasks = [
        Task(
            name=f"{name}/{case.label}",
            function=f"{case.sampler.__module__}:{case.sampler.__qualname__}",
            parameters={**case.parameters, **where},
            block_size=settings["block_size"],
            seed=run.seed,
        )
        for case in cases
    ]
    owner = {task.id: case for task, case in zip(tasks, cases)}
    totals, made = run.totals(tasks, settings["blocks"], lambda task, t: _progress_line(owner[task.id], t, alpha))
    if run.shard[1] > 1:  # a part says nothing yet
        return StudyResult(name, [], {}, made)
    rows: list[dict[str, Any]] = []
    rejected: dict[str, bool] = {}
    for task, case in zip(tasks, cases):
        _check_counts(name, case, totals[task.id])
        rows += _rows(case, totals[task.id], alpha)
        for mutant, wrong in case.mutants.items():
            rejected[mutant] = rejected.get(mutant, False) or _rejects(case, totals[task.id], wrong, alpha)
    backend, device = where.get("backend", "numpy"), where.get("device", "cpu")
    made |= {"backend": backend, **_device(backend, device), "false_alarm_budget": statistics.ALPHA}
    return StudyResult(name, rows, rejected, made)


def _check_counts(name: str, case: Case, tally: Tally) -> None:
    for key in case.laws:
        if key not in tally.counts:
            raise ValueError(f"the study {name} has a law for {key!r} but its sampler counts {', '.join(tally.counts)}")
        if tally.counts[key] > tally.trials:
            raise ValueError(
                f"the study {name} counts {key} = {tally.counts[key]} in {tally.trials} trials of {case.label} "
                "but a rate is at most 1"
            )


def _rows(case: Case, tally: Tally, alpha: float) -> list[dict[str, Any]]:
    rows = []
    for key, law in case.laws.items():
        row = statistics.row(key, tally.counts[key], tally.trials, law, alpha)
        outcome = statistics.equal(tally.counts[key], tally.trials, law, alpha)
        verdict = "SUPPORTED" if outcome.holds else "VIOLATED" if outcome.fails else "INCONCLUSIVE"
        rows.append({"case": case.label, "parameters": dict(case.parameters), **row, "verdict": verdict})
    return rows


def _rejects(case: Case, tally: Tally, wrong: Mapping[str, float], alpha: float) -> bool:
    """Whether a wrong law is told from what was measured, by any of the rates that the study has a law for."""
    keys = case.laws.keys() & wrong.keys()
    return any(statistics.equal(tally.counts[key], tally.trials, wrong[key], alpha).fails for key in keys)


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
