"""Two ledgers compared: every way to lose ground is seen, what merely changed fails nothing, chance moves no estimate."""

import copy
import json
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from resonance_theory.cli import main
from resonance_theory.evidence import statistics
from resonance_theory.evidence.claims import ledger
from resonance_theory.evidence.claims.compare import GROWN, compare, equal_rates, moved_between
from resonance_theory.evidence.claims.record import record_of

ID = "capacity_law_token_choice"


@pytest.fixture(scope="module")
def stored():
    return record_of(ledger.verify([ID, "exchangeability_identity"]), 10.0)


@pytest.fixture
def new(stored):
    return copy.deepcopy(stored)


def claim_of(record):
    return next(claim for claim in record["claims"] if claim["id"] == ID)


def rows_of(record):
    return next(check["rows"] for check in claim_of(record)["checks"] if check["rows"])


def test_a_record_lost_nothing_against_itself(stored):
    same = compare(stored, stored)
    assert not same.changes
    assert same.claims == 2
    assert same.rates == sum(len(check["rows"]) for claim in stored["claims"] for check in claim["checks"]) > 0
    assert 0 < same.hidden < 0.1


def recount(row, successes, trials):
    row.update(statistics.row(row["key"], successes, trials, row["law"], 1e-8))


def moved(record):
    row = rows_of(record)[0]
    shift = row["trials"] // 8
    up = row["successes"] + shift <= row["trials"]
    recount(row, row["successes"] + (shift if up else -shift), row["trials"])


