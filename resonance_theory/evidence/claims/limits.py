"""How long a check may take: an alarm that raises in it, and behind that one that ends its process.

The alarm interrupts Python code. Compiled code that does not return is ended, with its process, a little later by the
interpreter's watchdog thread (`faulthandler`), which writes down where it was.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import re
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

__all__ = ["NONE", "Limit", "TimedOut"]

_GRACE = 5.0  # seconds for the alarm to be noticed
_AGAIN = 1.0  # it rings again: the first may have fallen where exceptions are dropped, as in a callback


class TimedOut(BaseException):
    """A check took too long, and the frame that it was in. No `Exception`, so that no check catches it by mistake."""

    def __init__(self, said: str, stack: traceback.StackSummary) -> None:
        super().__init__(said)
        self.stack = stack


@dataclass(frozen=True)
class Limit:
    """Seconds for a check, None for no limit, and a folder where a process that is ended says where it was."""

    seconds: float | None = None
    folder: str | None = None

    def for_loading(self) -> Limit:
        """The limit for loading a file, which imports what checks need: a minute at least."""
        return self if self.seconds is None else replace(self, seconds=max(self.seconds, 60.0))

    @contextlib.contextmanager
    def soft(self) -> Iterator[None]:
        """Raise `TimedOut` in here when time is up; only the main thread, and no Windows, can be interrupted so."""
        main = threading.current_thread() is threading.main_thread()
        if self.seconds is None or not hasattr(signal, "setitimer") or not main:
            yield
            return

        def ring(number: int, frame: FrameType | None) -> None:
            raise TimedOut(f"not finished after {self.seconds:g} s", traceback.extract_stack(frame, limit=1))

        start, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
        left, again = signal.setitimer(signal.ITIMER_REAL, self.seconds, _AGAIN)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            if left:  # an alarm of somebody else's goes on
                signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-3), again)

    @contextlib.contextmanager
    def hard(self) -> Iterator[None]:
        """End this process when time is long up, if it is a worker of its own."""
        if self.seconds is None or self.folder is None or multiprocessing.parent_process() is None:
            yield
            return
        with open(Path(self.folder) / "last_frames", "w", encoding="utf-8") as file:
            faulthandler.dump_traceback_later(self.seconds + _GRACE, exit=True, file=file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()

    def last_frame(self) -> str:
        """Where the process was that `hard` ended last, in brackets; empty if it ended otherwise."""
        if self.folder is None:
            return ""
        with contextlib.suppress(OSError):
            text = (Path(self.folder) / "last_frames").read_text(encoding="utf-8", errors="replace")
            # the thread that ran the check is the last one, and its first line the innermost call
            found = re.search(r'File "([^"]*)", line (\d+) in (\S+)', text[max(text.rfind("hread 0x"), 0) :])
            if found:
                return f" ({Path(found[1]).name}:{found[2]} in {found[3]})"
        return ""


NONE = Limit()
