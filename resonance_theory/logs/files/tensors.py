"""Tensors of .npy and .safetensors files, mapped into memory and read only where they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory.logs.files.content import Coded, Content, natural

__all__ = ["npy", "refuse_objects", "safetensors", "sharded"]

_PLAIN = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}
_CODED = {"BF16": ("<u2", "bfloat16"), "F8_E4M3": ("u1", "float8_e4m3fn"), "F8_E5M2": ("u1", "float8_e5m2")}


def npy(path: Path, where: str) -> Content:
    """The array of a .npy file."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except PermissionError:
        raise
    except Exception as problem:  # the header is a Python literal: whatever its parser may raise
        refuse_objects(where, problem)
        raise ValueError(f"{where} is not a complete .npy file ({_reason(problem)})") from None
    return Content(where, path.name, arrays={path.stem: _numbers(where, array)})


def _numbers(where: str, array: Any) -> Any:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{where} has dtype {array.dtype} but must hold numbers")
    return array


def refuse_objects(where: str, problem: Exception) -> None:
    """Raise where the problem is that the file holds pickled objects."""
    if "Python objects" in str(problem) or "allow_pickle" in str(problem) or "Object arrays" in str(problem):
        raise TypeError(f"{where} holds Python objects (pickled), which are never loaded: save numbers") from None


def safetensors(path: Path, where: str) -> Content:
    """The tensors of a .safetensors file in the natural order of their names."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # checks that header, shapes, offsets and length fit together
            pass
    except SafetensorError as problem:
        raise ValueError(f"{where} is not a complete .safetensors file ({_reason(problem)})") from None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    arrays: dict[str, Any] = {}
    for name in sorted(header, key=natural):
        kind, shape = header[name]["dtype"], tuple(header[name]["shape"])
        start = 8 + length + header[name]["data_offsets"][0]
        stored, coded = _CODED.get(kind, (_PLAIN.get(kind), None))
        if stored is None:
            continue  # a type that holds neither ids nor logits
        data: Any = np.empty(shape, stored)
        if 0 not in shape:
            data = np.memmap(path, dtype=stored, mode="r", offset=start, shape=shape or (1,)).reshape(shape)
        arrays[name] = data if coded is None else Coded(data, coded)
    return Content(where, path.name, arrays=arrays, metadata=metadata)


def sharded(path: Path, where: str) -> Content:
    """The tensors of all files that an index names, which must lie beside it."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): str(file) for name, file in index["weight_map"].items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{where} must be JSON with a weight_map of tensor names to files") from None
    arrays: dict[str, Any] = {}
    for file in sorted(set(files.values()), key=natural):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ValueError(f"{where} names {file!r} but must name .safetensors files beside it")
        if not (path.parent / file).is_file():
            raise FileNotFoundError(f"{where} names {file!r}, which does not exist beside it")
        found = safetensors(path.parent / file, f"{where}, {file!r}").arrays
        wanted = [name for name, its in files.items() if its == file]
        missing = [name for name in wanted if name not in found]
        if missing:
            raise ValueError(f"{where} says that {file!r} holds {missing[0]!r} but it does not")
        arrays |= {name: found[name] for name in wanted}
    return Content(where, path.name, arrays=dict(sorted(arrays.items(), key=lambda item: natural(item[0]))))


def _reason(problem: Exception) -> str:
    return " ".join(str(problem).split())[:120] or type(problem).__name__
