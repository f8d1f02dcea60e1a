"""What studies that train networks share: settings, descent, and the whole numbers in which runs report.

A study holds its settings in a frozen dataclass, of which `parameters` makes an arm's parameters out of the TOML, and
`takes` lets its `train(rng, runs, settings)` be called by keywords, as a task calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

import numpy as np

Settings = TypeVar("Settings")
Counts = dict[str, int]


def parameters(kind: type, settings: Mapping[str, Any], **own: Any) -> dict[str, Any]:
    """An arm's parameters: whatever of the table `settings` is a field of the dataclass `kind`, and the arm's own.

    Raises TypeError where a field is missing or unknown, so that a misspelt one is found before anything is trained.
    """
    table = {field.name: settings[field.name] for field in fields(kind) if field.name in settings} | own
    kind(**table)
    return table


def takes(
    kind: Callable[..., Settings],
) -> Callable[[Callable[[np.random.Generator, int, Settings], Counts]], Callable[..., Counts]]:
    """Decorate train(rng, runs, settings) to be called as train(rng, runs, **fields of the settings)."""

    def decorate(train: Callable[[np.random.Generator, int, Settings], Counts]) -> Callable[..., Counts]:
        @wraps(train)
        def by_keywords(rng: np.random.Generator, runs: int, **table: Any) -> Counts:
            return train(rng, runs, kind(**table))

        return by_keywords

    return decorate


def counts(runs: Iterable[Mapping[str, float]], per: int) -> Counts:
    """Measurements of each run as a task returns them: {"metric/run": whole number of 1/per}."""
    return {f"{name}/{run}": round(value * per) for run, found in enumerate(runs) for name, value in found.items()}


def each_run(
    rng: np.random.Generator, runs: int, per: int, one: Callable[[np.random.Generator], Mapping[str, float]]
) -> Counts:
    """`counts` of runs that are made one after the other, each on its own stream."""
    with one_thread():
        return counts([one(stream) for stream in rng.spawn(runs)], per)


def at(step: int, checkpoints: Sequence[int], found: Mapping[str, float]) -> dict[str, float]:
    """Measurements named after the checkpoint: "metric @step", the last one "metric @end"."""
    return {f"{name} @{'end' if step == checkpoints[-1] else step}": value for name, value in found.items()}


def cross_entropy(logits: Any, label: np.ndarray) -> Any:
    """Sum over runs of their means: each run's gradient is its own, and Adam treats every weight by itself."""
    import torch

    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(label).flatten()) * len(logits)


def descend(
    weights: list[Any], loss: Callable[[], Any], steps: int, rate: float, *, fall: bool = True
) -> Iterator[int]:
    """Train by Adam, its rate falling to 0 by a cosine unless fall = False; yields the number of steps taken, from 0."""
    import torch

    optimizer = torch.optim.Adam(weights, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if fall else None
    yield 0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if schedule:
            schedule.step()
        yield step


@contextmanager
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
