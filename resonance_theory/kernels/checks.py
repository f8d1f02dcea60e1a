"""Argument checks of the kernels; the errors name the argument, its value and what is allowed."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory import gates
from resonance_theory.kernels import arrays

__all__ = ["candidate_values", "candidates", "tokens", "whole"]

Array = Any  # any array that follows the array API standard

_LARGEST = 2**32 - 1  # pairs of one sample that the 32-bit indices of the kernels can name
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def tokens(x: Array, experts: Any, top: Any) -> tuple[Array, int, int]:
    """The checked arguments of `top_affinity`, the numbers as int."""
    x = _dense("x", x, arrays.FLOATS)
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)} but must be (tokens, dim) or (samples, tokens, dim), each at least 1"
        )
    if type(experts) is not int or experts < 1 or x.shape[-1] % experts:
        experts = gates._sizes(x.shape[-1], experts)[1]
    top = whole("top", top, experts, "experts")
    _small_enough("x", x.shape[-2], top)
    return x, experts, top


def candidates(weight: Array, expert: Array, experts: Any, capacity: Any) -> tuple[Array, Array, int, int]:
    """The checked arguments of `slots`: weight in float32 or float64, expert in int64, the numbers as int."""
    weight, expert = _dense("weight", weight, arrays.FLOATS), _dense("expert", expert, _INTEGERS)
    xp = array_api_compat.array_namespace(weight)
    if xp is not array_api_compat.array_namespace(expert):
        raise TypeError(f"expert is a {type(expert).__name__} but weight is a {type(weight).__name__}: use one library")
    if weight.ndim not in (2, 3) or 0 in weight.shape or weight.shape != expert.shape:
        raise ValueError(
            f"weight and expert have shapes {tuple(weight.shape)} and {tuple(expert.shape)} but must both be "
            "(tokens, top) or (samples, tokens, top), each at least 1"
        )
    devices = [array_api_compat.device(array) for array in (weight, expert)]
    if devices[0] != devices[1]:
        raise ValueError(f"weight is on device {devices[0]} and expert on {devices[1]}: move them to one device")
    experts = whole("experts", experts, _LARGEST, "the largest index")
    capacity = whole("capacity", capacity, weight.shape[-2], "tokens")
    _small_enough("weight", *weight.shape[-2:])
    weight, expert = arrays.native(weight), arrays.native(expert)
    if arrays.dtype_name(weight.dtype) not in ("float32", "float64"):
        weight = xp.astype(weight, xp.float32)
    if arrays.dtype_name(expert.dtype) != "int64":
        expert = xp.astype(expert, xp.int64)
    return weight, expert, experts, capacity


def candidate_values(weight: Array, expert: Array, experts: int) -> None:
    """Raise ValueError where an expert is out of range or a weight is not finite."""
    xp = array_api_compat.array_namespace(weight)
    outside = (expert < 0) | (expert >= experts)
    if not bool(xp.any(outside | ~xp.isfinite(weight))):
        return
    if bool(xp.any(outside)):
        raise ValueError(f"expert holds {int(expert[outside][0])} but must lie in 0 to {experts - 1}")
    raise ValueError("weight holds NaN or infinite values but must be finite")


def whole(name: str, value: Any, high: int, high_name: str) -> int:
    """One whole number between 1 and high; plain ones in range need no arrays, which take their time."""
    if type(value) is int and 1 <= value <= high:
        return value
    return arguments.whole(name, value, 1, high, high_name)


def _dense(name: str, x: Any, types: tuple[str, ...]) -> Array:
    if not (isinstance(x, np.ndarray) or array_api_compat.is_array_api_obj(x)):
        raise TypeError(f"{name} is a {type(x).__name__} but must be an array of one of {', '.join(types)}")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array but must be a plain one: fill it, or drop its masked entries")
    if arrays.dtype_name(x.dtype) not in types:
        raise TypeError(f"{name} has dtype {x.dtype} but must be one of {', '.join(types)}")
    if "strided" not in (layout := str(getattr(x, "layout", "strided"))):
        raise TypeError(f"{name} has layout {layout} but must be dense")
    return x.view(np.ndarray) if isinstance(x, np.ndarray) and type(x) is not np.ndarray else x


def _small_enough(name: str, tokens: int, top: int) -> None:
    if tokens * top > _LARGEST:
        raise ValueError(
            f"{name} has tokens * top = {tokens} * {top} pairs in a sample but must have at most {_LARGEST}"
        )
