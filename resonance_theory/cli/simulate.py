"""Run a study of simulations/ and confront it with the exact laws."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from resonance_theory.cli._files import Store, overwrites
from resonance_theory.cli._options import json_option, one_of, speed_options
from resonance_theory.cli._terminal import emit, show

EXAMPLES = """
resonance simulate success_rate --workers auto
resonance simulate success_rate --full --store run.jsonl             resumable:
resonance simulate success_rate --full --store run.jsonl --resume    go on after an interruption
resonance simulate --all 'planted_*'                                 several studies
resonance simulate success_rate --executor dask://scheduler:8786 --workers 64
resonance simulate success_rate --shard 2/5 --store part2.jsonl      a job of an array: see `resonance merge`
resonance simulate my/study.py                                       anybody's, with study.toml beside it
"""


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("study", nargs="?", metavar="STUDY", help="a study's name or file (with --all: a shell pattern, or a folder)")
    add("--all", action="store_true", help="every study in turn; exit 0 only if none fails")
    speed_options(parser)
    add("--backend", choices=("numpy", "torch", "cupy"), default="numpy", help="array library (default numpy)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where it computes (default cpu)")
    add(
        "--record",
        action="store_true",
        help="replace the stored record in simulations/results/, or in a project's results",
    )
    add("--store", type=Store, metavar="FILE", help="append-only record of finished blocks (--all: a folder)")
    add("--resume", action="store_true", help="go on where the store stops")
    json_option(parser)


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.project import find, recorded
    from resonance_theory.evidence.sampling import ranks
    from resonance_theory.evidence.sampling.executors import named
    from resonance_theory.evidence.studies.study import run_study, studies

    if options.all:
        return _every(options)
    if options.study is None:
        raise ValueError("give STUDY, or --all for every study")
    project, places, _ = find([options.study], "studies")
    if places and not places[0].is_file():
        raise ValueError(f"study = {options.study!r} must be a file, or given with --all")
    name = places[0].stem if places else options.study
    one_of("study", name, studies(project))
    results = recorded("simulations") / "results" if options.record and project.own else project.results
    stored = results / f"{name}.jsonl"
    for option in ("json", "store"):
        given = getattr(options, option)
        if options.record and given is not None and overwrites(str(stored), given):
            raise ValueError(f"--record would overwrite --{option} = {str(given)!r}: name another file")
    if options.shard[1] > 1 and (options.store is None or options.record):
        raise ValueError("--shard runs a part of the blocks: give --store for them, and leave --record out")
    keywords = ("full", "seed", "workers", "backend", "device", "store", "resume", "shard")
    with named(options.executor) as executor:
        given = {word: getattr(options, word) for word in keywords}
        result = run_study(name, project=project, executor=executor, progress=sys.stderr, **given)
    if options.shard[1] > 1:
        show(f"shard {options.shard[0]} of {options.shard[1]} is in {options.store}: `resonance merge`, then --resume")
        return 0
    if ranks.rank():  # rank 0 alone reports
        return 0 if result.passed else 1
    emit(result.to_json(), options.json, result.table())
    if options.record:
        stored.parent.mkdir(parents=True, exist_ok=True)
        result.write(stored)
    return 0 if result.passed else 1


def _every(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.project import find
    from resonance_theory.evidence.studies.evidence import run_all

    if options.record or options.backend != "numpy" or options.device != "cpu":
        raise ValueError("--all runs every study as it stands: leave --record, --backend and --device out")
    if options.executor != "processes" or options.shard != (1, 1):
        raise ValueError("--executor and --shard are for one study: leave --all out")
    quiet = options.json == "-"
    project, places, patterns = find([options.study or ""], "studies")
    if places and places[0].is_file():
        raise ValueError(f"study = {options.study!r} is one study: leave --all out")
    if places:
        project = replace(project, studies=tuple(places), own=False)
    found = run_all(
        *patterns,
        project=project,
        full=options.full,
        seed=options.seed,
        workers=options.workers,
        store=options.store,
        resume=options.resume,
        progress=sys.stderr,
        on_result=lambda evidence: None if quiet else show(evidence.line()),
    )
    emit([evidence.to_json() for evidence in found], options.json, _summary(found))
    return 1 if any(evidence.status == "failed" for evidence in found) else 0


def _summary(found: list[Any]) -> str:
    """The tables of the studies that did not pass, and one line with the names under each status."""
    tables = [f"\n{e.name}\n{e.result.table()}" for e in found if e.result is not None and e.status != "passed"]
    words = [f"{sum(e.status == 'passed' for e in found)} of {len(found)} studies passed"]
    for status in ("undecided", "no claim", "not run", "failed"):
        names = ", ".join(e.name for e in found if e.status == status)
        words += [f"{status} {names}"] if names else []
    return "\n".join([*tables, "; ".join(words)])
