"""Step time: every component against its own plain arithmetic, limits, the stored table, and bad input."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from resonance_theory import step_time as st
from resonance_theory.evidence.claims.ledger import folder


def plain(factor, shape, hardware):
    """Components of a step of the default model in plain Python, micro-batch by micro-batch and layer by layer."""
    slots = 8 * math.ceil(factor * 32768 / 8)
    link = 56e9 if shape.tensor * 2 <= 8 else 25e9
    flops = 313e12 * hardware.efficiency * shape.tensor
    parts = dict.fromkeys(("affinity", "selection", "all_to_all", "expert", "other"), 0.0)
    for _ in range(128 // shape.data + shape.pipeline - 1):
        for _ in range(32 // shape.pipeline):
            parts["affinity"] += 2 * 32768 * 4096 * 2 / (1.6e12 * shape.tensor)
            parts["selection"] += 4 * slots * 4096 * 2 / (1.6e12 * shape.tensor)
            parts["all_to_all"] += 4 * (hardware.latency + slots * 4096 * 2 / shape.tensor / 2 / link)
            parts["expert"] += 3 * 2 * 3 * 4096 * 14336 * slots / flops
            attention = 2 * 4096 * (4096 + 1024 + 1024 + 4096) * 32768 + 4 * 32768**2 * 4096 / 2
            parts["other"] += 3 * attention / flops
    return parts


@pytest.mark.parametrize("devices", st.SHAPES)
@pytest.mark.parametrize("factor", [1.1, 0.66, 0.1])
def test_components(devices, factor):
    shape, hardware = st.SHAPES[devices], replace(st.Hardware(), efficiency=0.3, latency=1e-3)
    time = st.step_time(factor, shape, hardware=hardware)
    expected = plain(factor, shape, hardware)
    for name, seconds in expected.items():
        assert getattr(time, name) == pytest.approx(seconds, rel=1e-12), name
    assert time.total == pytest.approx(sum(expected.values()), rel=1e-12)
    moved = sum(expected[name] for name in ("selection", "all_to_all", "expert"))
    assert time.capacity_share == pytest.approx(moved / sum(expected.values()), rel=1e-12)
    assert shape.devices == devices


def test_padding_is_the_empty_slots():
    # at factor 1.1 hardly a token is dropped, so one slot in eleven is empty
    time = st.step_time(np.array([1.1, 0.5]), st.SHAPES[64])
    ratio = time.padding / (time.expert + time.all_to_all)
    assert ratio == pytest.approx([1 - 4096 / 4506, 0], abs=1e-12)


def test_broadcasting_and_options():
    factors = np.linspace(0.1, 1.5, 6).reshape(2, 3)
    time = st.step_time(factors, st.SHAPES[32])
    assert time.total.shape == time.affinity.shape == (2, 3)
    assert np.all(np.diff(time.total.ravel()) > 0)
    hidden = st.step_time(factors, st.SHAPES[32], hardware=st.Hardware(overlap=1.0))
    assert np.all(hidden.all_to_all == 0)
    fixed = st.step_time(factors, st.SHAPES[32], hardware=st.Hardware(fixed=7.0))
    assert fixed.total - time.total == pytest.approx(7.0)
    alone = st.step_time(1.1, st.Shape(4, 4, 2, 1))
    assert alone.all_to_all == 0
    both = st.step_time(1.1, st.SHAPES[32], model=st.Model(top=2))
    assert both.expert / st.step_time(1.1, st.SHAPES[32]).expert == pytest.approx(2, rel=1e-3)


def test_requirements_invert_the_limit():
    share, cut = np.array([0.2, 0.5, 0.9]), np.array([0.4, 0.6, 1.0])
    saving = st.largest_reduction(share, cut)
    assert st.required_share(saving, cut) == pytest.approx(share)
    assert st.required_cut(saving, share) == pytest.approx(cut)
    assert st.required_share(0.466, 0.4) > 1  # no share is enough


def test_stored_table_is_the_one_that_the_code_writes():
    path = folder("simulations") / "results" / "step_time.csv"
    with path.open(newline="") as file:
        stored = list(csv.DictReader(file))
    fresh = st.sensitivity()
    assert len(stored) == len(fresh) == 90
    for old, new in zip(stored, fresh):
        assert list(old) == list(new)
        for name, value in new.items():
            assert float(old[name]) == pytest.approx(value, rel=1e-6, abs=1e-8), name
    first = [row for row in fresh if row["capacity_factor"] == 1.1]
    assert all(row["reduction"] == 0 for row in first)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: st.step_time(0.0, st.SHAPES[32]), "capacity_factor = 0.0"),
        (lambda: st.Shape(4, 0, 2), "pipeline = 0"),
        (lambda: st.Shape(4, 4, 2, 4), "expert = 4 must be a whole number between 1 and data = 2"),
        (lambda: st.Model(top=9), "top = 9 must be a whole number between 1 and experts = 8"),
        (lambda: st.Model(dim=0), "dim = 0"),
        (lambda: st.Hardware(efficiency=1.5), "efficiency = 1.5"),
        (lambda: st.Hardware(between=0.0), "between = 0.0"),
        (lambda: st.Hardware(overlap=-0.1), "overlap = -0.1"),
        (lambda: st.required_share(0.4, 0.0), "cut = 0.0"),
        (lambda: st.required_cut(1.4, 0.5), "reduction = 1.4"),
        (lambda: st.largest_reduction(0.5, 2.0), "cut = 2.0"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
