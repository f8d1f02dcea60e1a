"""Run blocks of tasks, alone or over a pool of processes: the totals are the same for any number of workers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from resonance_theory import _arguments as arguments
from resonance_theory.evidence.sampling import pool, ranks
from resonance_theory.evidence.sampling.store import Store
from resonance_theory.evidence.sampling.task import Tally, Task, identity, versions

__all__ = ["SamplerError", "run"]


class SamplerError(RuntimeError):
    """A sampler raised, or its process died; the message names the task and the block."""


def run(
    tasks: Sequence[Task],
    blocks: int | Mapping[str, int],
    *,
    workers: int = 1,
    store: Store | None = None,
    executor: Executor | None = None,
    shard: tuple[int, int] = (1, 1),
    on_block: Callable[[Task, Tally], None] | None = None,
) -> dict[str, Tally]:
    """Totals of every task over blocks 0..blocks-1, by task id.

    Under torchrun every rank runs its share of the blocks, with a store of its own, and returns the common totals.

    Args:
        tasks: Distinct tasks.
        blocks: One number for all tasks, or one per task id; at least 0.
        workers: Processes, at least 1; beyond 1 they are spawned, so samplers must be importable and a script needs the
            `if __name__ == "__main__"` guard.
        store: Blocks found there are not run again, and every finished one is appended.
        executor: Any executor with the interface of `concurrent.futures`, in place of processes started here. Its workers
            must have the same code and versions, which is checked.
        shard: (i, n) for the i-th of n shares of the blocks; together shards 1 to n have every block once.
        on_block: Receives a task and its running total after each block, and once at the start for a task that the
            store knows.

    Returns:
        A tally for each task id.

    Raises:
        SamplerError: A sampler raised or a worker died. Blocks under way still finish, as they do after an interruption
            where there is a store to keep them: all that is in the store counts when the run is resumed.
        ValueError: Tasks or numbers are not as above, or the environment holds only part of what torchrun sets.
    """
    first, step = _part(shard)
    stride = len(tasks) if shard[1] > 1 else 1  # shards share tasks of few blocks too, block by block over all of them
    ids = [task.id for task in tasks]
    if len(set(ids)) != len(ids):
        raise ValueError("tasks hold the same task twice but must be distinct")
    if isinstance(blocks, Mapping):
        missing = [task.name for task, id in zip(tasks, ids) if id not in blocks]
        if missing:
            raise ValueError(f"blocks has no entry for the task {missing[0]} but must have one for each task id")
    wanted = [arguments.whole("blocks", blocks[id] if isinstance(blocks, Mapping) else blocks, 0) for id in ids]

    totals = {id: Tally() for id in ids}
    todo: list[tuple[Task, int]] = []
    for index, (task, id, count) in enumerate(zip(tasks, ids, wanted)):
        done = store.blocks.get(id, {}) if store else {}
        mine = [block for block in range(count) if (block * stride + index * (stride > 1)) % step == first]
        totals[id] = sum((done[block] for block in mine if block in done), Tally())
        todo += [(task, block) for block in mine if block not in done]
        if on_block is not None and totals[id].trials:
            on_block(task, totals[id])
    todo.sort(key=lambda item: item[1])  # block by block over all tasks, so that every estimate tightens from the start

    def finish(index: int, tally: Tally) -> None:
        task, block = todo[index]
        if store is not None:
            store.add(task, block, tally)
        totals[task.id] += tally
        if on_block is not None:
            on_block(task, totals[task.id])

    try:
        keep = store is not None
        if executor is None:
            pool.each(_sample, todo, workers=workers, finish=finish, keep=keep)
        else:
            sent = [(task, block, task.id, versions()) for task, block in todo]
            pool.each(_sample_elsewhere, sent, workers=workers, finish=finish, keep=keep, executor=executor)
    except pool.Failed as failed:
        raise _failure(*todo[failed.index], failed) from failed.__cause__
    return ranks.total(totals)


def _failure(task: Task, block: int, failed: pool.Failed) -> SamplerError:
    where, problem = f"{task.name}, block {block}", failed.__cause__
    if failed.died:
        return SamplerError(f"a worker process died (killed, or out of memory) at {where}, or soon after")
    if isinstance(problem, MemoryError):
        said = str(problem) or "out of memory"
        return SamplerError(f"{where}: {said}: its trials a block, {task.block_size:,}, must be fewer here")
    return SamplerError(f"{where}: {type(problem).__name__}: {problem}")


def _part(shard: tuple[int, int]) -> tuple[int, int]:
    """Number and count, from 0, of a shard, or of a rank under torchrun."""
    count = arguments.whole("shards", shard[1], 1)
    index = arguments.whole("shard", shard[0], 1, count, "the number of shards")
    if count > 1 and ranks.world() > 1:
        raise ValueError(f"shard = {index}/{count} must be left out under torchrun, which shares the blocks itself")
    return (ranks.rank(), ranks.world()) if count == 1 else (index - 1, count)


def _sample_elsewhere(task: Task, block: int, id: str, made: dict[str, str]) -> Tally:
    """A block in a worker that was not started from here."""
    if identity(task.describe()) != id or versions() != made:
        raise ValueError(f"the worker on {platform.node()} has other code or versions than this process")
    return task.sample(block)


def _sample(task: Task, block: int) -> Tally:
    return task.sample(block)
