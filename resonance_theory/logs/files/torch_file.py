"""Files of `torch.save`, loaded with `weights_only=True`: tensors, numbers, text, lists and dictionaries."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

from resonance_theory._extras import hint
from resonance_theory.logs.files import archive
from resonance_theory.logs.files.content import Content, as_array, of_value

__all__ = ["load", "of_object"]


def load(path: Path, where: str) -> Content:
    """What a .pt file holds, mapped from it where torch can."""
    try:
        import torch
    except ImportError:
        raise ImportError(f"{where} needs torch: {hint('torch')}") from None
    zipped = zipfile.is_zipfile(path)
    if zipped:
        archive.check(path, where)
    try:
        with warnings.catch_warnings():  # of old formats, which load, and of TorchScript, which does not
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except PermissionError:
        raise
    except Exception as problem:  # damaged archives, and whatever its unpickler says
        reason = " ".join(str(problem).split())
        if "weights_only" in reason.lower() or "WeightsUnpickler" in reason:
            raise TypeError(
                f"{where} holds Python objects, which are never loaded: save tensors, numbers, text, lists and "
                "dictionaries"
            ) from None
        raise ValueError(f"{where} is not a complete file of torch.save ({reason[:120]})") from None
    return of_object(where, path.name, value)


def of_object(where: str, name: str, value: Any) -> Content:
    """Content of a tensor, a list of tensors, or nested values with tensors in them."""
    if hasattr(value, "dtype"):
        return Content(where, name, arrays={"array": as_array(where, "array", value, archive.LIMIT)}, value=value)
    if isinstance(value, (list, tuple)) and value and all(hasattr(part, "dtype") for part in value):
        items = {f"{k}": part for k, part in enumerate(value)}
        return Content(where, name, arrays={k: as_array(where, k, v, archive.LIMIT) for k, v in items.items()})
    if isinstance(value, dict):
        items = {str(k): v for k, v in value.items() if hasattr(v, "dtype") and not isinstance(v, (list, dict))}
        for key, part in value.items():  # a tuple of tensors, one a layer
            if isinstance(part, (list, tuple)) and part and all(hasattr(p, "dtype") for p in part):
                items |= {f"{key}.{k}": p for k, p in enumerate(part)}
        arrays = {k: as_array(where, k, v, archive.LIMIT) for k, v in items.items()}
        table = of_value(where, name, value)
        text = {str(k): str(v) for k, v in value.items() if isinstance(v, (str, int, float))}
        return Content(where, name, arrays=arrays, columns=table.columns, value=value, metadata=text)
    return of_value(where, name, value)
