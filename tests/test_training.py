"""Training studies: the frame that pairs arms and judges differences, and the digits among digits."""

import importlib
import json

import numpy as np
import pytest
from scipy.special import stdtr

from resonance_theory import cli
from resonance_theory.evidence.sampling import generator
from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies import training
from resonance_theory.evidence.studies.running import Run
from resonance_theory.evidence.studies.study import run_study, settings_of, studies
from resonance_theory.evidence.studies.training import Arm, compare, interval, run_training
from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.tokens import planted
from simulations import (
    _template,
    digits_mosaics,
    digits_scaling,
    planted_training,
)

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

    def settings_of(name, *, full, device):
        asked.append((full, device))
        return {"blocks": 1, "block_size": 2, "level": 0.01}

    def arms(settings):
        return [Arm(settings.get("device", "here"), noisy, {"lift": 0}, PER)]

    monkeypatch.setattr(study_module, "studies", lambda: ["_template"])
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
    monkeypatch.setattr(study_module, "studies", lambda: ["_template"])
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


# --- digits among digits ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def needs_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install 'resonance-theory[training]'")
    pytest.importorskip("torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'")


def test_images_of_the_test_are_never_trained_on(needs_digits):
    labels = digits_mosaics.digits()[1]
    training, test = digits_mosaics.split(np.random.default_rng(0), 0.3)
    everyone = np.concatenate([*training, *test])
    assert sorted(everyone) == list(range(len(labels)))
    for bearing, irrelevant in (training, test):
        assert (labels[bearing] < 5).all()
        assert (labels[irrelevant] >= 5).all()
    assert sum(map(len, test)) == pytest.approx(0.3 * len(labels), abs=1)


def test_a_mosaic_has_one_class_bearing_image_at_a_random_place(needs_digits):
    labels = digits_mosaics.digits()[1]
    pools = digits_mosaics.split(np.random.default_rng(0), 0.3)[0]
    images, place = digits_mosaics.mosaics(np.random.default_rng(1), pools, 1600, 16)
    bearing = labels[images] < 5
    assert (bearing.sum(axis=1) == 1).all()
    assert (bearing.argmax(axis=1) == place).all()
    assert np.bincount(place, minlength=16).min() > 50  # 100 each expected, standard deviation 10


@pytest.mark.parametrize("rule", ["token_choice", "random_keep", "expert_choice", "resonance"])
@pytest.mark.parametrize("capacity", [1, 3, 7])
def test_slots_hold_what_the_rule_says(rule, capacity):
    rng = np.random.default_rng(5)
    affinity = rng.normal(size=(40, 7, 3)).astype(np.float32)
    token, used = digits_mosaics.keep(affinity, rule, capacity, np.random.default_rng(6))
    for a, slots, full in zip(affinity, token, used):
        for i in range(3):
            mine = [t for t in range(7) if a[t].argmax() == i]
            kept = slots[i][full[i]].tolist()
            assert len(set(kept)) == len(kept) == (capacity if rule == "expert_choice" else min(len(mine), capacity))
            if rule == "token_choice":
                assert kept == mine[:capacity]
            elif rule == "random_keep":
                assert set(kept) <= set(mine)
            else:
                pool = range(7) if rule == "expert_choice" else mine
                assert kept == sorted(pool, key=lambda t: -a[t, i])[:capacity]


@pytest.mark.parametrize("rule", ["token_choice", "random_keep", "resonance"])
def test_slots_of_two_experts_a_token(rule):
    rng = np.random.default_rng(5)
    affinity = rng.normal(size=(40, 7, 3)).astype(np.float32)
    token, used = digits_mosaics.keep(affinity, rule, 2, np.random.default_rng(6), top=2)
    for a, slots, full in zip(affinity, token, used):
        for i in range(3):
            mine = [t for t in range(7) if sum(a[t] > a[t, i]) < 2]
            kept = slots[i][full[i]].tolist()
            assert len(set(kept)) == len(kept) == min(len(mine), 2)
            assert set(kept) <= set(mine)
            if rule != "random_keep":
                assert kept == (mine if rule == "token_choice" else sorted(mine, key=lambda t: -a[t, i]))[:2]


