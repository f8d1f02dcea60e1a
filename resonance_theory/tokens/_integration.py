"""Arguments of the geometry, and integration of unimodal analytic functions over the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from resonance_theory import _arguments as arguments

Floats = NDArray[np.float64]

CHUNK = 1 << 18  # integrand values held at once


def dimension(dim: ArrayLike) -> NDArray[np.int64]:
    return arguments.integer("dim", dim, 2)


def affinity_value(affinity: ArrayLike) -> Floats:
    return arguments.real("affinity", affinity, -1.0, 1.0)


def signal_value(signal: ArrayLike) -> Floats:
    # Squares of the signal must not overflow.
    return arguments.real("signal", signal, 0.0, 1e150)


def groups(*keys: NDArray[np.int64]) -> Iterator[tuple[tuple[int, ...], NDArray[np.intp]]]:
    """The distinct tuples of whole-number parameters (flat arrays of equal length) and where each occurs."""
    if keys[0].size == 0:
        return
    values, inverse = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    order = np.argsort(inverse, kind="stable")
    for row, where in zip(values, np.split(order, np.cumsum(np.bincount(inverse))[:-1])):
        yield tuple(int(v) for v in row), where


_DROP = 42.0  # nats below the peak at which an integrand is cut: e^-42 = 6e-19
_ZOOM = np.linspace(0.0, 1.0, 33)


def support(log_f: Callable[[Floats], Floats], low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """Where a unimodal log_f, on columns (elements, points), is within _DROP of its maximum: (low, high, maximum)."""
    left, right = low, high
    for _ in range(7):
        points = left + (right - left) * _ZOOM
        best = np.argmax(log_f(points), axis=1)[:, None]
        left = np.take_along_axis(points, np.maximum(best - 1, 0), 1)
        right = np.take_along_axis(points, np.minimum(best + 1, _ZOOM.size - 1), 1)
    mode = 0.5 * (left + right)
    peak = log_f(mode)
    inside_left, inside_right = mode, mode
    for _ in range(40):
        middle = np.concatenate([0.5 * (low + inside_left), 0.5 * (high + inside_right)], axis=1)  # one call for both
        inside = log_f(middle) > peak - _DROP
        (in_left, in_right), (left, right) = np.split(inside, 2, axis=1), np.split(middle, 2, axis=1)
        low, inside_left = np.where(in_left, low, left), np.where(in_left, left, inside_left)
        high, inside_right = np.where(in_right, high, right), np.where(in_right, right, inside_right)
    return low, high, peak


def log_integral(log_f: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """log of the integral of exp(log_f) over the line; [low, high] (columns) contains all but e^-42 of the mass.

    The trapezoid rule converges geometrically for an analytic integrand that vanishes at both ends, and each doubling
    of its nodes about squares the error: it stops when a doubling changes nothing beyond 1e-9.
    """
    low, high, peak = support(log_f, low, high)
    nodes = 64
    total = np.exp(log_f(low + (high - low) * (np.arange(nodes + 1) / nodes)) - peak).sum(axis=1)
    while nodes < 1 << 15:
        more = np.exp(log_f(low + (high - low) * ((np.arange(nodes) + 0.5) / nodes)) - peak).sum(axis=1)
        change = np.abs(more - total)
        total = total + more
        nodes *= 2
        if np.all(change <= 1e-9 * total):
            break
    return peak[:, 0] + np.log(total * (high - low)[:, 0] / nodes)


def in_chunks(log_f: Callable[..., Floats], low: Floats, high: Floats, *parameters: Floats, per: int = 1024) -> Floats:
    """log_integral over flat arrays, a bounded number of elements at a time; log_f(y, *parameter columns)."""
    result = np.empty(low.shape)
    step = max(1, CHUNK // per)
    for start in range(0, low.size, step):
        part = slice(start, start + step)
        columns = [p[part, None] for p in parameters]

        def f(y: Floats, columns: list[Floats] = columns) -> Floats:
            return log_f(y, *columns)

        result[part] = log_integral(f, low[part, None], high[part, None])
    return result


def log_cosh(y: Floats) -> Floats:
    """log cosh y with small relative error."""
    size = np.minimum(np.abs(y), 1.0)
    return np.where(np.abs(y) < 1, np.log1p(2 * np.sinh(0.5 * size) ** 2), np.logaddexp(y, -y) - np.log(2.0))


def stirling(k: ArrayLike) -> Floats:
    """log Gamma(k) - (k - 1/2) log k + k - log(2 pi) / 2, without cancellation."""
    k = np.asarray(k, dtype=np.float64)
    x = 1.0 / np.maximum(k, 12.0)
    y = x * x
    terms = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
    series = np.zeros_like(x)
    for coefficient in reversed(terms):
        series = series * y + coefficient
    direct = special.gammaln(k) - (k - 0.5) * np.log(k) + k - 0.5 * np.log(2 * np.pi)
    return np.where(k < 12.0, direct, series * x)
