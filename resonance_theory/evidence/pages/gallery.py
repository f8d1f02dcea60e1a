"""The figures of a project, our own those of `paper_figures/`: drawn from stored results, written and checked.

The check redraws each figure from the stored data and compares it with its stored fingerprint: the texts, and for every
curve, area, point set and image its size and sums over its coordinates with fixed uneven weights, so that one changed
number shows. The committed picture is compared as well, pixel by pixel, which guards the style.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory import _output, _style
from resonance_theory.evidence.project import Project, folder, loaded, python_files, recorded

__all__ = ["about", "check", "choose", "draw", "names", "read", "record", "svg", "write"]

REFERENCE = "reference.json"
PICTURE = "images/overview.png"  # drawn by overview.py
RELATIVE = 1e-9  # of a sum: far above rounding, far below any digit that a reader sees
PIXELS = 0.005  # share of pixels that may differ by more than a twentieth: edges of letters, but no line or colour


def _files(project: Project | None = None) -> dict[str, Path]:
    """The file of each figure by its name, of this package's own unless a project is given."""
    own = project is None or project.own
    files = sorted(folder("paper_figures").glob("*.py")) if project is None or own else python_files(project.figures)
    return {
        path.stem: path for path in files if not path.stem.startswith("_") and (own or "CAPTION" in path.read_text())
    }


def names() -> list[str]:
    """This package's own figures, sorted; a leading underscore marks a file that is none."""
    return sorted(_files())


def choose(name: str | None, project: Project | None = None) -> list[str]:
    """The named figure, or all of them; ValueError, naming those there are, if it is none."""
    known = names() if project is None or project.own else sorted(_files(project))
    if name is None:
        return known
    if name not in known:
        raise ValueError(f"figure = {name!r} must be one of {', '.join(known)}")
    return [name]


def read(file: str, project: Project | None = None) -> Any:
    """A stored result: a JSON object, a list of the objects of JSON lines, or the rows of a table as dictionaries."""
    results = folder("simulations") / "results" if project is None or project.own else project.results
    path = results / file
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines()]
        return list(csv.DictReader(io.StringIO(text)))
    except (OSError, ValueError) as problem:
        shown = f"simulations/results/{file}" if project is None or project.own else str(path)
        raise ValueError(f"stored result {shown} cannot be read ({problem})") from None


def _module(name: str, project: Project | None = None) -> Any:
    return loaded(_files(project)[name])


def about(name: str, project: Project | None = None) -> tuple[str, str, tuple[str, ...]]:
    """Title, caption, and the files of stored results that the figure draws."""
    module = _module(name, project)
    title = " ".join((module.__doc__ or name).strip().split("\n\n")[0].split()).rstrip(".")
    return title, " ".join(module.CAPTION.split()), tuple(module.DATA)


def draw(name: str, data: Sequence[Any] | None = None, project: Project | None = None) -> Figure:
    """The figure, drawn in the common style; from its stored data, or from the `data` given in their place."""
    module = _module(name, project)
    with _style.styled():
        return _style.finish(module.draw(*([read(file, project) for file in module.DATA] if data is None else data)))


@functools.cache  # a figure is a function of what is stored
def svg(name: str) -> str:
    """The figure as the text of an SVG file."""
    return _style.render(draw(name), "svg").decode()


def write(chosen: Sequence[str], directory: str | Path, project: Project | None = None) -> list[Path]:
    """NAME.svg, NAME.png and NAME.txt, the caption, for each of the figures; returns the paths."""
    target = _output.folder("figure folder", directory)
    paths = []
    for name in chosen:
        figure = draw(name, project=project)
        for kind in ("svg", "png"):
            _output.write(target / f"{name}.{kind}", _style.render(figure, kind))
            paths.append(target / f"{name}.{kind}")
        _output.write(target / f"{name}.txt", about(name, project)[1] + "\n")
    return paths


# --- check ------------------------------------------------------------------------------------------------------------


def _summary(values: Any) -> list[float]:
    """Size, sum of magnitudes and unevenly weighted sum of an array, not-a-numbers apart."""
    array = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan).ravel()
    known = np.isfinite(array)
    weight = 1 + np.modf(np.arange(1, array.size + 1) * 0.6180339887498949)[0]
    kept = array[known]
    return [float(known.sum()), math.fsum(np.abs(kept)), math.fsum(kept * weight[known])]