def test_fewer_images_are_some_of_the_training_images(needs_digits):
    every, some = (digits_mosaics.Mosaics(np.random.default_rng(0), 2, 16, 0.3, share) for share in (1.0, 0.1))
    for run in range(2):
        for full, part in zip(every.pools["training"][run], some.pools["training"][run]):
            assert set(part) < set(full)
            assert len(part) == round(0.1 * len(full))
        assert all((a == b).all() for a, b in zip(every.pools["test"][run], some.pools["test"][run]))
        pool = np.concatenate(some.pools["training"][run])
        assert some.mean[run] == pytest.approx(digits_mosaics.digits()[0][pool].mean(axis=0))
    x, digit, place, label = some.draw("training", 9)
    assert x.shape == (2, 9, 16, 64)
    assert (np.take_along_axis(digit, place[..., None], -1)[..., 0] == label).all()
    assert ((digit < 5).sum(axis=-1) == 1).all()


def test_random_keep_prefers_neither_place_nor_affinity():
    affinity = np.zeros((6000, 4, 1), dtype=np.float32) + np.arange(4, dtype=np.float32)[:, None]
    token, _ = digits_mosaics.keep(affinity, "random_keep", 1, np.random.default_rng(7))
    assert np.abs(np.bincount(token.ravel(), minlength=4) - 1500).max() < 200  # six standard deviations


@pytest.mark.parametrize("rule", ["token_choice", "expert_choice"])
def test_the_network_by_hand(needs_digits, rule):
    """Logits token by token, expert by expert, run by run: no run sees another's weights or mosaics."""
    import torch

    rng = np.random.default_rng(8)
    runs, count, patches, pixels, experts, hidden, capacity, scale = 2, 3, 5, 6, 2, 4, 2, 3.0
    shapes = [(pixels, experts), (experts, pixels, hidden), (experts, 1, hidden), (experts, hidden, 5), (1, 5)]
    network = [rng.normal(size=(runs, *shape)).astype(np.float32) for shape in shapes]
    x = rng.normal(size=(runs, count, patches, pixels)).astype(np.float32)
    tensors = [torch.from_numpy(w) for w in network]
    found = digits_mosaics.forward(tensors, torch.from_numpy(x), rule, capacity, scale, rng)[0].numpy()
    gates, first, bias, second, offset = network
    for r in range(runs):
        for b in range(count):
            tokens = x[r, b]
            norms = np.linalg.norm(tokens, axis=1)[:, None] * np.linalg.norm(gates[r], axis=0)
            affinity = tokens @ gates[r] / norms
            token, used = digits_mosaics.keep(affinity[None], rule, capacity, rng)
            logits = offset[r, 0].copy()
            for i in range(experts):
                for t in token[0, i][used[0, i]]:
                    inside = np.maximum(tokens[t] @ first[r, i] + bias[r, i, 0], 0)
                    logits += inside @ second[r, i] / (1 + np.exp(-scale * affinity[t, i]))
            assert found[r, b] == pytest.approx(logits, abs=1e-4)


@pytest.fixture(scope="module")
def tiny():
    change = {"steps": 3, "batch": 8, "test_mosaics": 50, "capacities": [2], "hidden": 8}
    return settings_of("digits_mosaics", full=False) | change


def test_counts_of_a_short_training(needs_digits, tiny):
    for arm in digits_mosaics.arms(tiny):
        counts = arm.train(generator(0, "t", 0), 2, **arm.parameters)
        assert counts == arm.train(generator(0, "t", 0), 2, **arm.parameters)
        for run in range(2):
            processed, label = counts[f"processed/{run}"], counts[f"label processed/{run}"]
            if arm.parameters["experts"] == 1:
                assert (processed, label) == (16 * 50, 50)  # the dense network processes everything
            elif arm.parameters["rule"] == "expert_choice":
                assert processed == 4 * 2 * 50
            else:
                assert 2 * 50 <= processed <= 4 * 2 * 50
            assert 0 <= counts[f"accuracy/{run}"] <= 50
            assert 0 <= label <= 50


