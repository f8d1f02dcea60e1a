"""Text files, and folders of them, read line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resonance_theory.logs.files.content import Content, natural

__all__ = ["Text", "folder", "text"]


@dataclass(frozen=True)
class Text:
    """A text file: its stem, and what messages call it."""

    name: str
    where: str
    path: Path

    def lines(self) -> Iterator[tuple[int, str]]:
        """Its lines with their numbers, without the ends."""
        try:
            with self.path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    yield number, line.rstrip("\r\n")
        except UnicodeDecodeError as problem:
            raise ValueError(f"{self.where} is not text in UTF-8 ({problem.reason} at byte {problem.start})") from None


def text(path: Path, where: str) -> Content:
    """One text file."""
    return Content(where, path.name, texts=(Text(path.stem, where, path),))


def folder(path: Path, where: str) -> Content:
    """All text files of a folder, and of the folders right in it, in the natural order of their paths."""
    files = [p for pattern in ("*.txt", "*/*.txt") for p in path.glob(pattern) if p.is_file()]
    files.sort(key=lambda p: natural(str(p.relative_to(path))))
    made = (Text(p.stem, f"{where}, {str(p.relative_to(path))!r}", p) for p in files)
    return Content(where, path.name, texts=tuple(made))
