"""Text of claims as HTML: LaTeX between dollar signs becomes MathML, which browsers draw without a script or a font."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

__all__ = ["Link", "mathml", "proof", "rich_text"]

Link = Callable[[str], str | None]  # a claim's id -> its address, None if there is no such page
IDENTIFIER = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")
MARKER = re.compile(r"(\d+\.|-) ")


def mathml(latex: str, display: str = "inline") -> str:
    """One formula of LaTeX as a MathML element."""
    from latex2mathml.converter import convert

    return convert(latex, display=display)


def _prose(text: str, link: Link) -> str:
    def anchor(match: re.Match[str]) -> str:
        address = link(match[0])
        return match[0] if address is None else f'<a href="{escape(address)}">{match[0]}</a>'

    return re.sub(r"`([^`]+)`", r"<code>\1</code>", IDENTIFIER.sub(anchor, escape(text)))


def rich_text(text: str, link: Link = lambda _: None) -> str:
    """Escaped text; $...$ becomes MathML, `...` code, and the ids of claims become links."""
    pieces = text.split("$")
    out = []
    for index, piece in enumerate(pieces):
        if index % 2 == 0 or index == len(pieces) - 1:
            out.append(_prose(piece, link))
        else:
            out.append(mathml(piece))
    return "".join(out)


def proof(text: str, link: Link = lambda _: None) -> str:
    """The docstring of a claim's file as HTML.

    Prose flows; lines indented by four or more are formulas and keep their shape; lines with less or with a number or a
    dash are steps of their own.
    """
    for typed, printed in (("<=", "≤"), (">=", "≥"), ("->", "→")):
        text = text.replace(typed, printed)
    blocks: list[tuple[str, list[str]]] = []
    kind = ""
    for line in text.strip().splitlines():
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            kind = ""
            continue
        step = MARKER.match(line.strip()) is not None
        if step or (0 < indent < 4 and kind != "step"):
            blocks.append(("step", [line.strip()]))
            kind = "step"
        elif indent >= 4 and kind != "step":
            if kind != "formula":
                blocks.append(("formula", []))
            blocks[-1][1].append(line)
            kind = "formula"
        elif kind and (kind == "prose" or (kind == "step" and indent)):
            blocks[-1][1].append(line.strip())
        else:
            blocks.append(("prose", [line.strip()]))
            kind = "prose"
    out = []
    for kind, lines in blocks:
        if kind == "formula":
            margin = min(len(line) - len(line.lstrip()) for line in lines)
            out.append("<pre>" + _prose("\n".join(line[margin:] for line in lines), link) + "</pre>")
        else:
            out.append(f'<p class="{kind}">' + rich_text(" ".join(lines), link) + "</p>")
    return "\n".join(out)
