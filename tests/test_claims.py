"""Every claim of the ledger earns the verdict it states, and each of its checks rejects its mutant."""

import pytest

from resonance_theory.evidence import statistics
from resonance_theory.evidence.claims import ledger
from resonance_theory.evidence.claims.claim import Verdict


@pytest.mark.parametrize("claim_id", ledger.claim_ids())
def test_claim(claim_id):
    claim = ledger.load(claim_id)
    assert claim.title
    assert claim.statement
    assert claim.source
    if claim.expected is not Verdict.NOT_REPRODUCIBLE:
        assert claim.mutation, "say in words what the mutant changes"
    result = claim.evaluate(alpha=statistics.ALPHA / len(ledger.claim_ids()))
    assert result.passed, result.problem
    for check in result.checks:
        assert check.truth.evidence != check.mutant.evidence, f"{check.name} does not look at its side"
