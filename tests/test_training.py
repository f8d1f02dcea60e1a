"""Training studies: the frame that pairs arms and judges differences, and every stored record judged afresh."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import stdtr

from resonance_theory import cli
from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies import training
from resonance_theory.evidence.studies.running import Run
from resonance_theory.evidence.studies.study import run_study, settings_of, studies
from resonance_theory.evidence.studies.training import Arm, compare, interval, run_training
from simulations import _template

# --- the frame --------------------------------------------------------------------------------------------------------

PER = 1000


def noisy(rng, runs, *, lift):
    """Runs that differ much from seed to seed, and between arms by the lift alone."""
    return {f"score/{run}": int(rng.integers(0, 500)) + lift for run in range(runs)}


def rows(expect=None, margin=0.05, **change):
    row = {"metric": "score", "first": "high", "second": "low", **change}
    return [row | ({"expect": expect, "margin": margin} if expect else {})]


def frame(comparisons, *, lift=100, **options):
    settings = {"blocks": 3, "block_size": 2, "level": 0.01, "comparisons": comparisons, **options.pop("settings", {})}
    arms = [Arm("low", noisy, {"lift": 0}, PER), Arm("high", noisy, {"lift": lift}, PER)]
    return run_training("some", arms, settings, Run("c", **options))


def test_arms_draw_the_same_numbers_so_differences_are_exact():
    result = frame(rows("more"), lift=100)
    low, high, difference = result.rows
    assert difference["difference"] == pytest.approx(0.1, abs=1e-12)
    assert difference["high"] - difference["low"] < 1e-9
    assert difference["verdict"] == "SUPPORTED"
    assert result.passed
    scores = low["metrics"]["score"]["runs"]
    assert len(set(scores)) == 6  # but every run draws its own
    assert high["metrics"]["score"]["runs"] == pytest.approx([v + 0.1 for v in scores])
    assert frame(rows("more"), seed=1).rows[0]["metrics"]["score"]["runs"] != scores


def test_a_false_expectation_fails_and_none_at_all_does_not_pass():
    assert frame(rows("more"), lift=40).rows[-1]["verdict"] == "VIOLATED"
    assert not frame(rows("more"), lift=40).passed
    assert frame(rows("more"), lift=40).table().endswith("0 of 1 expectations supported, 1 violated: FAILED")
    assert not frame(rows("equal"), lift=60).passed
    assert frame(rows("equal"), lift=40).passed
    assert frame(rows("equal"), lift=40).table().endswith("1 of 1 expectations supported: passed")
    measured = frame(rows())
    assert measured.rows[-1]["verdict"] == "MEASURED"
    assert not measured.passed
    assert measured.table().endswith("measured: no expectation to pass or fail")


def test_a_table_of_many_metrics_shows_the_comparisons_alone(monkeypatch):
    result = frame(rows("more"))
    narrow = result.table().splitlines()
    monkeypatch.setattr(training, "WIDEST", 0)
    assert result.table().splitlines() == narrow[narrow.index("") + 1 :]


def test_nothing_is_claimed_where_a_premise_is_not_supported():
    def judged(lift, **settings):
        return frame(rows("more") + rows(), lift=lift, settings=settings)

    premise = rows("more", margin=0.2)
    met = judged(300, premises=premise)
    assert met.passed
    assert [row["verdict"] for row in met.rows[2:]] == ["SUPPORTED", "MEASURED", "SUPPORTED"]
    missed = judged(100, premises=premise)
    assert [row["verdict"] for row in missed.rows[2:]] == ["NO CLAIM", "MEASURED", "VIOLATED"]
    assert missed.rows[2]["low"] == judged(100).rows[2]["low"]  # what was measured stands
    assert not missed.passed
    assert "smoke test: no claim (high is not shown to have more score than low)" in missed.table()
    small = judged(300, smoke=True)
    assert small.rows[2]["verdict"] == "NO CLAIM"
    assert "no claim" in small.provenance
    assert not frame(rows(), lift=300, settings={"premises": premise}).passed  # premises alone claim nothing
    with pytest.raises(ValueError, match="premise without expect"):
        judged(300, premises=rows())


def uneven(rng, runs, *, lift):
    return {f"{metric}/{run}": lift for run in range(runs) for metric in ("score", *(["more"] if lift else []))}


def test_columns_name_the_metrics_of_the_table():
    pair = [Arm("a", uneven, {"lift": 0}, PER), Arm("b", uneven, {"lift": 500}, PER)]
    settings = {"blocks": 2, "block_size": 1, "level": 0.01, "columns": ["more"]}
    table = run_training("some", pair, settings, Run("c")).table()
    assert table.splitlines()[:3] == ["arm  more", "a", "b    0.5000 [0.5000, 0.5000]"]


def test_a_device_brings_its_sizes_and_its_name_to_the_arms(monkeypatch):
    asked = []

    def settings_of(name, *, full, device, project):
        asked.append((full, device))
        return {"blocks": 1, "block_size": 2, "level": 0.01}

    def arms(settings):
        return [Arm(settings.get("device", "here"), noisy, {"lift": 0}, PER)]

    monkeypatch.setattr(study_module, "_files", lambda _: {"_template": Path(_template.__file__)})
    monkeypatch.setattr(study_module, "settings_of", settings_of)
    monkeypatch.setattr(_template, "arms", arms, raising=False)
    with pytest.raises(ValueError, match="device = 'cuda' must be 'cpu'"):
        run_study("_template", device="cuda", progress=None)
    monkeypatch.setattr(_template, "DEVICES", ("cpu", "cuda"), raising=False)
    result = run_study("_template", full=True, device="cuda", progress=None)
    assert asked == [(True, "cuda")]
    assert result.rows[0]["arm"] == "cuda"
    assert result.provenance["command"] == "resonance simulate _template --full --device cuda --seed 0 --record"
    assert run_study("_template", progress=None).rows[0]["arm"] == "here"


@pytest.mark.parametrize(
    ("center", "expect", "verdict"),
    [
        (0.2, "more", "SUPPORTED"),
        (0.05, "more", "INCONCLUSIVE"),
        (-0.1, "more", "VIOLATED"),
        (0.0, "equal", "SUPPORTED"),
        (0.05, "equal", "INCONCLUSIVE"),
        (0.2, "equal", "VIOLATED"),
        (-0.2, "equal", "VIOLATED"),
    ],
)
def test_verdicts(center, expect, verdict):
    spread = np.linspace(-0.03, 0.03, 9)
    base = np.linspace(0, 1, 9)
    found = compare(base + center + spread, base, 0.01, expect, 0.05)
    assert found["verdict"] == verdict
    assert found["difference"] == pytest.approx(center)
    assert found["low"] < center < found["high"] < found["low"] + 0.1


def half(rng, runs):
    score = [2 * int(rng.integers(0, 500)) for _ in range(runs)]
    return {f"{name}/{run}": v // by for name, by in (("whole", 1), ("half", 2)) for run, v in enumerate(score)}


def test_two_metrics_of_one_arm_are_compared():
    row = {"first": "a", "second": "a", "metric": "whole", "against": "half"}
    settings = {"blocks": 1, "block_size": 4, "level": 0.01, "comparisons": [row]}
    result = run_training("some", [Arm("a", half, {}, PER)], settings, Run("c"))
    assert result.rows[-1]["difference"] == pytest.approx(np.mean(result.rows[0]["metrics"]["half"]["runs"]))
    assert "whole - half" in result.table()


def test_a_published_number_is_compared_with_the_mean():
    values = np.array([0.80, 0.81, 0.79, 0.805, 0.795])
    row = {"metric": "score", "first": "high", "published": 0.5}

    def found(published, expect):
        verdict = frame([row | {"published": published, "expect": expect, "margin": 0.5}])
        return verdict.rows[-1]["verdict"]

    mean = np.mean(frame([row]).rows[1]["metrics"]["score"]["runs"])
    measured = frame([row])
    assert measured.rows[-1]["difference"] == pytest.approx(mean - 0.5)
    assert measured.rows[-1]["verdict"] == "MEASURED"
    assert "high - 0.5 (published)" in measured.table()
    assert found(float(mean), "equal") == "SUPPORTED"
    assert found(float(mean) + 2, "equal") == "VIOLATED"
    assert found(float(mean) - 2, "more") == "SUPPORTED"
    assert compare(values, 0.8, 0.01, "equal", 0.05)["verdict"] == "SUPPORTED"
    assert compare(values, 0.9, 0.01, "equal", 0.05)["verdict"] == "VIOLATED"
    limits = compare(values, 0.7, 0.01, None, 0.0)
    assert (limits["low"] + 0.7, limits["high"] + 0.7) == pytest.approx(interval(values, 0.01))


def test_the_interval_is_students():
    values = np.array([0.3, 0.1, 0.4, 0.15, 0.92, 0.65])
    low, high = interval(values, 0.02)
    assert low + high == pytest.approx(2 * values.mean())
    t = (high - values.mean()) / (np.sqrt(((values - values.mean()) ** 2).sum() / 5) / np.sqrt(6))
    assert stdtr(5, t) == pytest.approx(0.99)


def test_intervals_miss_as_seldom_as_they_say():
    rng = np.random.default_rng(2)
    limits = [interval(rng.normal(0.5, 0.1, 5), 0.1) for _ in range(4000)]
    missed = sum(not low < 0.5 < high for low, high in limits)
    assert 300 < missed < 500  # 400 expected, standard deviation 19


def test_the_level_is_shared_by_the_comparisons():
    def width(count):
        pair = [Arm("a", apart, {"sign": 1}, PER), Arm("b", apart, {"sign": -1}, PER)]
        row = {"metric": "score", "first": "a", "second": "b"}
        settings = {"blocks": 3, "block_size": 2, "level": 0.01, "comparisons": [row] * count}
        last = run_training("some", pair, settings, Run("c")).rows[-1]
        return last["high"] - last["low"]

    assert width(10) > 1.5 * width(1) > 0


def apart(rng, runs, *, sign):
    return {f"score/{run}": 500 + sign * int(rng.integers(0, 100)) for run in range(runs)}


def test_resume_and_workers_give_the_same_rows(tmp_path):
    alone = frame(rows("more"))
    path = tmp_path / "store"
    frame(rows("more"), store=path, settings={"blocks": 2})
    path.write_bytes(path.read_bytes()[:-20])  # as if killed in the middle of a line
    resumed = frame(rows("more"), store=path, resume=True, workers=2)
    assert resumed.rows == alone.rows
    text = path.read_text()
    assert text.count('"block": 0') == 6
    assert frame(rows("more"), store=path, resume=True).rows == alone.rows
    assert path.read_text() == text  # nothing was trained again


@pytest.mark.parametrize(
    ("comparisons", "settings", "words"),
    [
        (rows(first="other"), {}, "compares 'other' but its arms are low, high"),
        (rows(published=0.5), {}, "needs either second or published"),
        ([{"metric": "score", "first": "high"}], {}, "needs either second or published"),
        (
            [{"metric": "score", "first": "high", "published": "half"}],
            {},
            "published = 'half' but needs a finite number",
        ),
        ([{"metric": "score", "first": "other", "published": 0.5}], {}, "compares 'other' but its arms are low, high"),
        (rows(metric="speed"), {}, "metric 'speed' but its runs measure score"),
        (rows("less"), {}, "expect = 'less'"),
        (rows("more", -1.0), {}, r"margin = -1\.0"),
        (rows(expect="more"), {"level": 1.0}, r"level = 1\.0"),
        (rows(), {"level": None}, "level = None"),
        (rows(), {"blocks": 1, "block_size": 1}, "has 1 run of each arm"),
    ],
)
def test_bad_settings_are_named(comparisons, settings, words):
    with pytest.raises(ValueError, match=words):
        frame(comparisons, settings=settings)


def test_arms_of_one_label_and_absent_packages_are_refused():
    arms = [Arm("a", noisy, {"lift": 0}, PER)] * 2
    settings = {"blocks": 1, "block_size": 2, "level": 0.01}
    with pytest.raises(ValueError, match="two arms the same label"):
        run_training("some", arms, settings, Run("c"))
    with pytest.raises(ModuleNotFoundError, match="no-such-package"):
        run_training("some", arms[:1], settings, Run("c"), ["no-such-package"])


def test_the_command_runs_a_study_that_defines_arms(monkeypatch, capsys, tmp_path):
    settings = {"blocks": 1, "block_size": 3, "level": 0.01, "comparisons": rows("more")}
    monkeypatch.setattr(study_module, "_files", lambda _: {"_template": Path(_template.__file__)})
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: settings)
    arms = [Arm("low", noisy, {"lift": 0}, PER), Arm("high", noisy, {"lift": 100}, PER)]
    monkeypatch.setattr(_template, "arms", lambda _: arms, raising=False)
    file = tmp_path / "record.json"
    assert cli.main(["simulate", "_template", "--seed", "4", "--json", str(file)]) == 0
    assert "3 runs of each arm; 1 of 1 expectations supported: passed" in capsys.readouterr().out
    record = json.loads(file.read_text())
    assert record["provenance"]["command"] == "resonance simulate _template --seed 4 --record"
    settings["comparisons"] = rows("equal")
    assert cli.main(["simulate", "_template"]) == 1


# --- stored records ---------------------------------------------------------------------------------------------------


def trainings():
    """Studies of trainings, found as the command finds them."""
    modules = {name: importlib.import_module(f"simulations.{name}") for name in studies()}
    return [name for name, module in modules.items() if hasattr(module, "arms")]


@pytest.mark.parametrize("name", trainings())
def test_the_stored_record_is_what_its_runs_say(name):
    """Intervals and verdicts of the record of `--full`, computed afresh from its runs under the settings of today."""
    module = importlib.import_module(f"simulations.{name}")
    path = study_module.folder("simulations") / "results" / f"{name}.jsonl"
    summary, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    settings = settings_of(name, full=True)
    # seed 0, or another one where settings were fixed after a look at seed 0; the file of settings says so
    assert re.fullmatch(rf"resonance simulate {name} --full --seed \d+ --record", summary["provenance"]["command"])
    arms = {row["arm"]: row for row in rows if "arm" in row}
    expected = module.arms(settings)
    assert {label: row["parameters"] for label, row in arms.items()} == {a.label: a.parameters for a in expected}
    runs = settings["blocks"] * settings["block_size"]
    assert all(len(m["runs"]) == runs for row in arms.values() for m in row["metrics"].values())
    found = [row for row in rows if "arm" not in row]
    premises = [{**row, "premise": True} for row in settings.get("premises", [])]
    wanted = [*settings["comparisons"], *premises]
    silent = any(row["verdict"] != "SUPPORTED" for row in found if "premise" in row)
    for row, fixed in zip(found, wanted, strict=True):
        first = np.array(arms[fixed["first"]]["metrics"][fixed["metric"]]["runs"])
        second = fixed.get("published")
        if second is None:
            second = np.array(arms[fixed["second"]]["metrics"][fixed.get("against", fixed["metric"])]["runs"])
        again = compare(first, second, settings["level"] / len(wanted), fixed.get("expect"), fixed.get("margin", 0.0))
        verdict = again.pop("verdict")
        assert {key: row[key] for key in fixed} == fixed
        assert row["verdict"] == ("NO CLAIM" if silent and "expect" in fixed and "premise" not in fixed else verdict)
        assert {key: row[key] for key in again} == pytest.approx(again, rel=1e-9)
