"""Many processes under `torchrun`: each takes every world-th block, and the tallies are added up over all of them.

A block's tally depends on its address alone, so the totals are the same for any number of ranks. Without torchrun's
environment there is one rank, and torch is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from resonance_theory.evidence.sampling.task import Tally

__all__ = ["rank", "total", "world"]


def _whole(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ValueError(f"the environment variable {name} = {text!r} must be a whole number of at least 0")
    return int(text)


def _place() -> tuple[int, int]:
    """Rank and number of ranks; raises ValueError where the environment is only half of what torchrun sets."""
    given = [name for name in ("RANK", "WORLD_SIZE") if name in os.environ]
    if not given:
        return 0, 1
    if len(given) == 1:
        other = "WORLD_SIZE" if given == ["RANK"] else "RANK"
        raise ValueError(
            f"the environment variable {given[0]} = {os.environ[given[0]]!r} comes without {other}: "
            "start many processes with torchrun, or unset it"
        )
    rank, world = _whole("RANK"), _whole("WORLD_SIZE")
    if rank >= world:
        raise ValueError(f"the environment variable RANK = {rank} must be less than WORLD_SIZE = {world}")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if world > 1 and missing:
        raise ValueError(
            f"the environment variable WORLD_SIZE = {world} comes without {' and '.join(missing)}: "
            "start many processes with torchrun"
        )
    return rank, world


def rank() -> int:
    """This process's number among the ranks that torchrun started; 0 without it.

    Raises:
        ValueError: The environment holds only part of what torchrun sets, or a rank that cannot be.
    """
    return _place()[0]


def world() -> int:
    """How many ranks torchrun started, 1 without it; raises as `rank` does."""
    return _place()[1]


def total(totals: Mapping[str, Tally]) -> dict[str, Tally]:
    """The sum of every rank's totals, by task id, on every rank; with one rank, the totals themselves."""
    if world() == 1:
        return dict(totals)
    import torch.distributed as group

    mine = not group.is_initialized()
    if mine:
        group.init_process_group("gloo")  # the tallies are few and on the CPU, whatever device drew them
    try:
        parts: list[dict[str, Tally]] = [{}] * world()
        group.all_gather_object(parts, dict(totals), group=group.new_group(backend="gloo"))
    finally:
        if mine:
            group.destroy_process_group()
    ids = dict.fromkeys(id for part in parts for id in part)
    return {id: sum((part[id] for part in parts if id in part), Tally()) for id in ids}
