"""What to sample: an immutable task with a strong id, and the additive tally it produces."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.evidence.sampling.streams import generator
from resonance_theory.evidence.sampling.threads import one_thread
from resonance_theory.provenance import provenance

__all__ = ["Tally", "Task", "versions"]


@dataclass(frozen=True)
class Tally:
    """Number of trials, and integer totals by key; merges by addition, so order and grouping cannot matter.

    Example:
        >>> Tally(10, {"heads": 4}) + Tally(10, {"heads": 5, "edge": 1})
        Tally(trials=20, counts={'heads': 9, 'edge': 1})
    """

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
    sampler: Callable[..., Mapping[str, int]] = value
    return sampler


@cache
def _source(function: str) -> str:
    """Digest of the code behind a sampler: this package, and the top-level package or module that holds the sampler.

    Coarse on purpose: whatever the sampler calls is in there, so blocks of older code are never added to newer ones.
    """
    digest = hashlib.blake2b(digest_size=8)
    for top in sorted({__name__.partition(".")[0], _load(function).__module__.partition(".")[0]}):
        module = importlib.import_module(top)
        files = [file for folder in getattr(module, "__path__", ()) for file in sorted(Path(folder).rglob("*.py"))]
        if not files and getattr(module, "__file__", None):  # code typed at a prompt has no file
            files = [Path(str(module.__file__))]
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def versions() -> dict[str, str]:
    """What drew the numbers: versions of this package, Python and the numeric libraries, and the platform."""
    made = provenance()
    packages = {name: made["packages"][name] or "absent" for name in ("numpy", "scipy", "torch", "numba")}
    own = {"resonance-theory": made["version"], "python": made["python"]}
    return {**own, **packages, "platform": made["platform"]}


def identity(description: Mapping[str, Any]) -> str:
    """The id of the task with this description."""
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Task:
    """Blocks of trials of one sampler with one set of parameters.

    A block's tally is a pure function of (task, block). `id` hashes all of it and the source code behind the sampler.

    Attributes:
        name: Label; it addresses the random stream together with seed and block.
        function: "module:name" of sample(rng, trials, **parameters) -> {key: whole number}, a module-level function.
        parameters: JSON-able keyword arguments.
        block_size: Trials per block, at least 1.
        seed: Whole number of at least 0.
    """

    name: str
    function: str
    parameters: Mapping[str, Any]
    block_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        arguments.integer("block_size", self.block_size, 1)
        arguments.integer("seed", self.seed, 0)
        object.__setattr__(self, "parameters", deepcopy(dict(self.parameters)))  # out of the caller's reach

    @cached_property
    def id(self) -> str:
        return identity(self.describe())

    def describe(self) -> dict[str, Any]:
        """Everything that determines a block's tally, JSON-able."""
        return {
            "name": self.name,
            "function": self.function,
            "parameters": dict(self.parameters),
            "block_size": self.block_size,
            "seed": self.seed,
            "source": _source(self.function),
        }

    def sample(self, block: int) -> Tally:
        """The tally of one block, drawn on one thread."""
        rng = generator(self.seed, self.name, block)
        sampler = _load(self.function)
        with one_thread():
            counts = sampler(rng, self.block_size, **self.parameters)
        whole: dict[str, int] = {}
        for key, value in counts.items():
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
                raise TypeError(
                    f"{self.function} returned {key} = {value!r} but tallies are whole numbers of at least 0"
                )
            whole[key] = int(value)
        return Tally(self.block_size, whole)
