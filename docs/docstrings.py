"""Docstrings are written to be read in a terminal; this turns their layout into Markdown for mkdocstrings.

A line that starts with names and a colon describes them and becomes an item, indented or `>>>` lines keep their shape, and
what Markdown would take for markup (`*`, `_`, `<`) is kept as it stands.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from typing import Any

Base: Any = object
with contextlib.suppress(ImportError):  # the tests read `markdown` without the site's generator
    Base = importlib.import_module("griffe").Extension

NAMES = re.compile(r"([A-Za-z_]\w*(?:, \w+)*):? {2,}(?=\S)|([a-z_]\w*(?:, [a-z_]\w*)*): ")


def escaped(text: str) -> str:
    """Text that Markdown shows as it is; `code` stays code."""
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(
        p if i % 2 else re.sub(r"([\\*_\[\]#$|])", r"\\\1", p).replace("<", "&lt;") for i, p in enumerate(pieces)
    )


def markdown(text: str) -> str:
    """The Markdown of a plain docstring."""
    blocks: list[tuple[str, list[str]]] = []
    kind = ""
    for line in text.strip().splitlines():
        names = NAMES.match(line)
        if not line.strip():
            if kind != "code":
                kind = ""
        elif line.startswith("    ") and kind != "item":
            if kind != "code":
                blocks.append(("code", []))
                kind = "code"
            blocks[-1][1].append(line[4:])
        elif names and not line.startswith(" "):
            found = (names[1] or names[2]).split(", ")
            label = ", ".join(f"`{name}`" for name in found)
            blocks.append(("item", [f"- {label}: {escaped(line[names.end() :])}"]))
            kind = "item"
        elif kind in ("prose", "item"):
            blocks[-1][1].append(escaped(line.strip()))
        else:
            blocks.append(("prose", [escaped(line.strip())]))
            kind = "prose"
    out: list[str] = []
    for index, (kind, lines) in enumerate(blocks):
        if kind == "code":
            language = "pycon" if lines[0].startswith(">>>") else "text"
            out.append("\n".join([f"```{language}", *lines, "```"]))
        else:
            after_item = kind == "item" and index and blocks[index - 1][0] == "item"
            joined = ("\n    " if kind == "item" else "\n").join(lines)
            out.append(joined) if not after_item else out.append(out.pop() + "\n" + joined)
    return "\n\n".join(out)


class Docstrings(Base):
    """Rewrites every docstring once it is loaded."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