def _artists(axes: Any) -> Iterator[tuple[str, list[Any]]]:
    for line in axes.lines:
        yield f"line {line.get_label()}", [line.get_xdata(orig=False), line.get_ydata(orig=False)]
    for collection in axes.collections:
        vertices = [path.vertices for path in collection.get_paths()]
        values = [v for v in (collection.get_array(), collection.get_offsets()) if v is not None]
        yield f"area {collection.get_label()}", [np.concatenate(vertices) if vertices else [], *values]
    for patch in axes.patches:
        yield f"patch {patch.get_label()}", [patch.get_path().vertices @ patch.get_patch_transform().get_matrix()[:2, :2].T
                                             + patch.get_patch_transform().get_matrix()[:2, 2]]  # fmt: skip
    for image in axes.images:
        yield "image", [image.get_array()]


def fingerprint(figure: Figure) -> list[dict[str, Any]]:
    """Texts and array sums of each of the figure's axes, JSON-able."""
    panels = []
    for axes in figure.axes:
        legend = axes.get_legend()
        texts = [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel(), *(t.get_text() for t in axes.texts)]
        texts += [t.get_text() for t in legend.get_texts()] if legend else []
        limits = [*axes.get_xlim(), *axes.get_ylim()]
        artists = [[label, *map(_summary, arrays)] for label, arrays in _artists(axes)]
        panels.append({"texts": texts, "limits": limits, "artists": artists})
    return panels


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=1e-12)
    return bool(a == b)


def _differences(found: list[dict[str, Any]], stored: list[dict[str, Any]]) -> Iterator[str]:
    if len(found) != len(stored):
        yield f"{len(found)} panels, stored {len(stored)}"
        return
    for index, (new, old) in enumerate(zip(found, stored)):
        for part in ("texts", "limits"):
            if not _same(new[part], old[part]):
                yield f"panel {index + 1}: {part} {new[part]}, stored {old[part]}"
        if len(new["artists"]) != len(old["artists"]):
            yield f"panel {index + 1}: {len(new['artists'])} artists, stored {len(old['artists'])}"
            continue
        for mine, theirs in zip(new["artists"], old["artists"]):
            if not _same(mine, theirs):
                yield f"panel {index + 1}: {mine[0]} has other values than the stored {theirs[0]}"


def picture_difference(found: bytes, stored: bytes) -> float:
    """Share of pixels that differ by more than a twentieth of the full range; 1 if the sizes differ."""
    from matplotlib.image import imread

    a, b = (imread(io.BytesIO(content), format="png") for content in (found, stored))
    if a.shape != b.shape:
        return 1.0
    return float((np.abs(a - b).max(axis=-1) > 0.05).mean())


def check(chosen: Sequence[str]) -> dict[str, list[str]]:
    """Differences of each figure, redrawn from the stored data, from the stored reference; none if they agree."""
    home = folder("paper_figures")
    reference = json.loads((home / REFERENCE).read_text(encoding="utf-8"))
    result = {}
    for name in chosen:
        figure = draw(name)
        if name not in reference:
            result[name] = ["no stored reference: look at the figure, then `resonance figures --record`"]
            continue
        result[name] = list(_differences(json.loads(json.dumps(fingerprint(figure))), reference[name]))
        if name == Path(PICTURE).stem:
            share = picture_difference(_style.render(figure, "png"), (home / PICTURE).read_bytes())
            if share > PIXELS:
                result[name].append(f"{100 * share:.1f} % of the pixels differ from paper_figures/{PICTURE}")
    if set(chosen) == set(names()):
        result |= {name: ["a stored reference without a figure"] for name in set(reference) - set(names())}
    return result


def record() -> list[Path]:
    """Store the fingerprints of all figures and the README's picture, as they are drawn now."""
    home = recorded("paper_figures")
    figures = {name: draw(name) for name in names()}
    lines = [f"{json.dumps(name)}: {json.dumps(fingerprint(figure))}" for name, figure in figures.items()]
    _output.write(home / REFERENCE, "{\n" + ",\n".join(lines) + "\n}\n")
    _output.write(home / PICTURE, _style.render(figures[Path(PICTURE).stem], "png"))
    return [home / REFERENCE, home / PICTURE]
