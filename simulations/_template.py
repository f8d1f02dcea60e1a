"""Start of a new study: copy to `simulations/<name>.py`, with a `<name>.toml` that holds [quick] and [full] tables:

    [quick]
    blocks = 4
    block_size = 10000
    sides = [6]

Then `resonance simulate <name>` finds it. One sentence here says what is measured and against which law.

A study that trains networks defines `arms` in place of `cases`: `planted_training` is a short one, `_training` has what they
share. A study imports nothing from another: what two of them need stands in a file with a leading underscore.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.evidence.studies.study import Case


def sample(rng: np.random.Generator, trials: int, *, sides: int) -> dict[str, int]:
    return {"six": int(np.count_nonzero(rng.integers(1, sides + 1, trials) == 6))}


def cases(settings: dict[str, Any]) -> list[Case]:
    return [
        Case(f"die of {n}", sample, {"sides": n}, {"six": 1 / n}, {"one side fewer": {"six": 1 / (n - 1)}})
        for n in settings["sides"]
    ]