def fewer(record):
    row = rows_of(record)[0]
    recount(row, row["successes"] // 4, row["trials"] // 4)


LOSSES = {
    "verdict": lambda r: claim_of(r).update(verdict="SUPPORTED", expected="SUPPORTED"),
    "verdict ": lambda r: claim_of(r).update(verdict="REFUTED", expected="REFUTED"),
    "verdict  ": lambda r: claim_of(r).update(verdict="ERROR", passed=False),
    "verdict   ": lambda r: claim_of(r).update(expected="CORRECTED", passed=False),
    "claim": lambda r: r["claims"].remove(claim_of(r)),
    "check": lambda r: claim_of(r)["checks"].pop(0),
    "check ": lambda r: claim_of(r)["checks"][0].update(passed=False),
    "rate": lambda r: rows_of(r).pop(),
    "estimate of": moved,
    "detectable error of": fewer,
}


@pytest.mark.parametrize("what", LOSSES)
def test_every_loss_is_seen(stored, new, what):
    LOSSES[what](new)
    found = compare(stored, new).lost
    assert [(change.claim, change.what.startswith(what.strip())) for change in found] == [(ID, True)]
    back = compare(new, stored).lost  # the other way nothing is lost, except that an estimate moves both ways
    assert bool(back) == (what == "estimate of" or claim_of_or_none(new) == "REFUTED")


def claim_of_or_none(record):
    return next((claim["verdict"] for claim in record["claims"] if claim["id"] == ID), None)


CHANGES = {
    "statement": lambda r: claim_of(r).update(statement="another"),
    "hypotheses": lambda r: claim_of(r).update(hypotheses=[*claim_of(r)["hypotheses"], "and more"]),
    "mutation": lambda r: claim_of(r).update(mutation="farther away"),
    "mutant of": lambda r: rows_of(r)[0].update(mutant=0.9999),
    "law of": lambda r: rows_of(r)[0].update(law=rows_of(r)[0]["law"] + 1e-6),
    "time": lambda r: claim_of(r).update(seconds=claim_of(r)["seconds"] * 3 + 11),
    "size of the run": lambda r: r.update(full=True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_is_told_and_fails_nothing(stored, new, what):
    CHANGES[what](new)
    (change,) = compare(stored, new).changes
    assert change.effect == "changed"
    assert change.what.startswith(what)


def test_power_may_shrink_by_a_little(stored, new):
    for row in rows_of(new):
        row["detectable"] *= 1 + 0.9 * (GROWN - 1)
    assert not compare(stored, new).changes


# --- two counts -------------------------------------------------------------------------------------------------------


def exact_p(k, n, k2, n2):
    """Fisher's two tails by whole numbers."""
    total, ways = k + k2, comb(n + n2, k + k2)
    terms = {i: comb(n, i) * comb(n2, total - i) for i in range(max(0, total - n2), min(n, total) + 1)}
    lower = sum(v for i, v in terms.items() if i <= k)
    upper = sum(v for i, v in terms.items() if i >= k)
    return float(min(Fraction(1), Fraction(2 * min(lower, upper), ways)))


@pytest.mark.parametrize(("n", "n2"), [(1, 1), (3, 5), (40, 1000), (1000, 30), (2000, 2000)])
def test_fisher_against_whole_numbers(n, n2):
    rng = np.random.default_rng(5)
    for k, k2 in [(0, 0), (n, n2), (0, n2), (n, 0), *zip(rng.integers(0, n + 1, 30), rng.integers(0, n2 + 1, 30))]:
        true = exact_p(int(k), n, int(k2), n2)
        assert equal_rates(int(k), n, int(k2), n2) == pytest.approx(true, rel=1e-9, abs=1e-290)


def test_many_trials_are_exact_enough():
    """A single term of the tail, at a billion trials, against 50 digits."""
    mpmath = pytest.importorskip("mpmath")
    n = 10**9
    with mpmath.workdps(50):
        for k, k2 in ((0, 40), (3, 60)):

            def choose(top, take):
                return mpmath.binomial(top, take)

            total = k + k2
            tail = sum(choose(n, i) * choose(n, total - i) for i in range(k + 1)) / choose(2 * n, total)
            assert equal_rates(k, n, k2, n) == pytest.approx(float(2 * tail), rel=1e-6)


@pytest.mark.parametrize("p", [0.003, 0.3, 0.5])
def test_equal_rates_keeps_its_level_exactly(p):
    """The probability of p <= level, summed over all pairs of counts, is at most the level for every level."""
    from scipy.stats import binom

    n, n2 = 40, 25
    mass = np.outer(binom.pmf(np.arange(n + 1), n, p), binom.pmf(np.arange(n2 + 1), n2, p))
    values = np.array([[equal_rates(k, n, k2, n2) for k2 in range(n2 + 1)] for k in range(n + 1)])
    for level in (0.2, 0.05, 1e-3, 1e-6):
        assert mass[values <= level].sum() <= level * (1 + 1e-9)
    limits = np.array([[moved_between(k, n, k2, n2, 0.05) for k2 in range(n2 + 1)] for k in range(n + 1)])
    missed = (limits[..., 0] > 0) | (limits[..., 1] < 0)
    assert mass[missed].sum() <= 0.05
    # and it sees what is there
    other = np.outer(binom.pmf(np.arange(n + 1), n, p), binom.pmf(np.arange(n2 + 1), n2, min(1, p + 0.6)))
    assert other[values <= 0.05].sum() > 0.9


# --- the commands -----------------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(a) for a in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_compare_says_it_in_three_ways(capsys, tmp_path, stored, new):
    old_file, new_file = tmp_path / "old.json", tmp_path / "new.json"
    claim_of(new).update(verdict="SUPPORTED", statement="a | b <script> @all `x`")
    old_file.write_text(json.dumps(stored))
    new_file.write_text(json.dumps(new))
    status, out, _ = run(capsys, "compare", old_file, new_file, "--markdown", tmp_path / "m.md")
    assert status == 1
    assert f"lost     {ID}, verdict: PROVED -> SUPPORTED" in out
    text = (tmp_path / "m.md").read_text()
    assert f"❌ lost | {ID.replace('_', '&#95;')} | verdict | PROVED | SUPPORTED |" in text
    assert not set("@<`") & set(text)
    status, out, _ = run(capsys, "compare", old_file, new_file, "--json", "-")
    record = json.loads(out)
    assert (status, record["passed"]) == (1, False)
    assert run(capsys, "compare", old_file, old_file)[0] == 0
    assert run(capsys, "compare", old_file, tmp_path / "none.json")[0] == 2
    assert run(capsys, "compare", old_file, new_file, "--markdown", old_file)[0] == 2


def test_verify_against_a_baseline(capsys, tmp_path, stored):
    from resonance_theory.evidence.pages import report

    baseline = copy.deepcopy(stored)
    claim_of(baseline)["checks"].insert(0, {**claim_of(baseline)["checks"][0], "name": "one more check"})
    (tmp_path / "old.json").write_text(json.dumps(baseline))
    status, out, err = run(
        capsys,
        "verify",
        ID,
        "--baseline",
        tmp_path / "old.json",
        "--report",
        tmp_path / "r",
        "--json",
        tmp_path / "n.json",
    )
    assert status == 1, err
    assert "one more check -> gone" in out
    assert "exchangeability_identity" not in out  # of a part, only that part can be missed
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Since the baseline" in page
    assert "one more check" in page
    assert report.read(tmp_path / "n.json")["baseline"]["changes"][0]["effect"] == "lost"
    (tmp_path / "old.json").write_text(json.dumps(stored))
    assert run(capsys, "verify", ID, "--baseline", tmp_path / "old.json")[0] == 0
    assert run(capsys, "verify", ID, "--baseline", tmp_path / "gone.json")[0] == 2
