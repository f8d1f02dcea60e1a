"""The one pool of processes: for the blocks of a study and for the claims of the ledger, with one way to stop.

Ctrl-C, an error and a dead worker end a run here; a parent that is killed takes its workers along.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar, TypeVarTuple

from resonance_theory import _arguments as arguments
from resonance_theory.evidence.sampling.threads import one_thread

__all__ = ["AHEAD", "Failed", "each"]

AHEAD = 2
"""Calls for each worker that are handed out at a time: with a short queue little is left to wait for at a break."""

Item = TypeVarTuple("Item")
Result = TypeVar("Result")


class Failed(RuntimeError):
    """The call for `items[index]` raised, which is the cause of this, or `died`: its process was killed."""

    def __init__(self, index: int, cause: BaseException) -> None:
        self.index, self.died = index, isinstance(cause, BrokenProcessPool)
        super().__init__(f"item {index}: {'its worker process died' if self.died else cause}")


def each(
    function: Callable[[*Item], Result],
    items: Sequence[tuple[*Item]],
    *,
    workers: int,
    finish: Callable[[int, Result], None],
    keep: bool = False,
    apart: bool = False,
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

    Raises:
        Failed: A call raised, or a worker died. Items under way are finished; the earliest failure is told.
    """
    arguments.integer("workers", workers, 1)
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
