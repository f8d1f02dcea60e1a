"""How a study is run, of rates or of trainings: store, progress and provenance, the same for both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from resonance_theory.evidence.sampling.engine import run
from resonance_theory.evidence.sampling.progress import Progress
from resonance_theory.evidence.sampling.store import Store
from resonance_theory.evidence.sampling.task import Tally, Task, versions
from resonance_theory.provenance import provenance

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """How to run a study, whatever it studies.

    Attributes:
        command: What repeats it, for the record.
        seed: Whole number of at least 0.
        workers: Processes, at least 1.
        store: File of finished blocks, continued if `resume`; None for none.
        progress: Where to show estimates and notices; None for nowhere.
        executor: Any executor of the interface of `concurrent.futures`; None for processes.
        shard: (i, n) for the i-th of n shares of the blocks alone.
    """

    command: str
    seed: int = 0
    workers: int = 1
    store: str | Path | None = None
    resume: bool = False
    progress: IO[str] | None = None
    executor: Executor | None = None
    shard: tuple[int, int] = (1, 1)

    def totals(
        self, tasks: Sequence[Task], blocks: int, label: Callable[[Task, Tally], str]
    ) -> tuple[dict[str, Tally], dict[str, Any]]:
        """Totals of the tasks by id over so many blocks of each, and their provenance; raises as `engine.run` does.

        label(task, tally) is a line of progress.
        """
        start = time.perf_counter()
        made = {"command": self.command, **provenance(), "seed": self.seed}
        trials = {task.id: blocks * task.block_size for task in tasks}
        display = Progress(label, trials, stream=self.progress)
        with contextlib.ExitStack() as stack:
            stack.callback(display.close)
            store = None
            if self.store is not None:
                store = stack.enter_context(Store(self.store, resume=self.resume))
                if others := store.other_versions(trials):
                    made["stored blocks drawn under"] = others
                if self.progress is not None:
                    _tell(store, trials, self.progress)
            totals = run(
                tasks,
                blocks,
                workers=self.workers,
                store=store,
                executor=self.executor,
                shard=self.shard,
                on_block=display,
            )
        return totals, {**made, "seconds": round(time.perf_counter() - start, 1)}


def _tell(store: Store, ids: Mapping[str, object], stream: IO[str]) -> None:
    """What of an opened store is used, and what is not."""
    if store.cut:
        print(f"{store.path}: {store.cut} bytes of an interrupted line were cut off", file=stream)
    known = sum(len(blocks) for id, blocks in store.blocks.items() if id in ids)
    other = sum(len(blocks) for id, blocks in store.blocks.items() if id not in ids)
    if known or other:
        text = f", {other} of other settings, seeds or code are left alone" if other else ""
        print(f"{store.path}: {known} finished blocks are used{text}", file=stream)
    for made in store.other_versions(ids):
        present = versions()
        changed = sorted(name for name in {*made, *present} if made.get(name) != present.get(name))
        said = ", ".join(f"{name} {made.get(name, 'unknown')} (now {present.get(name, 'unknown')})" for name in changed)
        print(f"{store.path}: some of them were drawn under {said}", file=stream)
