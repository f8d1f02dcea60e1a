"""Text of claims as HTML: LaTeX between dollar signs becomes MathML, which browsers draw without a script or a font."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

__all__ = ["Link", "markdown", "mathml", "proof", "rich_text"]

Link = Callable[[str], str | None]  # a claim's id -> its address, None if there is no such page
IDENTIFIER = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")
MARKER = re.compile(r"(\d+\.|-) ")


def mathml(latex: str, display: str = "inline") -> str:
    """One formula of LaTeX as a MathML element."""
    from latex2mathml.converter import convert

    return convert(latex, display=display)


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


def markdown(text: str, link: Link = lambda _: None, page: Link = lambda _: None, sink: int = 1) -> str:
    """A page of Markdown with tables and $formulas$ as HTML; the ids of claims become links.

    page: address of a file that the text links to, None to show the link's words alone. Headings sink by `sink` levels.
    """
    from markdown_it import MarkdownIt

    formulas: list[str] = []

    def hide(match: re.Match[str]) -> str:
        if match[3] is None:
            return match[0]
        formulas.append(mathml(match[3]))
        return f"\ue000{len(formulas) - 1}\ue001"  # of a private range: Markdown leaves it alone

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(re.sub(r"(`+)(.+?)\1|\$([^$\n]+)\$", hide, text))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + sink)}"
        token.children = _linked(token.children or [], page)

    def words(_: Any, tokens: Any, index: int, *__: Any) -> str:
        token = tokens[index]
        content = escape(token.content)
        if not token.meta.get("linked"):
            content = IDENTIFIER.sub(lambda match: _anchor(match, link), content)
        return f"<code>{content}</code>" if token.type == "code_inline" else content

    for kind in ("text", "code_inline"):
        parser.add_render_rule(kind, words)
    html = parser.renderer.render(tokens, parser.options, {})
    html = html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return re.sub("\ue000(\\d+)\ue001", lambda match: formulas[int(match[1])], html)


def _linked(tokens: Sequence[Any], page: Link) -> list[Any]:
    """The pieces of a line with the addresses of its links looked up; links within Markdown never nest."""
    kept, open_, dropped = [], False, False
    for token in tokens:
        if token.type == "link_open":
            address = str(token.attrs["href"])
            found = address if address.startswith(("https:", "http:")) else page(address)
            open_, dropped = True, found is None
            token.attrs = {"href": found}
        elif token.type == "link_close":
            open_ = False
        elif open_:
            token.meta = {"linked": not dropped}
        if not (dropped and token.type.startswith("link_")):
            kept.append(token)
    return kept


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
