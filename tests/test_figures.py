"""The figures: pure functions of stored results, the same bytes every time, readable without colour; the check can fail."""

import copy
import json
from itertools import combinations

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from paper_figures import _template
from resonance_theory import _style
from resonance_theory.cli import main
from resonance_theory.evidence.pages import gallery
from simulations import figure_data

NAMES = gallery.names()


@pytest.fixture(scope="module")
def figures():
    return {name: gallery.draw(name) for name in NAMES}


def stored(name):
    return [gallery.read(file) for file in gallery.about(name)[2]]


def close(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == pytest.approx(b, rel=1e-8, abs=1e-11) if isinstance(a, float) else a == b


@pytest.mark.parametrize("name", figure_data.names())
def test_the_stored_data_are_those_of_the_laws_of_today(name):
    record = json.loads((figure_data.RESULTS / f"{name}.json").read_text())
    assert record.pop("provenance")["command"] == f"resonance data {name}"
    fresh = figure_data.compute(name)
    assert close(record, fresh)
    changed = mutate(fresh)
    assert not close(record, changed)


def test_every_data_set_is_stored_and_drawn():
    files = {f"figures/{name}.json" for name in figure_data.names()}
    assert {f"figures/{path.name}" for path in figure_data.RESULTS.iterdir()} == files
    assert files <= {file for name in NAMES for file in gallery.about(name)[2]}


def mutate(data):
    """The same data with one number in the middle of its longest list of numbers a little larger."""
    changed = copy.deepcopy(data)
    best: list = []

    def walk(node):
        nonlocal best
        if isinstance(node, dict):
            node = list(node.values())
        if isinstance(node, list):
            if node and all(isinstance(v, float) for v in node) and len(node) > len(best):
                best = node
            for entry in node:
                walk(entry)

    walk(changed)
    best[len(best) // 2] = best[len(best) // 2] * (1 + 1e-6) + 1e-6
    return changed


def test_the_check_agrees_with_the_stored_reference(figures, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "draw", figures.__getitem__)  # drawn once for all tests
    assert main(["figures", "--check"]) == 0
    out = capsys.readouterr().out
    assert out.split() == [word for name in NAMES for word in ("✓", name)]


@pytest.mark.parametrize("name", NAMES)
def test_the_check_fails_for_one_changed_number(name, monkeypatch, capsys):
    data = stored(name)
    original = gallery.read
    monkeypatch.setattr(gallery, "read", lambda file, *_: mutate_any(original(file)))
    assert main(["figures", name, "--check"]) == 1
    assert f"✗ {name}" in capsys.readouterr().out
    assert stored(name) != data


def mutate_any(data):
    """A little of a stored result changed in the sixth digit, whatever its format: one number, or all of a training."""

    def moved(node):
        if isinstance(node, dict):
            return {key: moved(value) for key, value in node.items()}
        if isinstance(node, list):
            return [moved(value) for value in node]
        return node * (1 + 1e-5) if isinstance(node, float) else node

    if isinstance(data, dict):
        if "rows" in data:  # a benchmark
            return moved(data)
        if "runs" not in data:
            return mutate(data)
        size = next(iter(data["runs"][0]))
        return {**data, "runs": [{**run, size: moved(run[size])} for run in data["runs"]]}
    changed = copy.deepcopy(data)
    rows = [row for row in changed if {"estimate", "seconds", "metrics"} & set(row)]
    row = rows[len(rows) // 2]
    for key in ("estimate", "seconds"):
        if key in row:
            row[key] = type(row[key])(float(row[key]) * (1 + 1e-5))
    for row in rows:  # of a training study a figure draws some arms only
        if "metrics" in row:
            row["metrics"] = moved(row["metrics"])
    return changed


@pytest.mark.parametrize("change", [{"lines.linewidth": 3.0}, {"font.size": 10}])
def test_the_check_fails_for_another_style(change, monkeypatch, capsys):
    monkeypatch.setattr(_style, "RC", _style.RC | change)
    assert main(["figures", "overview", "--check"]) == 1
    assert "of the pixels differ" in capsys.readouterr().out


def test_a_figure_without_a_reference_and_a_reference_without_a_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(gallery, "REFERENCE", tmp_path / "reference.json")
    reference = {"gone": []}
    gallery.REFERENCE.write_text(json.dumps(reference))
    monkeypatch.setattr(gallery, "names", lambda: ["published_bounds"])
    result = gallery.check(["published_bounds"])
    assert "no stored reference" in result["published_bounds"][0]
    assert result["gone"] == ["a stored reference without a figure"]


def test_recorded_references_are_accepted(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gallery, "REFERENCE", tmp_path / "reference.json")
    monkeypatch.setattr(gallery, "PICTURE", tmp_path / "overview.png")
    monkeypatch.setattr(gallery, "names", lambda: ["overview"])
    assert main(["figures", "--record"]) == 0
    assert main(["figures", "--check"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_same_bytes_in_every_run(tmp_path, capsys):
    for folder in ("a", "b"):
        assert main(["figures", "overview", "--out", str(tmp_path / folder)]) == 0
    assert "overview.svg" in capsys.readouterr().out
    for kind in ("svg", "png", "txt"):
        first, second = ((tmp_path / folder / f"overview.{kind}").read_bytes() for folder in ("a", "b"))
        assert first == second
        assert len(first) > 100
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["overview.png", "overview.svg", "overview.txt"]


def test_the_picture_of_the_readme_is_small():
    assert 10_000 < (gallery.folder("paper_figures") / gallery.PICTURE).stat().st_size <= 150_000


# --- readable -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_texts_lie_within_the_figure_and_not_on_each_other(name, figures):
    figure = figures[name]
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # at the figure's own resolution
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    for axes in figure.axes:
        legend = axes.get_legend()
        labels = [axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title, *axes.texts]
        labels += legend.get_texts() if legend else []
        shown = [text for text in labels if text.get_text() and text.get_visible()]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown]
        for text, box in boxes:
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= width + 1, text
            assert box.y1 <= height + 1, text
        for (one, a), (two, b) in combinations(boxes, 2):
            overlap = max(0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0, min(a.y1, b.y1) - max(a.y0, b.y0))
            assert overlap <= 0.1 * min(a.width * a.height, b.width * b.height), (one, two)
        assert all(text.get_fontsize() >= 7 for text in shown)


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_its_axes_are(name, figures):
    for axes in figures[name].axes:
        if axes.axison:
            assert axes.get_xlabel() or axes.get_ylabel()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_told_apart_by_colour_alone(name, figures):
    """Labelled lines of a panel differ in dash, marker, or width; or by a third of the grey scale."""
    for axes in figures[name].axes:
        lines = [line for line in axes.lines if not line.get_label().startswith("_")]
        for one, two in combinations(lines, 2):
            looks = [(str(x._unscaled_dash_pattern), str(x.get_marker()), x.get_linewidth()) for x in (one, two)]
            grey = [
                np.dot(matplotlib.colors.to_rgb(x.get_markerfacecolor() if x.get_linestyle() == "None" else x.get_color()),
                       (0.299, 0.587, 0.114)) for x in (one, two)
            ]  # fmt: skip
            assert looks[0] != looks[1] or abs(grey[0] - grey[1]) > 0.33, (one.get_label(), two.get_label())


@pytest.mark.parametrize("name", NAMES)
def test_captions_say_claim_and_data(name):
    text = gallery.about(name)[1]
    assert 150 < len(text) < 900
    assert text.endswith(".")
    assert any(word in text.lower() for word in ("simulat", "measured", "model"))


def test_memory_of_routers_where_it_was_counted():
    record = gallery.read("router_benchmark.json")
    sizes = record["runs"][0]
    counted = {size: dict.fromkeys(sizes[size]["routers"], 0.5) for size in sizes}
    for once in (counted, None):
        panel = gallery.draw("router_speed", [{**record, "extra_memory": once}]).axes[2]
        assert panel.get_xlabel() == "memory beyond the outputs, %"
        assert {x for line in panel.lines for x in line.get_xdata() if x > 1} == ({50.0} if once else set())


def test_the_template_is_a_figure():
    data = [gallery.read(file) for file in _template.DATA]
    with _style.styled():
        assert _template.draw(*data).axes


# --- errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "figure = 'nonsense' must be one of "),
        (["_template"], "figure = '_template' must be one of "),
        (["overview", "--record"], "leave NAME out"),
        (["overview", "--check", "--out", "x"], "not allowed with"),
        (["overview", "--out", "/dev/null/x"], "must be writable"),
    ],
)
def test_one_sentence_for_bad_input(arguments, words, capsys):
    assert main(["figures", *arguments]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert len(err.splitlines()) == 1
    assert out == ""


def test_a_missing_result_is_named(monkeypatch, tmp_path, capsys):
    real = gallery.folder
    monkeypatch.setattr(gallery, "folder", lambda name: tmp_path if name == "simulations" else real(name))
    assert main(["figures", "overview", "--check"]) == 2
    assert "simulations/results/figures/published_bounds.json cannot be read" in capsys.readouterr().err


def test_a_rule_that_the_style_does_not_know_has_a_look_of_its_own():
    from resonance_theory._style import LOOK, MARKERS, NAMES

    known = [(look["color"], str(look["linestyle"])) for look in LOOK.values()]
    new = [(LOOK[rule]["color"], str(LOOK[rule]["linestyle"])) for rule in ("lottery", "random_keep")]
    assert len({*new, *known}) == len(known) + 2
    assert MARKERS["lottery"] not in MARKERS.values()
    assert NAMES["random_keep"] == "random keep"
    assert "lottery" not in LOOK  # asking leaves no trace: a figure's loop over the rules it draws stays as it is
