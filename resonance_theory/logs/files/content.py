"""What a file holds before anybody says what it means: named arrays, columns of a table, or nested values."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coded", "Content", "as_array", "decode", "natural", "of_value"]

_E4M3, _E5M2 = "float8_e4m3fn", "float8_e5m2"


@dataclass(frozen=True)
class Content:
    """One file, folder or mapping.

    where: what messages call it; name: its short name; arrays: by name, mapped from the file where that is possible;
    columns: those of a table, equally long; value: nested lists and dictionaries; texts: (name, lines to come) of
    text files; metadata: text by name.
    """

    where: str
    name: str
    arrays: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] | None = None
    value: Any = None
    texts: tuple[Any, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Coded:
    """Floating-point numbers that NumPy has no type for, still as their bits: bfloat16 or 8 bits."""

    data: NDArray[Any]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: Any) -> Coded:
        return Coded(self.data[part], self.dtype)


def decode(array: Any) -> NDArray[Any]:
    """A copy in memory of an array, or of the numbers that coded ones stand for."""
    if not isinstance(array, Coded):
        return np.asarray(array)
    if array.dtype == "bfloat16":  # the upper half of a float32
        return (array.data.astype(np.uint32) << 16).view(np.float32)
    if array.dtype == _E5M2:  # the upper half of a float16
        return (array.data.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    return _table()[array.data]


def _table() -> NDArray[np.float32]:
    """The 256 numbers of float8 e4m3fn: exponent bias 7, no infinities, all ones is not a number."""
    code = np.arange(256)
    exponent, fraction = code >> 3 & 15, code & 7
    size = np.where(exponent > 0, (8 + fraction) * 2.0 ** (exponent - 10.0), fraction * 2.0**-9)
    size[code & 127 == 127] = np.nan
    return np.where(code & 128, -size, size).astype(np.float32)


def as_array(where: str, name: str, value: Any, limit: int) -> Any:
    """A tensor of any library, or a rectangular list of numbers, as an array or Coded.

    limit: bytes beyond what it occupies that the array may stand for, as an expanded view does.
    """
    if isinstance(value, Coded):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where}: {name!r} is a masked array but must be one without a mask")
    try:
        if str(getattr(value, "dtype", "")).startswith("torch."):
            return _from_torch(value, limit)
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except Exception as problem:  # ragged lists, tensors that do not convert
        reason = " ".join(str(problem).split())[:120]
        raise TypeError(f"{where}: {name!r} does not convert to an array ({reason})") from None
    if array.dtype.name == "bfloat16":  # that of ml_dtypes, which JAX uses
        return Coded(array.view(np.uint16), "bfloat16")
    if array.dtype.name in (_E4M3, _E5M2):
        return Coded(array.view(np.uint8), array.dtype.name)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{where}: {name!r} has dtype {array.dtype} but must hold numbers")
    return array


def _from_torch(value: Any, limit: int) -> Any:
    torch = sys.modules["torch"]
    value = value.detach().cpu()
    if value.is_quantized or value.layout != torch.strided:
        raise ValueError(f"a tensor of layout {value.layout}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes() + limit:
        raise ValueError(f"a view of shape {tuple(value.shape)} that repeats a few numbers")
    kind = str(value.dtype).removeprefix("torch.")
    if kind == "bfloat16":
        return Coded(value.contiguous().view(torch.int16).numpy().view(np.uint16), kind)
    if kind in (_E4M3, _E5M2):
        return Coded(value.contiguous().view(torch.uint8).numpy(), kind)
    return value.numpy()


def of_value(where: str, name: str, value: Any) -> Content:
    """Content of nested values: a dictionary of flat lists is a table as well, and so is a list of flat dictionaries."""
    columns: dict[str, Any] | None = None
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        flat = not any(isinstance(v[0], (list, dict)) for v in value.values() if v)
        if flat and len({len(v) for v in value.values()}) == 1:
            columns = {str(k): v for k, v in value.items()}
    elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        keys = list(value[0])
        if all(row.keys() == value[0].keys() for row in value):
            columns = {str(key): [row[key] for row in value] for key in keys}
    return Content(where, name, columns=columns, value=value)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key of sorting that puts layer.2 before layer.10."""
    parts = re.split(r"([0-9]+)", name)
    parts[1::2] = (digits.lstrip("0") for digits in parts[1::2])
    return [(True, 0, part) if k % 2 == 0 else (False, len(part), part) for k, part in enumerate(parts)]
