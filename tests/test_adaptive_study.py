"""The study of affinity mass along evolving tokens: its stored record against the laws of today."""

from resonance_theory.evidence.studies.study import settings_of
from simulations import adaptive_evolution as study
from tests import records


def test_the_stored_record_agrees_with_the_laws_of_today():
    cases = study.cases(settings_of("adaptive_evolution", full=True))
    rows, mutants = records.judged("adaptive_evolution", cases, rel=1e-6)
    assert all(row["trials"] == 40_000 for row in rows)
    assert len(mutants) == 3
    # on an isotropic background what is kept does not change with the time
    still = [row["law"] for row in rows if row["case"].startswith("isotropic") and row["key"] == "background kept"]
    assert max(still) - min(still) < 1e-9
