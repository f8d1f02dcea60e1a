"""The study of affinity mass along evolving tokens: its stored record against the laws of today."""

import json

import pytest

from resonance_theory.montecarlo import study as study_module
from resonance_theory.montecarlo.study import settings_of
from resonance_theory.verification import stats
from simulations import adaptive_evolution as study


def test_the_stored_record_agrees_with_the_laws_of_today():
    """The record of `resonance simulate adaptive_evolution --full --record`, judged afresh from its counts alone."""
    cases = study.cases(settings_of("adaptive_evolution", full=True))
    path = study_module.folder("simulations") / "results" / "adaptive_evolution.jsonl"
    summary, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert summary["provenance"]["command"] == "resonance simulate adaptive_evolution --full --seed 0 --record"
    laws = {(case.label, key): law for case in cases for key, law in case.laws.items()}
    assert {(row["case"], row["key"]) for row in rows} == set(laws)
    alpha = stats.ALPHA / len(rows)
    for row in rows:
        law = laws[row["case"], row["key"]]
        assert row["law"] == pytest.approx(law, rel=1e-6)
        assert row["trials"] == 40_000
        assert stats.equal(row["successes"], row["trials"], law, alpha).holds
    counts = {(row["case"], row["key"]): (row["successes"], row["trials"]) for row in rows}
    assert len(summary["mutants_rejected"]) == 3
    for mutant in summary["mutants_rejected"]:
        assert any(
            stats.equal(*counts[case.label, key], wrong, alpha).fails
            for case in cases
            for key, wrong in case.mutants[mutant].items()
        )
    # on an isotropic background what is kept does not change with the time
    still = {law for (label, key), law in laws.items() if label.startswith("isotropic") and key == "background kept"}
    assert max(still) - min(still) < 1e-9
