"""Many processes under `torchrun`: each takes every world-th block, and the tallies are added up over all of them.

A block's tally depends on its address alone, so the totals are the same for any number of ranks. Without torchrun's
environment there is one rank, and torch is not imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from resonance_theory.evidence.sampling.task import Tally

__all__ = ["rank", "total", "world"]


def _whole(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"the environment variable {name} = {text!r} must be a whole number of at least 0")
    return int(text)


def rank() -> int:
    """This process's number among the ranks that torchrun started; 0 without it."""
    return _whole("RANK", 0)


def world() -> int:
    """How many ranks torchrun started; 1 without it."""
    return max(1, _whole("WORLD_SIZE", 1))


def total(totals: Mapping[str, Tally]) -> dict[str, Tally]:
    """The sum of every rank's totals, by task id, on every rank; with one rank, the totals themselves."""
    if world() == 1:
        return dict(totals)
    import torch
    import torch.distributed as group

    # NCCL where every rank has a GPU of its own, gloo on CPUs
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= _whole("LOCAL_WORLD_SIZE", 1)
    device = torch.device("cuda", _whole("LOCAL_RANK", 0)) if cuda else torch.device("cpu")
    mine = not group.is_initialized()
    if mine:
        group.init_process_group("nccl" if cuda else "gloo")
    try:
        text = json.dumps({id: tally.to_json() for id, tally in totals.items()}).encode()
        # Keys differ between ranks (a rank may have met no block of a task), so text travels, not a table of counts.
        sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world())]
        group.all_gather(sizes, torch.tensor([len(text)], dtype=torch.int64, device=device))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8, device=device)
        padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
        parts = [torch.zeros_like(padded) for _ in range(world())]
        group.all_gather(parts, padded)
    finally:
        if mine:
            group.destroy_process_group()
    result: dict[str, Tally] = {}
    for size, part in zip(sizes, parts):
        for id, record in json.loads(bytes(part[: int(size)].cpu().tolist())).items():
            result[id] = result.get(id, Tally()) + Tally.from_json(record)
    return result
