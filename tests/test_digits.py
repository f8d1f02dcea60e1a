"""Digits among digits: mosaics, dispatch by rule, the network by hand, and the two studies of them in small."""

import numpy as np
import pytest

from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies.study import run_study, settings_of, studies
from simulations import _digits, digits_mosaics, digits_scaling
from simulations._rules import WITH_RANDOM, dispatch
from tests.trainings import train


@pytest.fixture(scope="module")
def needs_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install 'resonance-theory[training]'")
    pytest.importorskip("torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'")


def test_images_of_the_test_are_never_trained_on(needs_digits):
    labels = _digits.digits()[1]
    training, test = _digits.split(np.random.default_rng(0), 0.3)
    everyone = np.concatenate([*training, *test])
    assert sorted(everyone) == list(range(len(labels)))
    for bearing, irrelevant in (training, test):
        assert (labels[bearing] < 5).all()
        assert (labels[irrelevant] >= 5).all()
    assert sum(map(len, test)) == pytest.approx(0.3 * len(labels), abs=1)


def test_a_mosaic_has_one_class_bearing_image_at_a_random_place(needs_digits):
    labels = _digits.digits()[1]
    pools = _digits.split(np.random.default_rng(0), 0.3)[0]
    images, place = _digits.mosaics(np.random.default_rng(1), pools, 1600, 16)
    bearing = labels[images] < 5
    assert (bearing.sum(axis=1) == 1).all()
    assert (bearing.argmax(axis=1) == place).all()
    assert np.bincount(place, minlength=16).min() > 50  # 100 each expected, standard deviation 10


@pytest.mark.parametrize("rule", WITH_RANDOM)
@pytest.mark.parametrize("capacity", [1, 3, 7])
def test_slots_hold_what_the_rule_says(rule, capacity):
    rng = np.random.default_rng(5)
    affinity = rng.normal(size=(40, 7, 3)).astype(np.float32)
    token, used = dispatch(affinity, rule, capacity, np.random.default_rng(6))
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
    token, used = dispatch(affinity, rule, 2, np.random.default_rng(6), top=2)
    for a, slots, full in zip(affinity, token, used):
        for i in range(3):
            mine = [t for t in range(7) if sum(a[t] > a[t, i]) < 2]
            kept = slots[i][full[i]].tolist()
            assert len(set(kept)) == len(kept) == min(len(mine), 2)
            assert set(kept) <= set(mine)
            if rule != "random_keep":
                assert kept == (mine if rule == "token_choice" else sorted(mine, key=lambda t: -a[t, i]))[:2]


def test_fewer_images_are_some_of_the_training_images(needs_digits):
    every, some = (_digits.Mosaics(np.random.default_rng(0), 2, 16, 0.3, share) for share in (1.0, 0.1))
    for run in range(2):
        for full, part in zip(every.pools["training"][run], some.pools["training"][run]):
            assert set(part) < set(full)
            assert len(part) == round(0.1 * len(full))
        assert all((a == b).all() for a, b in zip(every.pools["test"][run], some.pools["test"][run]))
        pool = np.concatenate(some.pools["training"][run])
        assert some.mean[run] == pytest.approx(_digits.digits()[0][pool].mean(axis=0))
    x, digit, place, label = some.draw("training", 9)
    assert x.shape == (2, 9, 16, 64)
    assert (np.take_along_axis(digit, place[..., None], -1)[..., 0] == label).all()
    assert ((digit < 5).sum(axis=-1) == 1).all()


def test_random_keep_prefers_neither_place_nor_affinity():
    affinity = np.zeros((6000, 4, 1), dtype=np.float32) + np.arange(4, dtype=np.float32)[:, None]
    token, _ = dispatch(affinity, "random_keep", 1, np.random.default_rng(7))
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
    found = _digits.forward(tensors, torch.from_numpy(x), rule, capacity, scale, rng)[0].numpy()
    gates, first, bias, second, offset = network
    for r in range(runs):
        for b in range(count):
            tokens = x[r, b]
            norms = np.linalg.norm(tokens, axis=1)[:, None] * np.linalg.norm(gates[r], axis=0)
            affinity = tokens @ gates[r] / norms
            token, used = dispatch(affinity[None], rule, capacity, rng)
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
        counts = train(arm)
        assert counts == train(arm)
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
        counts = train(arm)
        assert counts == train(arm)
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
        sum(train(arm, **change, steps=steps)[f"accuracy/{r}"] for r in (0, 1))
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


@pytest.mark.parametrize("full", [False, True])
def test_the_arms_of_the_scaling_are_those_of_its_comparisons(full):
    scaling = settings_of("digits_scaling", full=full)
    labels = [arm.label for arm in digits_scaling.arms(scaling)]
    assert len(set(labels)) == len(labels)
    assert all(row[side] in labels for row in scaling["comparisons"] for side in ("first", "second"))


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
