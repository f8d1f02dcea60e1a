"""numba's compiler for the CPU kernels: a cache that may be missing, full or damaged, and threads that may collide."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching

__all__ = ["njit", "run"]

F = TypeVar("F", bound=Callable[..., Any])

_WORTH = 2**16  # entries of x that are worth a thread of their own: waking one costs more than 100 kB
_one_at_a_time = threading.Lock()
forked = False  # GNU OpenMP, numba's threads, dies in a forked child


def _after_fork() -> None:
    global forked
    forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _sources() -> tuple[Any, ...]:
    """What tells versions of this package apart: numba looks at a function's own file, not at those that it calls."""
    return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(_HERE.glob("*.py")))


_HERE = Path(__file__).parent
_said: set[str] = set()


def _say(subject: str, message: str) -> None:
    """Each subject once in a process: there are a dozen functions to compile."""
    if subject in _said:
        return
    _said.add(subject)
    if subject == "compile":
        logging.getLogger("resonance_theory.kernels").warning(message)
    else:
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _in_memory(problem: Exception) -> None:
    reason = " ".join(str(problem).split()) or type(problem).__name__
    _say(
        "memory",
        f"compiled kernels cannot be kept ({reason}): every process compiles them again, for about 15 s; "
        "set NUMBA_CACHE_DIR to a folder that can be written",
    )


def _compiling() -> None:
    _say("compile", "compiling the routing kernels: 3 to 20 s, once for each type of tokens")


class _Memory(caching.NullCache):
    """No cache at all."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        _compiling()


class _Disk(caching.FunctionCache):
    """numba's own cache, of which no failure ends a call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = self._cache_file._source_stamp, _sources()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception as problem:  # unpickling what is damaged can raise anything
            found = None
            kind = type(problem).__name__
            _say("damaged", f"compiled kernels in {self.cache_path} cannot be read ({kind}) and are compiled anew")
            with contextlib.suppress(Exception):
                self.flush()
        if found is None:
            _compiling()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as problem:
            _in_memory(problem)


def njit(**options: Any) -> Callable[[F], F]:
    """A decorator: compile a function with numba at its first call, and keep the code where that is possible.

    Args:
        **options: Those of `numba.njit`, but `cache` and `nogil`.

    Returns:
        What makes numba's dispatcher of a function, or leaves it as it is under NUMBA_DISABLE_JIT=1.
    """
    return functools.partial(_compiled, numba.njit(nogil=True, **options))


def _compiled(compiler: Any, function: F) -> F:
    compiled = compiler(function)
    if compiled is not function:
        try:
            compiled._cache = _Disk(function)
        except Exception as problem:  # no folder that can be written, or a later numba with other insides
            compiled._cache = _Memory()
            _in_memory(problem)
    return cast(F, compiled)


@functools.cache
def _serial(kernel: Any) -> Any:
    """The kernel without threads: same arithmetic, same result."""
    return numba.njit(kernel.py_func, nogil=True)


def _turn() -> contextlib.AbstractContextManager[Any]:
    """What to hold while a kernel runs: numba's own threads ("workqueue") abort the process where two calls meet."""
    try:
        safe = numba.threading_layer() != "workqueue"
    except ValueError:  # known only after the first kernel has run
        safe = False
    return contextlib.nullcontext() if safe else _one_at_a_time


@contextlib.contextmanager
def _threads_of_torch() -> Iterator[None]:
    """Numba's first kernel sets OpenMP's threads for all of the process, torch's too, whose sums would then differ."""
    torch: Any = sys.modules.get("torch")
    known = getattr(torch, "get_num_threads", None)  # None in the midst of its import
    before = known() if known else None
    try:
        yield
    finally:
        if known and known() != before:
            torch.set_num_threads(before)


def run(kernel: Any, work: int, *arguments: Any) -> Any:
    """Call a parallel kernel from any thread or forked process, on as many threads as its work keeps busy.

    Args:
        kernel: What `njit(parallel=True)` has made.
        work: The call's work, in entries of x that are read.
        *arguments: The kernel's.

    Returns:
        What the kernel returns, the same for every number of threads.
    """
    if forked:
        return _serial(kernel)(*arguments)
    with _turn(), _threads_of_torch():
        threads = numba.get_num_threads()
        few = max(1, min(threads, work // _WORTH))
        if few == threads:
            return kernel(*arguments)
        numba.set_num_threads(few)
        try:
            return kernel(*arguments)
        finally:
            numba.set_num_threads(threads)
