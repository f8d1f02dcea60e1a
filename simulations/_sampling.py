"""What studies that sample share: chunks that fit in memory, and array libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

BACKENDS = ("numpy", "torch", "cupy")


def chunks(trials: int, numbers: int, most: int) -> Iterator[int]:
    """Sizes that add up to `trials`, each as large as fits when a trial draws so many numbers, `most` at a time."""
    step = max(1, most // numbers)
    for start in range(0, trials, step):
        yield min(step, trials - start)


def draw(backend: str, device: str, seed: int) -> tuple[Any, Any, Any]:
    """normal(shape) and integers(high, count) of a library's own generator on the device, and its library."""
    if backend == "torch":
        import torch

        source = torch.Generator(device).manual_seed(seed)
        return (
            lambda shape: torch.randn(shape, generator=source, device=device),
            lambda high, count: torch.randint(high, (count,), generator=source, device=device),
            torch,
        )
    if backend == "cupy":
        import cupy as library
    else:
        library = np
    generator = library.random.default_rng(seed)
    return (
        lambda shape: generator.standard_normal(shape, dtype=np.float32),
        lambda high, count: generator.integers(0, high, size=count),
        library,
    )
