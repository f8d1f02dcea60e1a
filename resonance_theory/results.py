"""What every result of the package can do: be shown, drawn, tabulated and recorded."""

from __future__ import annotations

import html
import importlib
import math
from collections.abc import Mapping
from typing import Any

from resonance_theory.provenance import provenance

__all__ = ["Result", "plain"]


class Result:
    """Text, picture, rows and record of a frozen dataclass, which must be declared with repr=False.

    A result defines `summary` (a few words), `table` (its text), `rows` (a list of flat dictionaries) and `plot`.
    """

    def summary(self) -> str:
        """A few words: what it is of, and how large."""
        raise NotImplementedError

    def table(self) -> str:
        """The text for a terminal."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """Its main numbers, one dictionary for each row."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.table())}</pre>"

    def to_frame(self) -> Any:
        """The rows as a pandas.DataFrame.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError:
            raise ModuleNotFoundError("to_frame() needs pandas: pip install pandas (or use rows())") from None
        return pandas.DataFrame(self.rows())

    def record(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields under the name of their format, with version, commit and time; what is not finite is None."""
        return {"format": kind, "provenance": provenance(), **plain(fields)}


def plain(value: Any) -> Any:
    """Nested dictionaries, lists and finite numbers alone, as JSON has them.

    Example:
        >>> plain({"a": (1, float("nan"))})
        {'a': [1, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
