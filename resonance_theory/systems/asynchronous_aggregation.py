"""Weights of late and of doubtful updates in asynchronous federated learning, and the server's update by them.

A client's update computed from an old model counts for less (Xie et al. 2019, arXiv 1903.03934: (1+t)^-a after t
versions). One that points away from what a few trusted samples ask for is turned away (Cao et al. 2021, arXiv
2012.13995: the positive part of the cosine). arXiv 2310.06448 names staleness, quality and access control too; its own
weights are not available.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike

__all__ = ["admission_weight", "staleness_weight", "trust"]

Floats = NDArray[np.float64]


def staleness_weight(staleness: ArrayLike, power: ArrayLike = 0.5) -> Floats:
    """(1 + t)^-a for an update that t versions of the model have overtaken.

    Args:
        staleness: t, whole numbers of at least 0, any shape.
        power: a >= 0, broadcast with t; 0 ignores staleness.

    Returns:
        The broadcast shape, in (0, 1].

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> staleness_weight([0, 3, 8]).round(4).tolist()
        [1.0, 0.5, 0.3333]
    """
    t = arguments.integer("staleness", staleness, 0)
    return np.exp(-arguments.real("power", power, 0.0) * np.log1p(t))


def trust(update: ArrayLike, reference: ArrayLike) -> Floats:
    """Positive part of the cosine between an update and a reference; 0 where one of them is 0.

    Args:
        update: (..., parameters).
        reference: (parameters,), the server's own update on samples that it trusts.

    Returns:
        Shape (...), in [0, 1].

    Raises:
        ValueError: The numbers of parameters differ.

    Example:
        >>> trust([[1.0, 1.0], [-1.0, 0.0]], [1.0, 0.0]).round(4).tolist()
        [0.7071, 0.0]
    """
    u, r = arguments.real("update", update), arguments.real("reference", reference)
    if u.ndim == 0 or r.ndim != 1 or u.shape[-1] != r.shape[0]:
        raise ValueError(f"update has shape {u.shape} and reference {r.shape} but they must end in the same parameters")
    return np.clip(_unit(u) @ _unit(r), 0.0, 1.0)


def _unit(x: Floats) -> Floats:
    """Vectors of length 1 or 0, without overflow on the way."""
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0.0)
    scaled = x / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    unit: Floats = scaled / np.where(length > 0, length, 1.0)
    return unit


def admission_weight(
    staleness: ArrayLike, quality: ArrayLike, *, rate: float = 0.6, power: float = 0.5, least: float = 0.0
) -> Floats:
    """Weight of an update in x <- x + weight * update: rate * (1+t)^-a * quality, or 0 at a quality up to `least`.

    Args:
        staleness: t, whole numbers of at least 0.
        quality: In [0, 1], such as `trust`; broadcast with t.
        rate: Weight of a fresh update of quality 1, in (0, 1].
        power: a >= 0.
        least: In [0, 1]: updates up to this quality are turned away.

    Returns:
        The broadcast shape, in [0, rate].

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> admission_weight([0, 3], [1.0, 0.1], rate=0.5, least=0.2).tolist()
        [0.5, 0.0]
    """
    q = arguments.probability("quality", quality)
    top = arguments.number("rate", rate, 0.0, 1.0, open_low=True)
    floor = arguments.number("least", least, 0.0, 1.0)
    return np.where(q > floor, top * staleness_weight(staleness, power) * q, 0.0)