def test_counts_of_short_trainings_of_other_shapes(needs_digits):
    change = {"steps": 2, "batch": 4, "test_mosaics": 40, "hidden": 8}
    for arm in digits_scaling.arms(settings_of("digits_scaling", full=True) | change):
        p = arm.parameters
        counts = arm.train(generator(0, "t", 0), 2, **p)
        assert counts == arm.train(generator(0, "t", 0), 2, **p)
        for run in range(2):
            processed = counts[f"processed/{run}"] / 40
            if p["experts"] == 1:
                assert processed == p["patches"]
                assert p["hidden"] == 4 * 8
            elif p["rule"] == "expert_choice":
                assert processed == 4 * p["capacity"]
            else:
                assert p["capacity"] <= processed <= min(4 * p["capacity"], p.get("top", 1) * p["patches"])


def test_training_lowers_what_it_should(needs_digits, tiny):
    """Not a score: forty steps leave fewer errors than none, over both runs of the dense network."""
    arm = digits_mosaics.arms(tiny)[-1]
    change = {"test_mosaics": 400, "batch": 32}
    before, after = (
        sum(arm.train(generator(0, "t", 0), 2, **(arm.parameters | change | {"steps": steps}))[f"accuracy/{r}"] for r in (0, 1))
        for steps in (1, 60)
    )  # fmt: skip
    assert after > before + 80


def test_dense_baselines_match_the_parameters_or_the_operations():
    settings = settings_of("digits_mosaics", full=True)
    arms = {arm.label: arm.parameters for arm in digits_mosaics.arms(settings)}
    n, hidden = settings["experts"], settings["hidden"]
    assert arms["dense, all parameters"]["hidden"] == n * hidden
    for c in settings["capacities"]:
        narrow = arms[f"dense, operations of C={c}"]
        assert narrow["hidden"] * settings["patches"] == n * c * hidden  # hidden units computed for one mosaic
    for mode in (False, True):  # a typing error in the TOML is found here, not after the runs
        labels = [arm.label for arm in digits_mosaics.arms(settings_of("digits_mosaics", full=mode))]
        assert all(row[side] in labels for row in settings["comparisons"] for side in ("first", "second"))


def test_the_study_is_found_and_runs(needs_digits, tiny, monkeypatch):
    assert "digits_mosaics" in studies()
    labels = ["resonance C=2", "dense, all parameters"]
    some = [
        row for row in tiny["comparisons"] if {row["first"], row["second"]} == {"resonance C=2", "token_choice C=2"}
    ]
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: tiny | {"blocks": 1, "comparisons": some})
    result = run_study("digits_mosaics", progress=None)
    assert {"torch", "scikit-learn"} <= set(result.provenance)
    assert set(labels) < {row.get("arm") for row in result.rows}
    assert result.rows[-1]["verdict"] in ("SUPPORTED", "INCONCLUSIVE", "VIOLATED")


# --- a planted token in training --------------------------------------------------------------------------------------


def test_planted_samples_have_the_moments_they_should():
    x, place, label = planted_training.draw(np.random.default_rng(0), 4000, 6, 5, 3, 2.0, 0.4)
    assert x.dtype == np.float32
    rows, columns = np.arange(4000), np.arange(5)
    token = x[rows, place]
    assert token.mean(axis=0) == pytest.approx(2.0 * np.bincount(label, minlength=5) / 4000, abs=0.12)
    assert token[rows, label].mean() == pytest.approx(2.0, abs=0.1)
    one, two = x[rows, (place + 1) % 6], x[rows, (place + 3) % 6]
    assert (one * two).mean(axis=0) == pytest.approx([0.4] * 5, abs=0.1)  # within a sample
    assert (one**2).mean(axis=0) == pytest.approx([1.0] * 5, abs=0.12)
    noise = token - 2.0 * (columns == label[:, None])
    assert (noise * one).mean(axis=0) == pytest.approx([0.0] * 5, abs=0.1)  # the planted token shares nothing


