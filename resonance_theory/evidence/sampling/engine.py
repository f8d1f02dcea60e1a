"""Run blocks of tasks, alone or over a pool of processes: the totals are the same for any number of workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from resonance_theory import _arguments as arguments
from resonance_theory.evidence.sampling import ranks
from resonance_theory.evidence.sampling.store import Store
from resonance_theory.evidence.sampling.task import Tally, Task

__all__ = ["SamplerError", "run"]

Finish = Callable[[Task, int, Tally], None]


class SamplerError(RuntimeError):
    """A sampler raised, or its process died; the message names the task and the block."""


def run(
    tasks: Sequence[Task],
    blocks: int | Mapping[str, int],
    *,
    workers: int = 1,
    store: Store | None = None,
    on_block: Callable[[Task, Tally], None] | None = None,
) -> dict[str, Tally]:
    """Totals of every task over blocks 0..blocks-1, by task id.

    Under torchrun every rank runs its share of the blocks, with a store of its own, and returns the common totals.

    blocks: one number for all tasks, or one per task id. workers: processes; beyond 1 they are spawned, so samplers
    must be importable and a script needs the `if __name__ == "__main__"` guard. store: blocks found there are not run
    again, and every finished one is appended. on_block(task, running total) is called after each block, and once at
    the start for a task that the store knows.

    Raises SamplerError if a sampler raises or a worker dies. Then, and after an interruption, blocks under way still
    finish and are kept: all that is in the store counts when the run is resumed.
    """
    arguments.integer("workers", workers, 1)
    ids = [task.id for task in tasks]
    if len(set(ids)) != len(ids):
        raise ValueError("tasks hold the same task twice but must be distinct")
    if isinstance(blocks, Mapping):
        missing = [task.name for task, id in zip(tasks, ids) if id not in blocks]
        if missing:
            raise ValueError(f"blocks has no entry for the task {missing[0]} but must have one for each task id")
    wanted = [int(arguments.integer("blocks", blocks[id] if isinstance(blocks, Mapping) else blocks, 0)) for id in ids]

    totals = {id: Tally() for id in ids}
    todo: list[tuple[Task, int]] = []
    for task, id, count in zip(tasks, ids, wanted):
        done = store.blocks.get(id, {}) if store else {}
        mine = range(ranks.rank(), count, ranks.world())
        totals[id] = sum((done[block] for block in mine if block in done), Tally())
        todo += [(task, block) for block in mine if block not in done]
        if on_block is not None and totals[id].trials:
            on_block(task, totals[id])
    todo.sort(key=lambda item: item[1])  # block by block over all tasks, so that every estimate tightens from the start

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
                raise _failure(task, block, problem) from problem
            finish(task, block, tally)
    else:
        _run_pool(todo, min(workers, len(todo)), finish)
    return ranks.total(totals)


def _run_pool(todo: Sequence[tuple[Task, int]], workers: int, finish: Finish) -> None:
    queue = iter(todo)
    running: dict[Future[Tally], tuple[Task, int]] = {}  # in order of submission
    context = multiprocessing.get_context("spawn")  # a fork would copy locks held by other threads
    with _one_thread_each(), ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:

        def submit(count: int) -> None:
            for task, block in islice(queue, count):
                running[pool.submit(_sample, task, block)] = (task, block)

        try:
            submit(2 * workers)  # a short queue: little is left to wait for when the run is broken off
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                if any(future.exception() for future in finished):
                    break
                for future in finished:
                    finish(*running.pop(future), future.result())
                submit(len(finished))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future in list(running):
                if not future.cancelled() and future.exception() is None:
                    finish(*running.pop(future), future.result())
    for future, (task, block) in running.items():
        # The failure submitted first is reported, whichever worker was faster.
        problem = None if future.cancelled() else future.exception()
        if problem is not None:
            raise _failure(task, block, problem) from problem


def _failure(task: Task, block: int, problem: BaseException) -> SamplerError:
    if isinstance(problem, BrokenProcessPool):
        return SamplerError(
            f"a worker process died (killed, or out of memory) at {task.name}, block {block}, or soon after"
        )
    return SamplerError(f"{task.name}, block {block}: {type(problem).__name__}: {problem}")


def _sample(task: Task, block: int) -> Tally:
    return task.sample(block)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it: a worker whose parent was killed would wait forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers share the cores as processes; threads inside them would only get in each other's way.

    Linear-algebra libraries read these variables when they are loaded, so workers must inherit them.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
