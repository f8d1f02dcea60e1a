"""Samplers shared by the homogenization claims: bounded statistics of unit tokens, tossed into fair counts.

A statistic v in [-1, 1] becomes a coin that shows heads with probability (1+v)/2, so that its mean is tested with the
exact limits of a count, at the price of the coin's own noise.
"""

from __future__ import annotations

import numpy as np

CHUNK = 50_000
# which confront the closed forms of how far routing pulls the experts' tokens apart
STUDIES = (
    "homogenization",
    "homogenization_scale",
    "homogenization_training",
    "planted_homogenization",
    "language_homogenization",
)


def unit_tokens(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Isotropic tokens on the unit sphere, (count, dim); the gates are the first coordinate axes."""
    x = rng.standard_normal((count, dim))
    return x / np.sqrt((x * x).sum(axis=1, keepdims=True))


def chunks(trials: int) -> list[int]:
    return [min(CHUNK, trials - start) for start in range(0, trials, CHUNK)]


def coin(rng: np.random.Generator, value: np.ndarray) -> int:
    """Number of heads among coins of probability (1 + value)/2."""
    return int(np.count_nonzero(2 * rng.random(value.shape) - 1 < value))
