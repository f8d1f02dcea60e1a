"""How a claim earns its verdict: every way to go wrong ends in red."""

import numpy as np
import pytest

from resonance_theory.evidence.claims import ledger
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import every, fails, holds, undecided


def biased(rng: np.random.Generator, trials: int, *, p: float) -> dict[str, int]:
    return {"heads": int(np.count_nonzero(rng.random(trials) < p))}


def make(expected=Verdict.PROVED, **changes):
    parts = {"truth": 0.3, "mutant": 0.31, "mutation": "a hundredth more", **changes}
    return Claim(title="t", statement="s", source="test", kind="equality", expected=expected, id="test", **parts)


def law(side, *, p):
    return {"heads": side}


def exact(side):
    return holds("equal") if side == 0.3 else fails("differs")


def verdict(claim, **options):
    return claim.evaluate(alpha=1e-6, **options)


def test_a_sound_claim_is_proved():
    claim = make()
    claim.derivation("d")(exact)
    claim.simulate(biased, cases=[{"p": 0.3}], law=law, trials=400_000)
    result = verdict(claim)
    assert result.verdict is Verdict.PROVED
    assert result.passed
    assert result.problem == ""
    (row,) = result.checks[1].rows
    assert row["low"] < 0.3 < row["high"] < 0.31
    assert row["detectable"] < 0.01


def test_simulation_alone_only_supports():
    claim = make(expected=Verdict.SUPPORTED)
    claim.simulate(biased, cases=[{"p": 0.3}], law=law, trials=400_000)
    assert verdict(claim).verdict is Verdict.SUPPORTED
    claim.expected = Verdict.PROVED
    assert not verdict(claim).passed


def test_a_false_law_is_violated():
    claim = make()
    claim.derivation("d")(exact)
    claim.simulate(biased, cases=[{"p": 0.32}], law=law, trials=400_000)
    result = verdict(claim)
    assert result.verdict is Verdict.VIOLATED
    assert not result.passed
    assert "Monte Carlo" in result.problem


def test_too_few_trials_are_inconclusive():
    claim = make()
    claim.derivation("d")(exact)
    claim.simulate(biased, cases=[{"p": 0.3}], law=law, trials=1_000)  # cannot tell .30 from .31
    result = verdict(claim)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "does not reject the mutant" in result.problem


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda side: holds("always"), Verdict.INCONCLUSIVE),  # toothless
        (lambda side: fails("never"), Verdict.VIOLATED),
        (lambda side: undecided("?"), Verdict.INCONCLUSIVE),
        (lambda side: holds("y") if side == 0.3 else undecided("?"), Verdict.INCONCLUSIVE),  # not a refutation
    ],
)
def test_bad_checks_are_never_green(check, expected):
    claim = make()
    claim.derivation("good")(exact)
    claim.certificate("bad")(check)
    result = verdict(claim)
    assert result.verdict is expected
    assert not result.passed
    assert "bad" in result.problem


def test_a_claim_without_checks_is_inconclusive():
    assert verdict(make()).verdict is Verdict.INCONCLUSIVE


def test_corrections_need_a_counterexample_that_spares_the_truth():
    def counter(side):
        return fails("the printed value") if side == 0.5 else holds("the true value")

    claim = make(expected=Verdict.CORRECTED, printed=0.5, correction="it is .3")
    claim.derivation("d")(exact)
    assert verdict(claim).verdict is Verdict.INCONCLUSIVE  # no counterexample shown
    claim.counterexample("c")(counter)
    assert verdict(claim).verdict is Verdict.CORRECTED
    claim.printed = 0.3  # nothing wrong with it
    assert verdict(claim).verdict is Verdict.INCONCLUSIVE


def test_not_reproducible_needs_a_reason():
    claim = make(expected=Verdict.NOT_REPRODUCIBLE)
    assert verdict(claim).verdict is Verdict.INCONCLUSIVE
    claim.reason = "the data are private"
    assert verdict(claim).passed
    claim.derivation("d")(exact)
    assert verdict(claim).passed
    claim.certificate("toothless")(lambda side: holds("always"))
    assert verdict(claim).verdict is Verdict.INCONCLUSIVE
    claim.certificate("false")(lambda side: fails("never"))
    assert verdict(claim).verdict is Verdict.VIOLATED


def test_rates_do_not_depend_on_workers_and_do_on_the_seed():
    claim = make(expected=Verdict.SUPPORTED)
    claim.simulate(biased, cases=[{"p": 0.3}], law=law, trials=400_000)
    rows = [verdict(claim, seed=seed).checks[0].rows[0]["estimate"] for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_every():
    assert every([holds("a"), holds("b")]).evidence == "a; b"
    assert every([holds("a"), undecided("b"), fails("c")]).fails
    assert not every([]).holds


def test_ledger_finds_claims_and_names_the_choices():
    ids = ledger.claim_ids()
    assert "exchangeability_identity" in ids
    assert not any(i.startswith("_") for i in ids)
    assert ledger.select("exchange*") == ["exchangeability_identity"]
    with pytest.raises(ValueError, match=r"matches no claim: .*`resonance claims` lists all"):
        ledger.select("no such claim")


def test_the_template_is_a_working_claim():
    assert ledger.load("_template").evaluate(alpha=1e-8).passed