def test_single_token_measurements_by_hand():
    rng = np.random.default_rng(1)
    samples, tokens, experts, capacity = 12, 5, 2, 2
    affinity, place = rng.normal(size=(samples, tokens, experts)), rng.integers(0, tokens, samples)
    label = np.arange(samples) % experts
    found = planted_training.predict(affinity, place, label, capacity)
    background = [affinity[b, t] for b in range(samples) for t in range(tokens) if t != place[b]]
    rate = {"hit": [], "q": [], "h": [], "expert_choice law": [], "resonance law": []}
    for b in range(samples):
        i, a = label[b], affinity[b, place[b], label[b]]
        hit = a == affinity[b, place[b]].max()
        q = sum(r[i] >= a for r in background) / len(background)
        h = sum(r[i] >= a and r[i] == r.max() for r in background) / len(background)
        few = [(1 - u) ** 4 + 4 * u * (1 - u) ** 3 for u in (q, h)]  # at most one of four other tokens is ahead
        for key, value in zip(rate, (hit, q, h, few[0], hit * few[1])):
            rate[key].append(value)
    assert {key: found[key] for key in rate} == pytest.approx({key: np.mean(v) for key, v in rate.items()}, rel=1e-9)


def test_routers_by_hand():
    rng = np.random.default_rng(2)
    affinity, place, label = rng.normal(size=(200, 6, 2)), rng.integers(0, 6, 200), rng.integers(0, 2, 200)
    found = planted_training.routed(affinity, place, label, 2)
    kept = dict.fromkeys(found, 0)
    for a, k, i in zip(affinity, place, label):
        mine = [t for t in range(6) if a[t].argmax() == i]
        kept["token_choice"] += k in mine[:2]
        kept["expert_choice"] += sum(a[:, i] > a[k, i]) < 2
        kept["resonance"] += k in mine and sum(a[t, i] > a[k, i] for t in mine) < 2
    assert found == pytest.approx({rule: n / 200 for rule, n in kept.items()})
    assert len(set(kept.values())) == 3


def test_true_gates_give_the_planted_laws():
    """With the class directions as gates, this is the planted isotropic model, whose laws are known without samples."""
    s, d, n, c, signal, samples = 24, 16, 4, 3, 2.5, 6000
    law = planted.planted(signal, d, n)
    exact = {
        "token_choice": token_choice.success(s, n, c, hit=float(law.weight @ law.hit)),
        "expert_choice": expert_choice.success(s, c, false_positive=law.false_positive, weight=law.weight),
        "resonance": resonance.success(s, c, hit=law.hit, candidate_tail=law.candidate_tail, weight=law.weight),
    }
    gates, rng, five_sigma = np.eye(d, n, dtype=np.float32), np.random.default_rng(3), 2.5 / np.sqrt(samples)

    def measured(function, shared):
        x, place, label = planted_training.draw(rng, samples, s, d, n, signal, shared)
        return function(planted_training.cosine(x, gates), place, label, c)

    laws = measured(planted_training.predict, 0.0)
    rates = measured(planted_training.routed, 0.0)
    dependent = measured(planted_training.routed, 0.5)
    for rule, rate in exact.items():
        assert laws[f"{rule} law"] == pytest.approx(rate, abs=five_sigma)
        assert rates[rule] == pytest.approx(rate, abs=five_sigma)
    assert abs(laws["expert_choice scalar"] - exact["expert_choice"]) > five_sigma
    assert dependent["token_choice"] > exact["token_choice"] + five_sigma  # counts beyond binomial (N11)


def test_counts_of_a_short_planted_training():
    pytest.importorskip("torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'")
    change = {"steps": [2], "samples": 60, "tokens": 8, "capacity": 2, "batch": 4}
    for arm in planted_training.arms(settings_of("planted_training", full=False) | change):
        counts = arm.train(generator(0, "t", 0), 2, **arm.parameters)
        assert counts == arm.train(generator(0, "t", 0), 2, **arm.parameters)
        assert all(0 <= count <= arm.per for count in counts.values())
        untrained = arm.train(generator(0, "t", 0), 2, **(arm.parameters | {"steps": 0}))
        assert untrained.keys() == counts.keys()
        assert untrained != counts
        for run in range(2):
            assert counts[f"h/{run}"] <= counts[f"q/{run}"]


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
    assert summary["provenance"]["command"] == f"resonance simulate {name} --full --seed 0 --record"
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
