"""Arrays of .npz archives: stored ones are mapped, compressed ones are expanded up to a bound."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory.logs.files.content import Content
from resonance_theory.logs.files.tensors import refuse_objects

__all__ = ["LIMIT", "check", "npz"]

LIMIT = 2**32  # bytes that the compressed parts of one archive may expand to


def check(path: Path, where: str) -> list[zipfile.ZipInfo]:
    """The members of a ZIP archive that expands to no more than its own length and LIMIT."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as problem:
        reason = " ".join(str(problem).split())[:120]
        raise ValueError(f"{where} is not a complete archive ({reason})") from None
    expanded = sum(member.file_size for member in members)
    if expanded > path.stat().st_size + LIMIT:
        raise ValueError(
            f"{where} expands to {expanded / 2**30:.1f} GiB but may add at most {LIMIT / 2**30:g} GiB to its "
            f"{path.stat().st_size / 2**30:.2g} GiB: save it uncompressed"
        )
    return members


def npz(path: Path, where: str) -> Content:
    """The arrays of a .npz file in its order."""
    members = check(path, where)
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for member in members:
            name = member.filename.removesuffix(".npy")
            if not member.filename.endswith(".npy"):
                continue
            if name in arrays:
                raise ValueError(f"{where} holds {name!r} twice")
            arrays[name] = _member(path, f"{where}: {name!r}", archive, member)
    return Content(where, path.name, arrays=arrays)


def _member(path: Path, where: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    try:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            head = file.tell()
            if dtype.hasobject:
                raise ValueError("Python objects")
            size = dtype.itemsize * int(np.prod(shape, dtype=object))
            if head + size != member.file_size:
                raise ValueError(f"its header says {head + size} bytes but it has {member.file_size}")
            order: Any = "F" if fortran else "C"
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1 and size:
                array: Any = np.memmap(path, dtype, "r", _start(path, member) + head, shape or (1,), order)
                return _numbers(where, array.reshape(shape))
            data = file.read(size + 1)
    except PermissionError:
        raise
    except Exception as problem:  # damaged headers and streams, unknown compression, passwords
        refuse_objects(where, problem)
        reason = " ".join(str(problem).split())[:120]
        raise ValueError(f"{where} is not a complete array ({reason})") from None
    if len(data) != size:
        raise ValueError(f"{where} is not a complete array ({len(data)} bytes of {size})")
    return _numbers(where, np.frombuffer(data, dtype).reshape(shape, order=order))


def _numbers(where: str, array: Any) -> Any:
    if array.dtype.kind in "US":  # a name or two, such as those of layers
        return array
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{where} has dtype {array.dtype} but must hold numbers")
    return array


def _start(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin: its local header has a length of its own."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError("damaged local header")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(member.header_offset + 30 + name + extra)
