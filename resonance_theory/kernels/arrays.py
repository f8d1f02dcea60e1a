"""Arrays of several libraries, layouts and types as the NumPy arrays that the CPU kernels read, and back."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import array_api_compat
import numpy as np

__all__ = [
    "FLOATS",
    "by_torch",
    "dtype_name",
    "host",
    "installed",
    "is_torch",
    "lent",
    "like",
    "native",
    "pieces",
    "readable",
    "transformed",
]

Array = Any  # any array that follows the array API standard
F = TypeVar("F", bound=Callable[..., Any])

FLOATS = ("float16", "bfloat16", "float32", "float64")  # by their names, which all libraries share
_PIECE = 2**21  # entries of x that are converted at a time where its layout or type needs a copy: 8 MB of float32


@functools.cache
def installed(name: str) -> bool:
    """Whether a module of that name can be found; it is not imported."""
    return importlib.util.find_spec(name) is not None


def is_torch(x: Any) -> bool:
    """Whether x is a torch tensor; torch is not imported."""
    return type(x).__module__.partition(".")[0] == "torch" and hasattr(x, "requires_grad")


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, whose tensors look like any other."""
    import torch

    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def dtype_name(dtype: Any) -> str:
    """The name that all libraries share: float32 for torch.float32 as for big-endian float32."""
    return getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]


def lent(x: Any) -> bool:
    """Whether x is a CuPy array that torch and Triton can serve."""
    return type(x).__module__.partition(".")[0] == "cupy" and installed("torch") and installed("triton")


def by_torch(function: F) -> F:
    """CuPy arrays as torch tensors of the same memory, and the result back in the same way."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        # A compiler that traces this knows no module of a plain number.
        given = [value for value in (*arguments, *options.values()) if not isinstance(value, int)]
        first = next((value for value in given if lent(value)), None)
        if first is None:
            return function(*arguments, **options)
        import torch

        def take(value: Any) -> Any:
            return torch.utils.dlpack.from_dlpack(value) if lent(value) else value

        library = array_api_compat.array_namespace(first)
        result = function(*map(take, arguments), **{name: take(value) for name, value in options.items()})
        if isinstance(result, tuple):
            return tuple(library.from_dlpack(part) for part in result)
        back = {name: library.from_dlpack(part) for name, part in vars(result).items() if is_torch(part)}
        return dataclasses.replace(result, **back)

    return cast(F, call)


def native(x: Array) -> Array:
    """x itself, but NumPy arrays of this machine's own numbers: float32 for half precision, int64 for whole numbers."""
    if not isinstance(x, np.ndarray):
        return x
    name = dtype_name(x.dtype)
    kind = np.float64 if name == "float64" else np.float32 if name in FLOATS else np.int64
    return np.asarray(x).astype(kind, copy=False)


def readable(x: Array) -> bool:
    """Whether the kernels can read x where it lies: contiguous rows of native floats."""
    if isinstance(x, np.ndarray):
        return x.dtype in (np.float32, np.float64) and x.dtype.isnative and x.flags.aligned and x.flags.c_contiguous
    return dtype_name(x.dtype) in ("float32", "float64") and x.is_contiguous() and not x.is_neg()


def pieces(x: Array) -> Iterator[np.ndarray]:
    """x as contiguous rows of native floats: x itself where possible, otherwise copies of bounded size.

    Args:
        x: (tokens, dim) or (samples, tokens, dim), a NumPy array or a torch tensor on the CPU.

    Yields:
        (rows, dim), all rows of x in their order, float32 or float64.
    """
    dim = x.shape[-1]
    if not isinstance(x, np.ndarray):
        x = x.detach().resolve_neg()
    if readable(x):
        yield host(x).reshape(-1, dim)
        return
    x = x if x.ndim == 3 else x[None]  # (samples, tokens, dim)
    samples, tokens, _ = x.shape
    rows = max(1, _PIECE // dim)
    group = max(1, rows // tokens)
    for sample in range(0, samples, group):
        for token in range(0, tokens, rows):
            yield host(x[sample : sample + group, token : token + rows]).reshape(-1, dim)


def host(x: Array) -> np.ndarray:
    """x as a contiguous NumPy array of native numbers (see `native`), without a copy where x is one."""
    if not isinstance(x, np.ndarray):
        x = x.detach()
        x = (x.float() if x.dtype.is_floating_point and x.dtype.itemsize < 4 else x).contiguous().numpy()
    x = np.require(native(x), requirements=["C", "A"])
    if x.flags.writeable:
        return x
    # numba would compile every kernel once more for arrays that it may not write, which it does not write anyhow.
    interface = x.__array_interface__ | {"data": (x.ctypes.data, False)}
    return np.asarray(SimpleNamespace(__array_interface__=interface, owner=x))


def like(x: Array, array: np.ndarray) -> Array:
    """A NumPy array as one of the library of x, of the same memory."""
    if isinstance(x, np.ndarray):
        return array
    import torch

    return torch.from_numpy(array)
