"""Run blocks of tasks, alone or over a pool of processes: the totals are the same for any number of workers."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from resonance_theory.montecarlo.store import Store
from resonance_theory.montecarlo.task import Tally, Task

__all__ = ["SamplerError", "run"]


class SamplerError(RuntimeError):
    """A sampler raised, or its process died; the message names the task and the block."""


def _sample(task: Task, block: int) -> Tally:
    return task.sample(block)


def _one_thread() -> None:
    """Workers share the cores as processes; threads inside them would only get in each other's way."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def run(
    tasks: Sequence[Task],
    blocks: int | Mapping[str, int],
    *,
    workers: int = 1,
    store: Store | None = None,
    on_block: Callable[[Task, Tally], None] | None = None,
) -> dict[str, Tally]:
    """Totals of every task over blocks 0..blocks-1, by task id.

    blocks: one number for all tasks, or one per task id. store: blocks found there are not run again, and every
    finished one is appended. on_block(task, running total) is called after each block. Raises SamplerError if a sampler
    does; what was finished by then is in the store.
    """
    wanted = {task.id: blocks if isinstance(blocks, int) else blocks[task.id] for task in tasks}
    if len(wanted) != len(tasks):
        raise ValueError("tasks hold the same task twice but must be distinct")
    totals = {task.id: Tally() for task in tasks}
    todo: list[tuple[Task, int]] = []
    for task in tasks:
        done = store.blocks.get(task.id, {}) if store else {}
        for block in range(wanted[task.id]):
            if block in done:
                totals[task.id] += done[block]
            else:
                todo.append((task, block))
        if on_block is not None and totals[task.id].trials:
            on_block(task, totals[task.id])
    # block by block over all tasks, so that every estimate tightens from the start
    todo.sort(key=lambda item: item[1])

    def finish(task: Task, block: int, tally: Tally) -> None:
        if store is not None:
            store.add(task, block, tally)
        totals[task.id] += tally
        if on_block is not None:
            on_block(task, totals[task.id])

    if workers == 1 or len(todo) <= 1:
        for task, block in todo:
            try:
                tally = task.sample(block)
            except Exception as problem:
                raise SamplerError(f"{task.name}, block {block}: {problem}") from problem
            finish(task, block, tally)
        return totals

    context = multiprocessing.get_context("spawn")
    _one_thread()
    with ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_one_thread) as pool:
        queue = iter(todo)
        pending: dict[Future[Tally], tuple[Task, int]] = {}

        def submit(count: int) -> None:
            for task, block in islice(queue, count):
                pending[pool.submit(_sample, task, block)] = (task, block)

        try:
            submit(4 * workers)  # a short queue: memory and an interruption's loss stay small
            while pending:
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    task, block = pending.pop(future)
                    try:
                        tally = future.result()
                    except BrokenProcessPool:
                        raise SamplerError(
                            f"{task.name}, block {block}: a worker process died (killed, or out of memory)"
                        ) from None
                    except Exception as problem:
                        raise SamplerError(f"{task.name}, block {block}: {problem}") from problem
                    finish(task, block, tally)
                submit(len(finished))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return totals
