"""Hidden states from files or arrays: which tensors are layers, without reading more than is asked for.

`.safetensors` and `.npy` files are mapped into memory, never unpickled; blocks are converted to float64 on demand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Hidden", "Layer", "read", "read_gates"]

_SAFETENSORS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
ENDINGS = (".safetensors", ".npy")
WANTED = "(sequences, positions, features) or (tokens, features) with at least 2 positions and 2 features"


@dataclass(frozen=True)
class Layer:
    """One tensor of hidden states, still where it was found.

    name; shape: as stored; dtype: its name; data: (sequences, positions, features), the bits of a bfloat16 as uint16.
    """

    name: str
    where: str
    shape: tuple[int, ...]
    dtype: str
    data: NDArray[Any]

    def block(self, sequences: slice, positions: slice) -> NDArray[np.float64]:
        """A copy of these sequences and positions as float64."""
        part = self.data[sequences, positions]
        if self.dtype == "bfloat16":
            part = (part.astype(np.uint32) << 16).view(np.float32)  # the upper half of a float32
        return part.astype(np.float64, order="C")  # one order of summation for every layout


@dataclass(frozen=True)
class Hidden:
    """The layers of a source, the tensors it holds besides (name and why they are left out), and its metadata."""

    source: str
    layers: tuple[Layer, ...]
    ignored: tuple[tuple[str, str], ...]
    metadata: Mapping[str, str]


def read(source: Any) -> Hidden:
    """Hidden states of a .safetensors or .npy file, an array, or a mapping of names to arrays.

    Floating tensors with 2 axes (one sequence) or 3 axes are layers; others are listed as ignored. Raises
    FileNotFoundError, ValueError or TypeError, one sentence each, for whatever holds no layer or cannot be read.
    """
    if isinstance(source, (str, Path)):
        path = _file(source)
        where = f"{str(source)!r}"
        tensors, metadata = _tensors(path)
    else:
        where, metadata = "the given arrays", {}
        items = source.items() if isinstance(source, Mapping) else _listed(source)
        tensors = {str(name): _array(str(name), value) for name, value in items}
    layers, ignored = [], []
    lone = len(tensors) == 1 and isinstance(source, (str, Path))
    for name, (dtype, data) in tensors.items():
        problem = _unfit(dtype, data)
        if problem is None:
            called = where if lone else f"{name!r} of {where}"
            layers.append(Layer(name, called, data.shape, dtype, data if data.ndim == 3 else data[None]))
        else:
            ignored.append((name, problem))
    if not layers:
        found = "; ".join(f"{name!r} {why}" for name, why in ignored[:4]) or "no tensor at all"
        kind = TypeError if ignored and all("dtype" in why for _, why in ignored) else ValueError
        raise kind(f"{where} holds no hidden states, floating-point tensors {WANTED}: {found}")
    name = Path(source).name if isinstance(source, (str, Path)) else "arrays"
    return Hidden(name, tuple(layers), tuple(ignored), metadata)


def read_gates(source: Any) -> NDArray[np.float64]:
    """Gates (experts, features) as float64 from a file with exactly one such tensor, or from an array."""
    if isinstance(source, (str, Path)):
        tensors, _ = _tensors(_file(source))
        where = f"gates file {str(source)!r}"
    else:
        tensors, where = {"gates": _array("gates", source)}, "gates"
    fit = [item for item in tensors.values() if item[1].ndim == 2 and _unfit(*item) is None]
    if len(fit) != 1:
        shapes = ", ".join(f"{dtype} {data.shape}" for dtype, data in tensors.values()) or "nothing"
        raise ValueError(
            f"{where} holds {shapes} but must hold exactly one floating-point tensor (experts, features), "
            "each at least 2"
        )
    dtype, data = fit[0]
    gates = Layer("gates", where, data.shape, dtype, data[None]).block(slice(None), slice(None))[0]
    bad = ~np.isfinite(gates)
    if bad.any():
        raise ValueError(f"{where} holds {int(bad.sum())} non-finite entries but every one must be finite")
    zero = np.flatnonzero(~gates.any(axis=1))
    if zero.size:
        raise ValueError(f"{where}: gate {int(zero[0])} is zero but every gate must have a direction")
    return gates


def _unfit(dtype: str, data: NDArray[Any]) -> str | None:
    """Why a tensor is not hidden states, or None."""
    if dtype != "bfloat16" and data.dtype.kind != "f":
        return f"has dtype {dtype}"
    if data.ndim not in (2, 3):
        return f"has shape {data.shape}"
    if data.shape[-1] < 2 or data.shape[-2] < 2 or data.shape[0] < 1:
        return f"has shape {data.shape}"
    return None


def _listed(source: Any) -> Iterable[tuple[str, Any]]:
    """A list of (sequences, positions, features) arrays holds layers; one of matrices may hold layers or sequences."""
    if not isinstance(source, (list, tuple)) or not source or not all(hasattr(part, "shape") for part in source):
        return [("hidden states", source)]
    if all(len(part.shape) == 3 for part in source):
        return [(f"layer.{k}", part) for k, part in enumerate(source)]
    raise ValueError(
        f"a list of {len(source)} arrays may hold layers or sequences: give layers as a dictionary of names to arrays, "
        "sequences as one array (sequences, positions, features)"
    )


def _array(name: str, value: Any) -> tuple[str, NDArray[Any]]:
    try:
        if str(getattr(value, "dtype", "")).startswith("torch."):
            value = value.detach().cpu()
            if str(value.dtype) == "torch.bfloat16":  # NumPy has no such type: its bits
                return "bfloat16", value.contiguous().view(sys.modules["torch"].int16).numpy().view(np.uint16)
        array = np.asarray(value)
    except Exception as problem:  # ragged lists, tensors of another library that do not convert
        reason = " ".join(str(problem).split())
        raise TypeError(
            f"{name} is a {type(value).__name__} that does not convert to a NumPy array: {reason}"
        ) from None
    if array.dtype.name == "bfloat16":  # that of ml_dtypes, which JAX uses
        return "bfloat16", array.view(np.uint16)
    if array.dtype == object or array.dtype.kind in "USV":
        raise TypeError(f"{name} has dtype {array.dtype} but must hold floating-point numbers {WANTED}")
    return str(array.dtype), array


def _file(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{str(source)!r} must be a file ending in {' or '.join(ENDINGS)}")
    if path.is_dir():
        raise ValueError(f"{str(source)!r} is a folder but must be a file ending in {' or '.join(ENDINGS)}")
    if not path.exists():
        raise FileNotFoundError(f"{str(source)!r} does not exist: give a {' or '.join(ENDINGS)} file")
    if path.stat().st_size == 0:
        raise ValueError(f"{str(source)!r} is empty but must hold hidden states {WANTED}")
    return path


def _tensors(path: Path) -> tuple[dict[str, tuple[str, NDArray[Any]]], dict[str, str]]:
    """Every tensor of a file as (dtype name, mapped array), in the file's order, and its metadata."""
    return _safetensors(path) if path.suffix.lower() == ".safetensors" else (_npy(path), {})


