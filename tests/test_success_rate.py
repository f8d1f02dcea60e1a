"""The study of success rates: its router, its laws and its power; and the frame that runs any study."""

import json
import os
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resonance_theory import cli
from resonance_theory.evidence import statistics
from resonance_theory.evidence.sampling import generator
from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies.study import Case, StudyResult, run_study, settings_of, studies
from resonance_theory.gates import affinity
from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.tokens.samplers import planted, planted_affinity
from simulations import _template, success_rate
from tests import records


def drawn(seed, sampler, trials, s, d, n, signal):
    rng = np.random.default_rng(seed)
    if sampler == "projections":
        return planted_affinity(rng, trials, s, d, n, signal)
    batch = planted(rng, trials, s, d, n, signal)
    return batch._replace(values=affinity(batch.values, n))


@given(
    seed=st.integers(0, 2**32),
    sampler=st.sampled_from(["vectors", "projections"]),
    s=st.integers(1, 12),
    n=st.integers(1, 4),
    width=st.integers(1, 3),
    signal=st.floats(0, 4),
    top=st.integers(1, 2),
)
def test_the_sampler_counts_what_the_router_keeps(seed, sampler, s, n, width, signal, top):
    """One routing at the largest capacity says the same as routing at each capacity on its own."""
    top, d, trials, capacities = min(top, n), n * width, 7, list(range(1, s + 1))
    counts = success_rate.sample(
        np.random.default_rng(seed), trials, sampler=sampler, tokens=s, dim=d, experts=n, signal=signal,
        capacities=capacities, top=top,
    )  # fmt: skip
    scores, position, expert = drawn(seed, sampler, trials, s, d, n, signal)
    for capacity in capacities:
        kept = {
            "token_choice": token_choice.route(scores, capacity, top=top).contains(position, expert),
            "expert_choice": expert_choice.route(scores, capacity).contains(position, expert),
            "resonance": resonance.route(scores, capacity, top=top).contains(position, expert),
        }
        assert {rule: counts[f"{rule} C={capacity}"] for rule in kept} == {r: int(k.sum()) for r, k in kept.items()}


def test_success_by_hand():
    """A sampler's counts against the definition, token by token, with no router at all."""
    s, n, d, trials = 6, 3, 6, 40
    parameters = {"sampler": "vectors", "tokens": s, "dim": d, "experts": n, "signal": 1.5}
    counts = success_rate.sample(np.random.default_rng(3), trials, capacities=[1, 2, 3], **parameters)
    batch = planted(np.random.default_rng(3), trials, s, d, n, 1.5)
    expected = dict.fromkeys(counts, 0)
    for x, k, i in zip(batch.values, batch.position, batch.expert):
        scores = x.reshape(s, n, d // n).mean(axis=2) / np.linalg.norm(x, axis=1, keepdims=True)
        candidates = [t for t in range(s) if np.argmax(scores[t]) == i]
        before = sum(t < k for t in candidates)
        better = [t for t in range(s) if scores[t, i] > scores[k, i]]
        for c in (1, 2, 3):
            expected[f"token_choice C={c}"] += k in candidates and before < c
            expected[f"expert_choice C={c}"] += len(better) < c
            expected[f"resonance C={c}"] += k in candidates and len(set(better) & set(candidates)) < c
    assert counts == expected
    assert len(set(counts.values())) > 5


def test_chunks_draw_the_same_number_of_trials(monkeypatch):
    settings = {"tokens": 5, "dim": 4, "experts": 2, "signal": 1.0, "capacities": [5], "samplers": ["vectors"]}
    (case,) = success_rate.cases({"grid": [settings]})
    monkeypatch.setattr(success_rate, "_CHUNK", 60)  # three samples at a time
    counts = case.sampler(generator(0, "x", 0), 100, **case.parameters)
    assert counts["expert_choice C=5"] == 100  # at C = s nothing is ever dropped
    assert counts["token_choice C=5"] == counts["resonance C=5"] < 100


@pytest.fixture(scope="module")
def cases():
    return success_rate.cases(settings_of("success_rate", full=True))


def test_the_stored_record_agrees_with_the_laws_of_today(cases):
    records.judged("success_rate", cases)


def test_every_law_is_a_probability_and_every_mutant_differs(cases):
    assert len({case.label for case in cases}) == len(cases)
    samplers = {case.parameters["sampler"] for case in cases}
    assert samplers == {"vectors", "projections"}
    for case in cases:
        assert all(0 <= law <= 1 for law in case.laws.values())
        for rule in ("token_choice", "expert_choice", "resonance"):
            rates = [case.laws[f"{rule} C={c}"] for c in case.parameters["capacities"]]
            assert all(a < b for a, b in pairwise(rates))
    for mutant in cases[0].mutants:
        assert any(abs(wrong - case.laws[key]) > 0.05 for case in cases for key, wrong in case.mutants[mutant].items())


# --- the frame of a study ---------------------------------------------------------------------------------------------

GRID = [
    {"tokens": 8, "dim": 4, "experts": 2, "signal": 1.0, "capacities": [1, 4], "samplers": ["projections", "vectors"]},
    {"tokens": 32, "dim": 32, "experts": 4, "signal": 3.0, "capacities": [3], "samplers": ["projections"]},
]


@pytest.fixture
def small(monkeypatch):
    settings = {"blocks": 6, "block_size": 5000, "grid": GRID}
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: settings)
    return settings


