"""How a claim earns its verdict: every way to go wrong ends in red."""

import re
import signal
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import proofs
from proofs import _template
from resonance_theory.evidence.claims import ledger, limits
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import every, fails, holds, undecided
from resonance_theory.evidence.pages import report
from resonance_theory.evidence.project import find


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


def raising(side):
    raise OSError("the table is gone")


def fewer(rng, trials):
    return {}


def test_a_check_that_raises_is_an_error_and_the_others_go_on():
    claim = make()
    claim.derivation("bad")(raising)
    claim.certificate("no outcome")(lambda side: True)
    claim.reference("only on the mutant")(lambda side: holds("y") if side == 0.3 else raising(side))
    claim.derivation("good")(exact)
    claim.simulate(fewer, cases=[{}], law=lambda side: {"heads": side}, name="keys")
    claim.simulate(biased, cases=[{"p": 0.3}], law=raising, name="law")
    claim.simulate(biased, cases=[{"p": 0.3}], law=law, trials=400_000, name="sound")
    result = verdict(claim)
    _, none, mutant, good, keys, wrong, sound = result.to_json()["checks"]
    assert result.verdict is Verdict.ERROR
    assert not result.passed
    assert re.fullmatch(r"bad: OSError: the table is gone \(test_claim_framework\.py:\d+ in raising\)", result.problem)
    assert "a check returned True but must return an Outcome" in none["truth"]["evidence"]
    assert [mutant[side]["status"] for side in ("truth", "mutant")] == ["holds", "error"]
    assert "keys, {}: the law has heads but the sampler counts" in keys["truth"]["evidence"]
    assert wrong["truth"]["status"] == "error"
    assert good["passed"]
    assert sound["passed"]
    claim.certificate("false")(lambda side: fails("never"))
    assert verdict(claim).verdict is Verdict.VIOLATED  # what is shown to be false outweighs what broke


TOPIC = {
    "good": "from tests.test_claim_framework import make, exact\nclaim = make()\nclaim.derivation('d')(exact)\n",
    "raises": "from tests.test_claim_framework import make, raising\nclaim = make()\nclaim.derivation('bad')(raising)\n",
    "leaves": "from tests.test_claim_framework import make\nclaim = make()\nclaim.derivation('bad')(exit)\n",
    "syntax": "claim = (\n",
    "text": "claim = 'a text'\n",
    "helpers": "x = 1\n",
}


@pytest.fixture
def topic(tmp_path, monkeypatch):
    """A folder of proofs with claims good and bad, in place of the checkout's."""
    folder = tmp_path / "proofs" / "odd_topic"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    for name, text in TOPIC.items():
        (folder / f"{name}.py").write_text(text)
    (folder.parent / "__init__.py").write_text("")
    monkeypatch.setattr(ledger, "folder", lambda name: tmp_path / name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(proofs, "__path__", [*proofs.__path__, str(tmp_path / "proofs")])
    yield folder
    for name in [name for name in sys.modules if name.startswith("proofs.odd_topic")]:
        del sys.modules[name]


def test_one_bad_file_or_claim_never_ends_a_run(topic, tmp_path):
    assert ledger.strays() == ["odd_topic/helpers.py"]
    with pytest.warns(UserWarning, match=r"proofs/odd_topic/helpers\.py defines no claim"):
        book = ledger.verify(ledger.claim_ids())
    said = {r["id"]: (r["verdict"], r["problem"]) for r in book.results}
    assert not book.passed
    assert said.keys() == TOPIC.keys() - {"helpers"}
    assert said["good"] == ("PROVED", "")
    assert all(verdict == "ERROR" for id, (verdict, _) in said.items() if id != "good")
    assert re.fullmatch(r"bad: OSError: .* \(test_claim_framework\.py:\d+ in raising\)", said["raises"][1])
    assert said["leaves"][1].startswith("bad: SystemExit")
    assert said["syntax"][1].startswith("loading the file: SyntaxError")
    assert "must define claim = Claim(...)" in said["text"][1]
    root = ElementTree.fromstring(report._junit({"claims": book.results}))
    suites = {suite.get("name"): suite for suite in root}
    assert (suites["raises"].get("errors"), suites["raises"].get("failures")) == ("2", "0")
    assert "the table is gone" in suites["raises"].find(".//error").get("message")
    assert suites["good"].find(".//error") is None


def test_a_package_that_is_missing_is_told_as_such(topic):
    """A package that every claim needs ends the run with a hint; one that a claim alone imports is its own error."""
    (topic / "good.py").write_text("import no_such_package\nclaim = 1\n")
    with pytest.warns(UserWarning, match="helpers"):
        (result,) = ledger.verify(["good"]).results
    assert result["problem"].startswith("loading the file: ModuleNotFoundError: No module named 'no_such_package'")
    (topic / "raises.py").write_text("import flint.fmpq_nothing\nclaim = 1\n")
    with pytest.raises(ModuleNotFoundError, match="flint"), pytest.warns(UserWarning, match="helpers"):
        ledger.verify(["raises"])


def test_claims_do_not_run_under_torchrun(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="WORLD_SIZE = 2 must be 1 or unset"):
        ledger.verify([])


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
    assert _template.claim.evaluate(alpha=1e-8).passed


# --- time, and processes that die -----------------------------------------------------------------------------------

DYING = {
    "good": TOPIC["good"],
    "endless": """
from tests.test_claim_framework import make, exact
claim = make()
claim.derivation("good")(exact)
@claim.certificate("endless")
def loop(side):
    while True:
        try:
            sum(range(1000))
        except Exception:
            pass
""",
    "deaf": """
import itertools
from tests.test_claim_framework import make
claim = make()
@claim.derivation("compiled code that does not return")
def deaf(side):
    sum(itertools.repeat(1))  # endless, and no signal is noticed
""",
    "dies": """
import os
from tests.test_claim_framework import make
claim = make()
@claim.derivation("dies")
def die(side):
    os._exit(3)
""",
}


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.long)])
def test_checks_that_hang_or_kill_their_process_are_errors_of_their_claims_alone(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, text in DYING.items():
        (tmp_path / f"{name}.py").write_text(text)
    project, places, _ = find([str(tmp_path)], "claims")
    monkeypatch.setattr(limits, "_GRACE", 1.0)
    ids = ledger.select("", project, places)
    book = ledger.verify(ids, project=project, workers=workers, timeout=2, apart=True)
    said = {r["id"]: (r["verdict"], r["problem"]) for r in book.results}
    assert said["good"] == ("PROVED", "")
    assert said.keys() == DYING.keys()
    assert all(verdict == "ERROR" for name, (verdict, _) in said.items() if name != "good")
    assert re.fullmatch(r"endless: TimedOut: not finished after 2 s \(endless\.py:\d+ in loop\)", said["endless"][1])
    assert re.search(r"its process died .*\(deaf\.py:7 in deaf\)", said["deaf"][1])
    assert said["dies"][1].endswith("or out of time)")
    (endless,) = (r for r in book.results if r["id"] == "endless")
    assert [check["passed"] for check in endless["checks"]] == [True, False]


def hang(seconds):
    with limits.Limit(seconds).soft():
        while True:
            pass


def test_a_limit_leaves_everything_as_it_was():
    before = signal.getsignal(signal.SIGALRM)
    with limits.Limit(60).soft():
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    with limits.Limit(60).soft(), pytest.raises(limits.TimedOut, match=r"after 0\.01 s"):
        hang(0.01)
    assert signal.getsignal(signal.SIGALRM) is before