def _npy(path: Path) -> dict[str, tuple[str, NDArray[Any]]]:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except PermissionError:
        raise
    except Exception as problem:  # the header is a Python literal: whatever its parser may raise
        if "Python objects" in str(problem):
            raise TypeError(
                f"{str(path)!r} holds Python objects (pickled), which are never loaded: save floating-point numbers"
            ) from None
        reason = " ".join(str(problem).split())[:120]
        raise ValueError(f"{str(path)!r} is not a complete .npy file ({reason})") from None
    return {path.stem: (str(array.dtype), array)}


def _safetensors(path: Path) -> tuple[dict[str, tuple[str, NDArray[Any]]], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # checks that header, shapes, offsets and length fit together
            pass
    except SafetensorError as problem:
        reason = " ".join(str(problem).split())[:120]
        raise ValueError(f"{str(path)!r} is not a complete .safetensors file ({reason})") from None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    tensors: dict[str, tuple[str, NDArray[Any]]] = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        kind = _SAFETENSORS.get(dtype)
        if kind is None or 0 in shape:  # only its shape and type are ever looked at
            stand_in: NDArray[Any] = np.broadcast_to(np.zeros((), np.int8), shape)
            tensors[name] = (dtype, stand_in)
            continue
        start = 8 + length + entry["data_offsets"][0]
        data = np.memmap(path, dtype=kind, mode="r", offset=start, shape=shape)
        tensors[name] = ("bfloat16" if dtype == "BF16" else str(data.dtype), data)
    return dict(sorted(tensors.items(), key=lambda item: _natural(item[0]))), metadata


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """layer.2 before layer.10."""
    parts = re.split(r"([0-9]+)", name)  # text and digits in turn
    parts[1::2] = (digits.lstrip("0") for digits in parts[1::2])
    return [(True, 0, part) if k % 2 == 0 else (False, len(part), part) for k, part in enumerate(parts)]
