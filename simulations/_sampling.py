"""What studies that sample share: chunks that fit in memory, array libraries, and coins that stand for bounded numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.optimize import brentq

from resonance_theory.tokens import candidates

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


def scale(dim: int, deviations: float) -> float:
    """Factor that spreads cosines with so many standard deviations over [-1, 1]."""
    return min(1.0, deviations / math.sqrt(dim))


def heads(cosine: float, scale: float) -> float:
    """Probability of the coin that stands for a cosine of this mean."""
    return (1 + cosine / scale) / 2


def threshold(fraction: float, dim: int, experts: int) -> float:
    """The affinity that the fraction of an expert's isotropic candidates reaches: h(a) = fraction/n."""
    if fraction == 1:
        return -1.0  # which no affinity is below
    return float(
        brentq(lambda a: float(candidates.candidate_tail(a, dim, experts)) * experts - fraction, -0.99, 0.9999)
    )
