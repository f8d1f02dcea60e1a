"""Progress of a running study: the estimates themselves, with their intervals as they tighten."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO

from resonance_theory.evidence.sampling.task import Tally, Task

__all__ = ["Progress"]


class Progress:
    """Redraws a few lines on a terminal; elsewhere prints a line every `every` seconds. Silent with `stream=None`.

    label(task, tally) -> one line on the task's state, such as an estimate with its interval.
    """

    def __init__(
        self,
        label: Callable[[Task, Tally], str],
        trials: Mapping[str, int],
        *,
        stream: IO[str] | None = sys.stderr,
        every: float = 10.0,
    ) -> None:
        self.label, self.trials, self.stream = label, trials, stream
        self.terminal = stream is not None and stream.isatty()
        self.every = 0.2 if self.terminal else every
        self.latest: dict[str, tuple[Task, Tally]] = {}
        self.done: dict[str, int] = {}
        self.start = self.last = time.monotonic()
        self.stored = 0  # trials that a store held already: they took no time now
        self.drawn = 0

    def __call__(self, task: Task, tally: Tally) -> None:
        if task.id not in self.done and tally.trials > task.block_size:
            self.stored += tally.trials
        self.done[task.id] = tally.trials
        self.latest[task.id] = task, tally
        now = time.monotonic()
        if self.stream is not None and now - self.last >= self.every:
            self.last = now
            self._draw(task)

    def _summary(self) -> str:
        done, total = sum(self.done.values()), sum(self.trials.values())
        elapsed = time.monotonic() - self.start
        fresh = done - self.stored
        left = f", {elapsed * (total - done) / fresh:.0f} s left" if fresh > 0 else ""
        return f"{done:,} of {total:,} trials ({100 * done / max(total, 1):.0f} %), {elapsed:.0f} s{left}"

    def _draw(self, task: Task) -> None:
        assert self.stream is not None
        if not self.terminal:
            print(f"{self._summary()}; {self.label(*self.latest[task.id])}", file=self.stream, flush=True)
            return
        size = shutil.get_terminal_size()
        # The tasks most lately begun are at the bottom; where they do not all fit, the top scrolls out.
        lines = [self.label(*state) for state in self.latest.values()][-max(1, size.lines - 3) :]
        shown = [*lines, self._summary()]
        up = f"\033[{self.drawn}A" if self.drawn else ""
        text = "".join(f"\033[2K{line[: size.columns - 1]}\n" for line in shown)
        self.stream.write(up + text)
        self.stream.flush()
        self.drawn = len(shown)

    def close(self) -> None:
        """Clear what was drawn; the table of results follows on standard output."""
        if self.terminal and self.drawn and self.stream is not None:
            self.stream.write(f"\033[{self.drawn}A\033[J")
            self.stream.flush()