def test_the_study_passes_and_rejects_every_wrong_law(small):
    result = run_study("success_rate", seed=11, progress=None)
    assert result.passed
    assert len(result.rows) == 2 * 6 + 3
    assert set(result.mutants.values()) == {True}
    assert len(result.mutants) == 5
    for row in result.rows:
        assert row["low"] <= row["law"] <= row["high"]
        assert row["trials"] == 30_000
        assert 0 < row["detectable"] < 0.05
        # the suite's budget, shared by the fifteen rates
        limits = statistics.clopper_pearson(row["successes"], row["trials"], 1e-6 / 15)
        assert [row["low"], row["high"]] == pytest.approx([float(v) for v in limits], rel=1e-12)
    table = result.table()
    assert "15 of 15 rates agree with their law; passed" in table
    assert table.count("rejected") == 5


@pytest.mark.parametrize("rule", ["token_choice", "expert_choice", "resonance"])
def test_a_router_that_loses_a_slot_is_found(small, monkeypatch, rule):
    module = success_rate.RULES[rule]
    route = module.route
    monkeypatch.setattr(module, "route", lambda a, c, **top: without_first_slot(route(a, c, **top)))
    result = run_study("success_rate", seed=11, progress=None)
    violated = {row["key"].split()[0] for row in result.rows if row["verdict"] == "VIOLATED"}
    assert violated == {rule}
    assert not result.passed
    assert "FAILED" in result.table()


def without_first_slot(routed):
    """The same assignment, had each expert kept one token more before it began to count."""
    object.__setattr__(routed, "slot", routed.slot + 1)
    return routed


def test_a_sampler_with_a_weaker_signal_is_found(small, monkeypatch):
    original = success_rate.samplers.planted_affinity
    monkeypatch.setattr(
        success_rate.samplers,
        "planted_affinity",
        lambda rng, b, s, d, n, signal: original(rng, b, s, d, n, 0.8 * signal),
    )
    verdicts = {row["verdict"] for row in run_study("success_rate", seed=11, progress=None).rows}
    assert "VIOLATED" in verdicts


def test_resume_and_workers_give_the_same_rows(small, tmp_path):
    alone = run_study("success_rate", seed=5, progress=None)
    path = tmp_path / "store"
    small["blocks"] = 2
    run_study("success_rate", seed=5, store=path, progress=None)
    path.write_bytes(path.read_bytes()[:-20])  # as if killed in the middle of a line
    small["blocks"] = 6
    notices = StringIO()
    resumed = run_study("success_rate", seed=5, store=path, resume=True, workers=2, progress=notices)
    assert resumed.rows == alone.rows
    assert "bytes of an interrupted line were cut off" in notices.getvalue()
    assert "5 finished blocks are used\n" in notices.getvalue()
    notices = StringIO()
    other = run_study("success_rate", seed=6, store=path, resume=True, progress=notices)
    assert "0 finished blocks are used, 18 of other settings, seeds or code are left alone" in notices.getvalue()
    assert other.rows != alone.rows


