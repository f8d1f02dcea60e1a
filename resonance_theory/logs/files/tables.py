"""Tables and nested values from text: JSON, JSON lines, CSV; and Parquet where pyarrow is."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory.logs.files.archive import LIMIT
from resonance_theory.logs.files.content import Content, of_value

__all__ = ["csv_file", "json_file", "jsonl_file", "parquet_file"]

_ROWS = 2**16  # rows that are Python objects at once: a column's others are arrays of numbers


class _Columns:
    """Columns that grow row by row, as arrays of numbers but for the last rows."""

    def __init__(self, where: str, keys: Iterable[str]) -> None:
        self.where, self.keys = where, tuple(keys)
        self.rows: list[Any] = []
        self.done: dict[str, list[Any]] = {key: [] for key in self.keys}

    def add(self, row: Any) -> None:
        self.rows.append(row)
        if len(self.rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        for key, column in zip(self.keys, zip(*self.rows)):
            self.done[key].append(column_of(column))
        self.rows = []

    def finish(self) -> dict[str, Any]:
        if self.rows:
            self._flush()
        return {key: _joined(parts) for key, parts in self.done.items()}


def column_of(values: Any) -> Any:
    """Numbers as an array, anything else as a list."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged lists
        return list(values)
    return array if array.dtype.kind in "iufU" else list(values)


def _joined(parts: list[Any]) -> Any:
    if all(isinstance(part, np.ndarray) for part in parts) and len({part.ndim for part in parts}) == 1:
        try:
            return np.concatenate(parts)
        except ValueError:  # lists of different lengths
            pass
    return [value for part in parts for value in part]


def json_file(path: Path, where: str) -> Content:
    """A JSON file, read whole: Python needs some ten times its size."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as problem:  # of UnicodeDecodeError and JSONDecodeError, too
        raise ValueError(f"{where} is not JSON ({' '.join(str(problem).split())[:120]})") from None
    return of_value(where, path.name, value)


def jsonl_file(path: Path, where: str) -> Content:
    """JSON lines: objects with equal keys and plain values become columns as they are read, others stay as they are."""
    rows = _lines(path, where)
    try:
        first = next(rows)
    except StopIteration:
        raise ValueError(f"{where} is empty but must hold a routing log") from None
    if not isinstance(first, dict) or not _flat(first):
        return Content(where, path.name, value=[first, *rows])
    columns = _Columns(where, first)
    columns.add(tuple(first.values()))
    for number, row in enumerate(rows, 2):
        if not isinstance(row, dict) or row.keys() != first.keys():
            if number <= _ROWS:  # lines of several kinds, as Megatron's with and without mtp_idx
                return Content(where, path.name, value=list(_lines(path, where)))
            raise ValueError(f"{where}, object {number}, must have the keys of the first: {', '.join(first)}")
        columns.add(tuple(row[key] for key in first))
    return Content(where, path.name, columns=columns.finish())


def _flat(row: dict[str, Any]) -> bool:
    """Whether a line is a row of a table, of plain values and lists of numbers: not a response, not a matrix."""
    lists = [v for v in row.values() if isinstance(v, list)]
    plain = all(v and all(isinstance(x, (int, float)) for x in v) for v in lists)
    return plain and "routed_experts" not in row and not any(isinstance(v, dict) for v in row.values())


def _lines(path: Path, where: str) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as problem:
                reason = " ".join(str(problem).split())[:120]
                raise ValueError(f"{where}, line {number}, is not JSON ({reason})") from None


def csv_file(path: Path, where: str) -> Content:
    """A table with a line of names, separated by commas, semicolons or tabs; or lines of numbers alone, one array."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            mark = max(",;\t", key=head.count)
            rows = csv.reader(file, delimiter=mark)
            names = [name.strip() for name in next(csv.reader([head], delimiter=mark), [])]
            if all(map(_number, names)):
                file.seek(0)
                return Content(where, path.name, arrays={path.stem: _matrix(where, csv.reader(file, delimiter=mark))})
            if len(set(names)) != len(names):
                raise ValueError(f"{where} names a column twice: {', '.join(names)}")
            columns = _Columns(where, names)
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    raise ValueError(
                        f"{where}, line {rows.line_num + 1}, has {len(row)} fields but must have {len(names)}"
                    )
                columns.add(tuple(map(_plain, row)))
    except UnicodeDecodeError as problem:
        raise ValueError(f"{where} is not text in UTF-8 ({problem.reason} at byte {problem.start})") from None
    except csv.Error as problem:
        raise ValueError(f"{where} is not a table ({problem})") from None
    return Content(where, path.name, columns=columns.finish())


def _matrix(where: str, rows: Iterator[list[str]]) -> Any:
    numbers = [[_plain(field) for field in row] for row in rows if row]
    if len({len(row) for row in numbers}) != 1 or not all(isinstance(x, (int, float)) for row in numbers for x in row):
        raise ValueError(f"{where} must be a table with a line of names, or lines of equally many numbers")
    return np.array(numbers)


def _number(text: str) -> bool:
    return isinstance(_plain(text), (int, float))


def _plain(text: str) -> Any:
    """The number that a field says, or its text."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text.strip()


def parquet_file(path: Path, where: str) -> Content:
    """The columns of a Parquet file, read by pyarrow."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{where} needs the package 'pyarrow': pip install pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        cells = file.metadata.num_rows * file.metadata.num_columns
        if 8 * cells > path.stat().st_size + LIMIT:
            raise ValueError(f"{cells} entries, more than {LIMIT // 8} beyond its size")
        table = file.read()
        columns = {}
        for name in table.column_names:
            column = table.column(name)
            if column.null_count:
                raise ValueError(f"column {name!r} has {column.null_count} missing values")
            nested = str(column.type).startswith(("list", "large_list", "fixed_size_list"))
            columns[name] = column_of(column.to_pylist()) if nested else column.to_numpy()
    except Exception as problem:  # whatever pyarrow raises for damaged files
        raise ValueError(f"{where} is no complete Parquet file ({' '.join(str(problem).split())[:120]})") from None
    metadata = {
        k.decode(errors="replace"): v.decode(errors="replace") for k, v in (table.schema.metadata or {}).items()
    }
    return Content(where, path.name, columns=columns, metadata=metadata)
