"""Argument checks. Every error is one sentence: the argument, its value, what is allowed.

Values of the wrong kind (text, booleans, objects, fractions where whole numbers are needed) raise `TypeError`;
values of the right kind outside their range raise `ValueError`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "broadcasting",
    "choice",
    "distribution",
    "generator",
    "integer",
    "keep_whole",
    "number",
    "probability",
    "real",
    "same_shapes",
    "whole",
]


P = ParamSpec("P")
T = TypeVar("T")


def broadcasting(function: Callable[P, T]) -> Callable[P, T]:
    """Say which arguments do not broadcast together, and their shapes, where NumPy would only count them."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except ValueError as problem:
            if not str(problem).startswith(("shape mismatch", "operands could not be broadcast")):
                raise
            bound = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
            if "self" in bound:  # a method's arguments meet its object's own
                bound |= vars(bound.pop("self"))
            shapes = {name: np.shape(value) for name, value in bound.items() if np.ndim(value)}
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"the shapes of {listed} must broadcast together") from None

    return call


def same_shapes(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which all arguments broadcast; one sentence with names and shapes where they do not."""
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape not in ((), (1,)))
        raise ValueError(f"the shapes of {listed} must broadcast together") from None


def _show(value: Any) -> str:
    scalar = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    try:
        text = " ".join(repr(value.item() if scalar else value).split())
    except Exception:  # objects that cannot be shown, whole numbers of too many digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else text[:57] + "..."


def _array(name: str, value: ArrayLike, kinds: str, wanted: str) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):  # NumPy would drop the mask
        raise TypeError(f"{name} is a masked array but must be {wanted} without a mask")
    try:
        array = np.asarray(value)
    except Exception:  # ragged lists, foreign objects whose conversion fails
        raise TypeError(f"{name} = {_show(value)} must be {wanted}") from None
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} = {_show(value)} must be {wanted}")
    return array


def _first_bad(name: str, array: NDArray[Any], bad: NDArray[np.bool_], wanted: str) -> None:
    if not bad.any():
        return
    if array.ndim == 0:
        raise ValueError(f"{name} = {_show(array[()])} must be {wanted}")
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    where = ", ".join(map(str, index))
    raise ValueError(f"{name}[{where}] = {_show(array[index])} must be {wanted}")


def integer(
    name: str, value: ArrayLike, low: int, high: ArrayLike | None = None, high_name: str = ""
) -> NDArray[np.int64]:
    """Whole numbers in [low, high] as int64; `high` may be an array that broadcasts, named by `high_name`."""
    limit = "" if high is None else (f"{high_name} = {_show(high)}" if high_name else _show(high))
    wanted = f"a whole number of at least {low}" if high is None else f"a whole number between {low} and {limit}"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # NumPy would make an object of it
        raise ValueError(f"{name} = {_show(value)} must be {wanted}{' (and below 2^63)' if high is None else ''}")
    array = _array(name, value, "iu", wanted)
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} = {_show(int(array.max()))} must be {wanted} (and below 2^63)")
    array = array.astype(np.int64)
    _first_bad(name, array, array < low, wanted)
    if high is not None:
        whole, top = np.broadcast_arrays(array, high)
        _first_bad(name, whole, whole > top, wanted)
    return array


def whole(name: str, value: Any, low: int, high: int | None = None, high_name: str = "") -> int:
    """One whole number in [low, high], as for `integer`."""
    array = integer(name, value, low, high, high_name)
    if array.ndim:
        raise ValueError(f"{name} = {_show(value)} must be one whole number")
    return int(array)


def real(
    name: str,
    value: ArrayLike,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> NDArray[np.float64]:
    """Finite real numbers in [low, high] (an end is excluded with `open_low` or `open_high`) as float64."""
    left = "(" if open_low or low == -np.inf else "["
    right = ")" if open_high or high == np.inf else "]"
    ends = [("-inf" if low == -np.inf else f"{low:g}"), ("inf" if high == np.inf else f"{high:g}")]
    wanted = f"a finite number in {left}{ends[0]}, {ends[1]}{right}"
    with np.errstate(over="ignore", under="ignore"):  # a longer float than ours becomes infinite, or 0
        array = _array(name, value, "iuf", wanted).astype(np.float64)
    bad = ~np.isfinite(array) | (array < low) | (array > high)
    if open_low:
        bad |= array == low
    if open_high:
        bad |= array == high
    _first_bad(name, array, bad, wanted)
    return array


def number(
    name: str,
    value: Any,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """One finite real number, as for `real`."""
    array = real(name, value, low, high, open_low=open_low, open_high=open_high)
    if array.ndim:
        raise ValueError(f"{name} = {_show(value)} must be one number")
    return float(array)


def keep_whole(record: Any, low: int, *names: str) -> None:
    """Check fields of a frozen dataclass as `whole` does, and keep them as Python integers, which do not overflow."""
    for name in names:
        object.__setattr__(record, name, whole(name, getattr(record, name), low))


def generator(name: str, value: Any) -> np.random.Generator:
    """A source of randomness."""
    if not isinstance(value, np.random.Generator):
        raise TypeError(f"{name} is a {type(value).__name__} but must be a numpy.random.Generator")
    return value


def probability(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Probabilities in [0, 1] as float64."""
    return real(name, value, 0.0, 1.0)


def distribution(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Weights that are non-negative and sum to 1 over the last axis (to 1e-9), as float64."""
    array = real(name, value, 0.0)
    if array.ndim == 0:
        raise ValueError(f"{name} = {_show(value)} must have at least one axis, over which it sums to 1")
    total = array.sum(axis=-1)
    if array.shape[-1] == 0 or np.any(np.abs(total - 1.0) > 1e-9):
        worst = 0.0 if array.shape[-1] == 0 else float(total.flat[int(np.abs(total - 1.0).argmax())])
        raise ValueError(f"{name} sums to {worst:.12g} over its last axis but must sum to 1")
    return array


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """One of the allowed words."""
    if not isinstance(value, str):
        raise TypeError(f"{name} = {_show(value)} must be one of {', '.join(allowed)}")
    if value not in allowed:
        raise ValueError(f"{name} = {_show(value)} must be one of {', '.join(allowed)}")
    return value
