"""The study of homogenization: its stored record, its counts by hand, and its power against a broken router."""

import math

import numpy as np
import pytest

from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies.study import run_study, settings_of
from simulations import homogenization as study
from tests import records


@pytest.fixture(scope="module")
def cases():
    return study.cases(settings_of("homogenization", full=True))


def test_the_stored_record_agrees_with_the_laws_of_today(cases):
    rows, mutants = records.judged("homogenization", cases)
    assert all(row["trials"] >= 2_000_000 for row in rows)
    assert len(mutants) == 6


def test_laws_meet_the_closed_forms(cases):
    """Keeping everything, both rules give the simplex of H1; a pair at one expert gives B/(E R)²/n of H2."""
    for case in cases:
        p = case.parameters
        if "capacities" not in p:
            continue
        s, d, n = p["tokens"], p["dim"], p["experts"]
        radius = math.sqrt(2) * math.gamma((d + 1) / 2) / math.gamma(d / 2)
        winner = {2: 1 / math.sqrt(math.pi), 4: 1.0293753730, 8: 1.42360030604528}[n] / radius
        scale = min(1.0, 8 / math.sqrt(d))
        assert case.laws[f"token choice C={s} winning"] == pytest.approx((1 + winner / scale) / 2, abs=1e-9)
        assert case.laws[f"resonance C={s} winning"] == pytest.approx((1 + winner / scale) / 2, abs=1e-9)
        assert case.laws[f"token choice C={s} losing"] == pytest.approx((1 - winner / (n - 1) / scale) / 2, abs=1e-9)
        if "pair" in case.laws:
            assert case.laws["pair"] == pytest.approx((1 + winner**2 * n / (n - 1) / n) / 2, abs=1e-9)


def test_the_sampler_sees_what_the_rules_keep(monkeypatch):
    """Every value that is tossed, against the definition token by token with no router; the coin is replaced by a sum."""
    s, d, n, trials = 6, 6, 3, 30
    tossed = {"values": []}
    monkeypatch.setattr(study, "coin", lambda rng, value: tossed["values"].append(value.copy()) or 0)
    parameters = {"sampler": "vectors", "tokens": s, "dim": d, "experts": n, "capacities": [1, 2]}
    study.routed(np.random.default_rng(4), trials, **parameters)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((trials, s, d))
    position = rng.integers(s, size=trials)
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    scores = unit.reshape(trials, s, n, d // n).sum(axis=-1) / math.sqrt(d // n)
    scale, token_choice, resonance, losing = min(1.0, 8 / math.sqrt(d)), [], [], []
    for c in (1, 2):
        for k, a in zip(position, scores):
            expert = int(a[k].argmax())
            rivals = [t for t in range(s) if a[t].argmax() == expert and t != k]
            first = sum(t < k for t in rivals) < c
            best = sum(a[t, expert] > a[k, expert] for t in rivals) < c
            token_choice.append(a[k, expert] / scale if first else 0.0)
            resonance.append(a[k, expert] / scale if best else 0.0)
            losing.append({0.0} if not first else {v / scale for j, v in enumerate(a[k]) if j != expert})
    seen = tossed["values"]  # winning and losing of token choice, winning of resonance, for each capacity; the pairs
    assert np.concatenate([seen[0], seen[3]]) == pytest.approx(token_choice)
    assert np.concatenate([seen[2], seen[5]]) == pytest.approx(resonance)
    for value, allowed in zip(np.concatenate([seen[1], seen[4]]), losing):
        assert min(abs(value - v) for v in allowed) < 1e-12
    same = scores[:, 0].argmax(axis=-1) == scores[:, 1].argmax(axis=-1)
    assert seen[6] == pytest.approx(np.where(same, (unit[:, 0] * unit[:, 1]).sum(axis=-1), 0.0))


SMALL = {
    "blocks": 4,
    "block_size": 20_000,
    "grid": [{"tokens": 8, "dim": 2, "experts": 2, "capacities": [1, 4], "samplers": ["vectors"]}],
    "scale": [{"dim": 2, "experts": 2, "kept": [1.0, 0.1]}],
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: SMALL)


def test_a_small_run_passes_and_rejects_every_wrong_law(small):
    result = run_study("homogenization", seed=3, progress=None)
    assert result.passed
    assert len(result.rows) == 7 + 4
    assert len(result.mutants) == 6


def test_tokens_of_another_law_are_found(small, monkeypatch):
    """A common mean towards the first gate unbalances the experts and moves every cosine."""
    original = study.samplers.isotropic

    def shifted(*arguments):
        x = original(*arguments)
        x[..., 0] += 0.5
        return x

    monkeypatch.setattr(study.samplers, "isotropic", shifted)
    rows = run_study("homogenization", seed=3, progress=None).rows
    assert "VIOLATED" in {row["verdict"] for row in rows if row["case"].endswith("vectors")}
    assert {row["verdict"] for row in rows if row["case"].endswith("scale")} == {"SUPPORTED"}


def test_a_router_that_keeps_the_worst_is_found(small, monkeypatch):
    route = study.resonance.route
    monkeypatch.setattr(study.resonance, "route", lambda scores, capacity: route(worst_first(scores), capacity))
    rows = run_study("homogenization", seed=3, progress=None).rows
    assert {row["key"].split()[0] for row in rows if row["verdict"] == "VIOLATED"} == {"resonance"}


def worst_first(scores):
    """The same winners, with the order of the winning affinities reversed."""
    top = scores.max(axis=-1, keepdims=True)
    return np.where(scores == top, 3 - top, -5.0)
