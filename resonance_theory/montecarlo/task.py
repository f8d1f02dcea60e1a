"""What to sample: an immutable task with a strong id, and the additive tally it produces."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from resonance_theory.montecarlo.streams import generator

__all__ = ["Tally", "Task"]


@dataclass(frozen=True)
class Tally:
    """Number of trials, and integer totals by key; merges by addition, so order and grouping cannot matter."""

    trials: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Tally) -> Tally:
        keys = {**self.counts, **other.counts}
        totals = {key: self.counts.get(key, 0) + other.counts.get(key, 0) for key in keys}
        return Tally(self.trials + other.trials, totals)

    def to_json(self) -> dict[str, Any]:
        return {"trials": self.trials, "counts": dict(self.counts)}

    @staticmethod
    def from_json(record: Any) -> Tally:
        """Raises ValueError unless the record is what `to_json` writes."""
        if (
            not isinstance(record, dict)
            or set(record) != {"trials", "counts"}
            or not isinstance(record["counts"], dict)
        ):
            raise ValueError("a tally must have the fields trials and counts")
        numbers = [record["trials"], *record["counts"].values()]
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in numbers):
            raise ValueError("a tally must hold non-negative whole numbers")
        return Tally(record["trials"], record["counts"])


@cache
def _load(function: str) -> Callable[..., Mapping[str, int]]:
    module, _, name = function.partition(":")
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


@cache
def _source(function: str) -> str:
    """Digest of the module that holds the sampler: results of older code are never mixed with newer ones."""
    module = inspect.getmodule(_load(function))
    return hashlib.blake2b(inspect.getsource(module).encode() if module else b"", digest_size=8).hexdigest()


@dataclass(frozen=True)
class Task:
    """Blocks of trials of one sampler with one set of parameters.

    name        label; it addresses the random stream together with seed and block
    function    "module:name" of sample(rng, trials, **parameters) -> {key: whole number}, a module-level function
    parameters  JSON-able keyword arguments
    block_size  trials per block, at least 1
    seed        whole number of at least 0

    A block's tally is a pure function of (task, block). `id` hashes all of it and the source of the sampler's module.
    """

    name: str
    function: str
    parameters: Mapping[str, Any]
    block_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ValueError(f"block_size = {self.block_size} must be a whole number of at least 1")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed} must be a whole number of at least 0")

    @property
    def id(self) -> str:
        what = [self.name, self.function, dict(self.parameters), self.block_size, self.seed, _source(self.function)]
        text = json.dumps(what, sort_keys=True, allow_nan=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def sample(self, block: int) -> Tally:
        """The tally of one block."""
        rng = generator(self.seed, self.name, block)
        counts = _load(self.function)(rng, self.block_size, **self.parameters)
        whole: dict[str, int] = {}
        for key, value in counts.items():
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
                raise TypeError(
                    f"{self.function} returned {key} = {value!r} but tallies are whole numbers of at least 0"
                )
            whole[key] = int(value)
        return Tally(self.block_size, whole)
