"""Open a file, folder or mapping as `Content`. Nothing is unpickled, nothing expands without bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resonance_theory.logs.files import archive, tables, tensors, texts, torch_file
from resonance_theory.logs.files.content import Content, as_array

__all__ = ["ENDINGS", "LIMIT", "open_source"]

LIMIT = archive.LIMIT

_OPENERS: dict[str, Callable[[Path, str], Content]] = {
    ".npy": tensors.npy,
    ".npz": archive.npz,
    ".safetensors": tensors.safetensors,
    ".safetensors.index.json": tensors.sharded,
    ".pt": torch_file.load,
    ".pth": torch_file.load,
    ".json": tables.json_file,
    ".jsonl": tables.jsonl_file,
    ".ndjson": tables.jsonl_file,
    ".csv": tables.csv_file,
    ".tsv": tables.csv_file,
    ".parquet": tables.parquet_file,
    ".txt": texts.text,
}
ENDINGS = tuple(_OPENERS)


def open_source(source: Any) -> Content:
    """The content of a path, of a mapping of names to arrays, of one array, or of a list with one array a layer.

    Raises:
        FileNotFoundError, ValueError, TypeError: one sentence with the file and what is allowed.
    """
    if isinstance(source, Content):
        return source
    if not isinstance(source, (str, Path)):
        return _arrays(source)
    path, where = Path(source), f"{str(source)!r}"
    if not str(source) or not path.exists():
        raise FileNotFoundError(f"{where} does not exist")
    if path.is_dir():
        return texts.folder(path, where)
    name = path.name.lower()
    ending = max((end for end in ENDINGS if name.endswith(end)), key=len, default=None)
    if ending is None:
        raise ValueError(f"{where} must be a file ending in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if not path.is_file():
        raise ValueError(f"{where} is a device or a pipe but must be a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{where} is empty but must hold a routing log")
    return _OPENERS[ending](path, where)


def _arrays(source: Any) -> Content:
    where = "the given arrays"
    if isinstance(source, Mapping):
        nested = [v for v in source.values() if not hasattr(v, "dtype") and not isinstance(v, (int, float, str))]
        if any(isinstance(v, (list, tuple, dict)) for v in nested):  # as torch.load or json.load gives it
            return torch_file.of_object(where, "arrays", dict(source))
        items = {str(k): v for k, v in source.items() if not isinstance(v, str)}
        texts_ = {str(k): v for k, v in source.items() if isinstance(v, str)}
        arrays = {k: as_array(where, k, v, LIMIT) for k, v in items.items()}
        return Content(where, "arrays", arrays=arrays, metadata=texts_)
    if isinstance(source, (list, tuple)) and source and all(hasattr(part, "dtype") for part in source):
        return Content(
            where, "arrays", arrays={f"{k}": as_array(where, f"{k}", v, LIMIT) for k, v in enumerate(source)}
        )
    if isinstance(source, (list, tuple)) and source and all(isinstance(part, dict) for part in source):
        return torch_file.of_object(where, "arrays", list(source))
    return Content(where, "arrays", arrays={"array": as_array(where, "array", source, LIMIT)})
