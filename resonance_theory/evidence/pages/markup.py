"""Text of claims as HTML: LaTeX between dollar signs becomes MathML, which browsers draw without a script or a font.

The texts may be anybody's, so nothing of them reaches the page as markup: all text is escaped, and of MathML's attributes
only those that set type remain.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape, unescape
from itertools import pairwise
from xml.etree import ElementTree

__all__ = ["Link", "mathml", "proof", "rich_text"]

Link = Callable[[str], str | None]  # a claim's id -> its address, None if there is no such page
IDENTIFIER = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")
MARKER = re.compile(r"(\d+\.|-) ")
# a few lines of them expand without end
MACROS = re.compile(r"\\(?:re)?new(?:command|environment)|\\def\b|\\DeclareMathOperator")
ATTRIBUTES = frozenset(
    re.findall(
        r"\w+",
        """xmlns display displaystyle scriptlevel mathvariant mathcolor mathbackground mathsize stretchy fence form separator
        symmetric largeop movablelimits accent accentunder minsize maxsize lspace rspace width height depth voffset notation
        linethickness columnalign columnlines columnspacing rowlines rowspacing rowalign frame framespacing""",
    )
)
ROWS = {"mrow", "mstyle", "mtd", "mphantom", "mpadded"}  # their children stand side by side
SCRIPTS = {"msub", "msup", "msubsup"}


def mathml(latex: str, display: str = "inline") -> str:
    """One formula as MathML.

    Args:
        latex: a formula in LaTeX, without its dollar signs and without definitions of macros.
        display: "inline" or "block".

    Returns:
        A `<math>` element that holds no script, link, style or name of anything, whatever the formula.

    Raises:
        ValueError: the formula cannot be read.
    """
    from latex2mathml.converter import convert_to_element

    shown = latex if len(latex) <= 60 else latex[:57] + "..."
    if MACROS.search(latex):
        raise ValueError(f"formula = {shown!r} must not define macros")
    try:
        element = convert_to_element(latex, display=display)
        _clean(element)
        return ElementTree.tostring(element, encoding="unicode")
    except (
        Exception
    ) as problem:  # the converter has many exceptions, its own and Python's, and most of them say nothing
        raise ValueError(f"formula = {shown!r} must be LaTeX ({type(problem).__name__})") from None


def _function(element: ElementTree.Element) -> bool:
    """Whether it is the name of a function such as ln, with a script or without."""
    base = element[0] if element.tag in SCRIPTS else element
    return base.tag == "mi" and len(base.text or "") > 1 and (base.text or "").isalpha()


def _clean(element: ElementTree.Element) -> None:
    """Text as text, attributes that only set type, and TeX's thin space around the name of a function."""
    element.text = None if element.text is None else unescape(element.text)
    for name in set(element.attrib) - ATTRIBUTES:
        del element.attrib[name]
    for child in element:
        _clean(child)
    if element.tag not in ROWS:
        return
    children = list(element)
    spaced = children[:1]
    for left, right in pairwise(children):
        if (_function(left) and right.tag != "mo") or (_function(right) and left.tag != "mo"):
            spaced.append(ElementTree.Element("mspace", width="0.167em"))
        spaced.append(right)
    element[:] = spaced


def _anchor(match: re.Match[str], link: Link) -> str:
    address = link(match[0])
    return match[0] if address is None else f'<a href="{escape(address)}">{match[0]}</a>'


def _prose(text: str, link: Link) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", IDENTIFIER.sub(lambda match: _anchor(match, link), escape(text)))


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