def test_the_record_is_json_lines(small, tmp_path, monkeypatch):
    small["grid"] = GRID[1:]
    result = run_study("success_rate", seed=5, full=True, progress=None)
    path = tmp_path / "record.jsonl"
    path.write_text("an earlier record")
    result.write(path)
    summary, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert summary["passed"] is result.passed
    assert summary["provenance"]["command"] == "resonance simulate success_rate --full --seed 5 --record"
    assert summary["provenance"]["seed"] == 5
    assert set(summary["provenance"]) >= {"version", "packages", "commit", "python", "platform", "backend", "seconds"}
    assert [row["key"] for row in rows] == [row["key"] for row in result.rows]
    assert list(tmp_path.iterdir()) == [path]
    before = path.read_text()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        result.write(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == before


def fail(*_, **__):
    raise OSError("the disk is gone")


def test_a_failing_sampler_is_one_sentence_at_the_command_line(small, monkeypatch, capsys):
    monkeypatch.setattr(success_rate.samplers, "planted_affinity", fail)
    assert cli.main(["simulate", "success_rate"]) == 1
    err = capsys.readouterr().err.strip().splitlines()
    sentence = "resonance simulate: success_rate/s=8 n=2 d=4 θ=1 projections, block 0: OSError: the disk is gone"
    assert err == [sentence]


def coins(rng, trials):
    return {"heads": int(np.count_nonzero(rng.random(trials) < 0.5))}


def frame(monkeypatch, *cases, **settings):
    """Run the template as a study with these cases."""
    monkeypatch.setattr(study_module, "_files", lambda _: {"_template": Path(_template.__file__)})
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: {"blocks": 1, "block_size": 1000, **settings})
    monkeypatch.setattr(_template, "cases", lambda _: list(cases))
    return run_study("_template", progress=None)


def test_a_false_law_fails_and_a_blind_or_unarmed_study_does_not_pass(monkeypatch):
    mutant = {"loaded": {"heads": 0.9}}
    assert frame(monkeypatch, Case("coin", coins, {}, {"heads": 0.5}, mutant)).passed
    false = frame(monkeypatch, Case("coin", coins, {}, {"heads": 0.8}, mutant))
    assert [row["verdict"] for row in false.rows] == ["VIOLATED"]
    assert not false.passed
    near = frame(monkeypatch, Case("coin", coins, {}, {"heads": 0.5}, {"nearly fair": {"heads": 0.501}}))
    assert near.mutants == {"nearly fair": False}  # so few trials cannot tell: the study says so
    assert not near.passed
    assert "NOT REJECTED" in near.table()
    blind = frame(monkeypatch, Case("coin", coins, {}, {"heads": 0.5}, mutant), block_size=3)
    assert [row["verdict"] for row in blind.rows] == ["INCONCLUSIVE"]
    assert blind.to_json()["rows"][0]["detectable"] is None
    assert not blind.passed
    assert not frame(monkeypatch, Case("coin", coins, {}, {"heads": 0.5}, {})).passed
    assert not StudyResult("empty", [], {"m": True}, {}).passed


def test_errors_of_a_study_name_it(monkeypatch):
    one = Case("coin", coins, {}, {"heads": 0.5}, {})
    with pytest.raises(ValueError, match="two cases the same label"):
        frame(monkeypatch, one, one)
    with pytest.raises(ValueError, match="a law for 'tails' but its sampler counts heads"):
        frame(monkeypatch, Case("coin", coins, {}, {"tails": 0.5}, {}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "no_such"}, "study = 'no_such' must be one of .*success_rate"),
        ({"backend": "cupy"}, "backend = 'cupy' must be numpy for the study success_rate"),
        ({"resume": True}, "resume = True needs a store"),
        ({"store": "/dev/full", "resume": True}, "must be a regular file"),
        ({"store": "/no/such/folder/s"}, "cannot be written"),
        ({"seed": -1}, "seed = -1"),
        ({"workers": 0}, "workers = 0"),
    ],
)
def test_bad_arguments_of_a_study(small, change, words):
    small["grid"] = GRID[1:]
    with pytest.raises(ValueError, match=words):
        run_study(**{"name": "success_rate", "progress": None, **change})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[quick]\nblock_size = 10", r"blocks = None for \[quick\]"),
        ("[full]\nblocks = 1\nblock_size = 10", r"blocks = None for \[quick\]"),
        ("blocks = 1\n[quick]\nblock_size = 0", "block_size = 0"),
        ("blocks = 1.5\nblock_size = 10", "blocks = 1.5"),
        ("blocks =", "Invalid value"),
    ],
)
def test_bad_settings(monkeypatch, tmp_path, text, words):
    (tmp_path / "some.py").touch()
    (tmp_path / "some.toml").write_text(text)
    monkeypatch.setattr(study_module, "folder", lambda _: tmp_path)
    with pytest.raises(ValueError, match=words):
        settings_of("some", full=False)


def test_discovery_and_template(monkeypatch):
    assert "success_rate" in studies()
    assert "_template" not in studies()
    monkeypatch.setattr(study_module, "_files", lambda _: {"_template": Path(_template.__file__)})
    settings = {"blocks": 4, "block_size": 10_000, "sides": [6]}
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: settings)
    assert run_study("_template", progress=None).passed
