"""Stored records of studies, judged afresh."""

import json

import pytest

from resonance_theory.evidence import statistics
from resonance_theory.evidence.studies import study


def judged(name, cases, *, rel=1e-9):
    """(rows, mutant laws) of `resonance simulate NAME --full --record`, judged from its counts alone by today's laws:
    every rate agrees with its own, and every mutant fails somewhere."""
    path = study.folder("simulations") / "results" / f"{name}.jsonl"
    summary, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert summary["provenance"]["command"] == f"resonance simulate {name} --full --seed 0 --record"
    laws = {(case.label, key): law for case in cases for key, law in case.laws.items()}
    assert {(row["case"], row["key"]) for row in rows} == set(laws)
    alpha = statistics.ALPHA / len(rows)
    for row in rows:
        law = laws[row["case"], row["key"]]
        assert row["law"] == pytest.approx(law, rel=rel)
        assert statistics.equal(row["successes"], row["trials"], law, alpha).holds
    counts = {(row["case"], row["key"]): (row["successes"], row["trials"]) for row in rows}
    for mutant in summary["mutants_rejected"]:
        assert any(
            statistics.equal(*counts[case.label, key], wrong, alpha).fails
            for case in cases
            for key, wrong in case.mutants.get(mutant, {}).items()
        )
    return rows, summary["mutants_rejected"]
