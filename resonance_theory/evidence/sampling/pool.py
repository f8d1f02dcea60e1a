"""The one pool of processes: for the blocks of a study and for the claims of the ledger, with one way to stop.

Ctrl-C, an error and a dead worker end a run here; a parent that is killed takes its workers along.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import TypeVar, TypeVarTuple

from resonance_theory import _arguments as arguments
from resonance_theory.evidence import project
from resonance_theory.evidence.sampling.threads import one_thread

__all__ = ["AHEAD", "Failed", "each"]

AHEAD = 2
"""Calls for each worker that are handed out at a time: with a short queue little is left to wait for at a break."""

Item = TypeVarTuple("Item")
Result = TypeVar("Result")


def _broke(problem: BaseException) -> bool:
    """Whether a worker died; Dask says so by an exception of its own, which is not imported here."""
    return isinstance(problem, BrokenExecutor) or type(problem).__name__ == "KilledWorker"


class Failed(RuntimeError):
    """The call for `items[index]` raised, which is the cause of this, or `died`: its process was killed."""

    def __init__(self, index: int, cause: BaseException) -> None:
        self.index, self.died = index, _broke(cause)
        super().__init__(f"item {index}: {'its worker process died' if self.died else cause}")


def each(
    function: Callable[[*Item], Result],
    items: Sequence[tuple[*Item]],
    *,
    workers: int,
    finish: Callable[[int, Result], None],
    keep: bool = False,
    apart: bool = False,
    executor: Executor | None = None,
) -> None:
    """Call finish(index, function(*items[index])) for every item, as results come in; finish runs in this process.

    Args:
        function: A module-level function, as its items and results travel between processes.
        items: Arguments of its calls.
        workers: Processes, at least 1; beyond 1 they are spawned, so a script needs its `__main__` guard.
        finish: Takes the place of an item and its result.
        keep: Whether items under way when the run is interrupted are worth waiting for: their results are then finished
            too, unless a second interruption comes. Otherwise the workers are killed at once.
        apart: Whether even a single worker is a process of its own, which may die without this one.
        executor: Any executor with the interface of `concurrent.futures`, to use in place of processes started here; it is
            left open. `workers` calls and as many again are handed to it at a time.

    Raises:
        Failed: A call raised, or a worker died. Items under way are finished; the earliest failure is told.
    """
    arguments.integer("workers", workers, 1)
    if executor is not None:
        _elsewhere(function, items, AHEAD * workers, finish, keep, executor)
        return
    if apart or (workers > 1 and len(items) > 1):
        _parallel(function, items, max(1, min(workers, len(items))), finish, keep)
        return
    for index, item in enumerate(items):
        try:
            result = function(*item)
        except Exception as problem:
            raise Failed(index, problem) from problem
        finish(index, result)


def _parallel(
    function: Callable[[*Item], Result],
    items: Sequence[tuple[*Item]],
    workers: int,
    finish: Callable[[int, Result], None],
    keep: bool,
) -> None:
    queue = iter(enumerate(items))
    running: dict[Future[Result], int] = {}  # in order of submission
    others = set(multiprocessing.active_children())

    def kill() -> None:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()

    context = multiprocessing.get_context("spawn")  # a fork would copy locks held by other threads
    with one_thread(), ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:

        def submit(count: int) -> None:
            with _interrupts_held():
                for index, item in islice(queue, count):
                    running[pool.submit(function, *item)] = index

        try:
            submit(AHEAD * workers)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                if any(future.exception() for future in done):
                    break
                for future in done:
                    finish(running.pop(future), future.result())
                submit(len(done))
        except BaseException:
            if not keep:
                kill()
            raise
        finally:
            try:
                pool.shutdown(wait=True, cancel_futures=True)
            except BaseException:
                kill()
                raise
            for future in list(running):
                if not future.cancelled() and future.exception() is None:
                    finish(running.pop(future), future.result())
    for future, index in running.items():
        problem = None if future.cancelled() else future.exception()
        if problem is not None:
            raise Failed(index, problem) from problem


_ONE = threading.Lock()  # workers that are threads of one process take turns: libraries share their number of threads


def _call(paths: Sequence[str], function: Callable[[*Item], Result], *item: *Item) -> Result:
    """A call in somebody else's worker, which may know less of where modules are."""
    with _ONE:
        sys.path += [path for path in paths if path not in sys.path and os.path.isdir(path)]
        return function(*item)


def _elsewhere(
    function: Callable[[*Item], Result],
    items: Sequence[tuple[*Item]],
    ahead: int,
    finish: Callable[[int, Result], None],
    keep: bool,
    executor: Executor,
) -> None:
    queue = iter(enumerate(items))
    running: dict[Future[Result], int] = {}
    paths = list(project.ADDED)

    def submit(count: int) -> None:
        for index, item in islice(queue, count):
            running[executor.submit(_call, paths, function, *item)] = index  # type: ignore[arg-type]

    failed: Failed | None = None
    try:
        submit(ahead)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                index, problem = running.pop(future), future.exception()
                if problem is None:
                    finish(index, future.result())
                elif failed is None or index < failed.index:
                    failed = Failed(index, problem)
                    failed.__cause__ = problem
            if failed is None:
                submit(len(done))
            else:
                _drop(running)
    except BaseException:
        _drop(running)
        for future in list(running) if keep else []:
            if future.exception() is None:
                finish(running.pop(future), future.result())
        raise
    if failed is not None:
        raise failed


def _drop(running: dict[Future[Result], int]) -> None:
    """Cancel what has not begun."""
    for future in list(running):
        if future.cancel():
            del running[future]


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until this is left, and never reaches the processes started within: they inherit the mask."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it: a worker whose parent was killed would wait forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
