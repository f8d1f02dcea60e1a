"""Small changes of a claim's true side: what is changed, what counts as noticed, and the stored run."""

import json
import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import flint
import numpy as np
import pytest
import sympy as sp

from resonance_theory import cli
from resonance_theory.evidence.claims import certify, ledger, perturb
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import fails, holds

x = sp.symbols("x", real=True)
RECORD = Path(__file__).parents[1] / "simulations" / "results" / "perturbed.json"


def make(truth, mutant) -> Claim:
    return Claim("t", "s", "src", "equality", Verdict.PROVED, truth=truth, mutant=mutant, mutation="m", id="toy")


def verdict(claim: Claim) -> Verdict:
    return claim.evaluate(alpha=1e-6).verdict


def test_what_compares_nothing_proves_nothing():
    empty = make(sp.Integer(0), sp.Integer(1))

    @empty.derivation("0 against 0")
    def nothing(side):
        return certify.identity(x - x + side)

    assert verdict(empty) is Verdict.INCONCLUSIVE
    apart = make(sp.Integer(0), sp.Integer(1))
    apart.derivation("the same with two arguments")(lambda side: certify.identity(x - x, side))
    assert verdict(apart) is Verdict.INCONCLUSIVE
    honest = make(sp.Integer(2), sp.Integer(3))
    honest.derivation("a slope")(lambda side: certify.identity(sp.diff(x**2, x), side * x))
    assert verdict(honest) is Verdict.PROVED


def test_a_value_needs_a_function_of_its_symbols():
    assert certify.value(x**2 - x, {x: 1}, 0).holds
    assert certify.value(x**2 - x, {x: 2}, 0).fails
    assert certify.value(x + 3, {x: 2}, 5).holds
    constant = certify.value(sp.Integer(0), {x: 1}, 0)
    assert not constant.holds
    assert not constant.fails


def test_neighbours_reach_every_kind_of_number():
    side = SimpleNamespace(
        whole=3,
        real=0.5,
        exact=Fraction(1, 3),
        zero=sp.Integer(0),
        ball=flint.arb(2),
        count=sp.Symbol("n", integer=True),
        rate=sp.Symbol("p"),
        flag=True,
        table={"a": (1, 2.0)},
        text="not a number",
        function=lambda tokens, rate: 7 * tokens * rate,
    )
    found: dict[str, list[perturb.Neighbour]] = {}
    for neighbour in perturb.neighbours(side):
        found.setdefault(neighbour.where, []).append(neighbour)
    assert set(found) == {*vars(side), "table.a.0", "table.a.1"} - {"text", "table"}
    assert [n.side.whole for n in found["whole"]] == [2, 4]
    assert [n.side.real for n in found["real"]] == pytest.approx([0.4995, 0.5005, 0.4999995, 0.5000005], rel=1e-15)
    assert [n.side.exact * 3 for n in found["exact"]] == [1 - Fraction(1, 10**k) * s for k in (3, 6) for s in (1, -1)]
    assert [n.side.zero for n in found["zero"]] == [sp.Rational(s, 10**k) for k in (3, 6) for s in (-1, 1)]
    assert [n.side.flag for n in found["flag"]] == [False]
    assert [n.side.table["a"] for n in found["table.a.0"]] == [(0, 2.0), (2, 2.0)]
    values = {n.change + f" {n.direction}": n.side.function for n in found["function"]}
    assert values["7 in it by 1 1"](3, 0.5) == 12.0
    assert values["its result by 0.001 -1"](3, 0.5) == pytest.approx(10.5 * 0.999, rel=1e-15)
    assert values["its argument tokens by 1 1"](3, 0.5) == 14.0
    assert values["its argument tokens by 1 1"](np.array([3]), 0.5) == 14.0
    with pytest.raises(TypeError, match="no whole number"):
        values["its argument rate by 1 1"](3, 0.5)
    assert side.whole == 3  # the side itself stays
    assert side.function(3, 0.5) == 10.5


def test_a_number_without_teeth_survives_and_one_with_teeth_does_not():
    claim = make(SimpleNamespace(bound=0.25, idle=5.0, sharp=math.sqrt(2)), None)

    @claim.reference("a bound from one side, a value from both, and a part that nothing looks at")
    def check(side):
        wrong = side.bound < 0.25 or abs(side.sharp**2 - 2) > 1e-9
        return fails("off") if wrong else holds("fits")

    said = {(p.where, p.change): p for p in perturb.pairs(claim)}
    assert len(said) == 6
    for size in ("0.001", "1e-06"):
        by = f"by {size}"
        assert (said["bound", by].down, said["bound", by].up) == ("rejected", "passed")
        assert not said["bound", by].survives
        assert (said["sharp", by].down, said["sharp", by].up) == ("rejected", "rejected")
        assert said["idle", by].survives


def test_a_check_that_raises_or_never_ends_decides_nothing(monkeypatch):
    monkeypatch.setattr(perturb, "PATIENCE", 0.05)
    claim = make(SimpleNamespace(size=2), None)

    @claim.reference("one above is an endless search, one below an error")
    def check(side):
        while side.size > 2:
            pass
        return holds("fits") if side.size == 2 else 1 / 0

    (pair,) = perturb.pairs(claim)
    assert (pair.down, pair.up, pair.survives) == ("broke", "broke", False)


def test_the_stored_run_explains_every_survivor():
    record, known = json.loads(RECORD.read_text()), perturb.explained()
    assert not record["unexplained"]
    assert not record["stale"]
    pairs = [perturb.Pair(**{k: v for k, v in row.items() if k != "reason"}) for row in record["pairs"]]
    assert {pair.claim for pair in pairs} <= set(ledger.claim_ids())
    assert set(known) <= set(ledger.claim_ids())
    assert len(pairs) > 400
    for pair, row in zip(pairs, record["pairs"]):
        if pair.survives:
            assert row["reason"] == perturb.reason(pair, known) != ""


def test_the_command_line(capsys):
    assert cli.main(["verify", "token_choice_sharp", "--perturb"]) == 0
    out = capsys.readouterr().out
    assert "token_choice_sharp: 9 changes, 0 not noticed" in out
    assert "0 not noticed" in out.splitlines()[0]


def test_grades():
    assert ledger.load("token_choice_exact").grade == "formal"
    assert ledger.load("cap_bounds").grade == "certified"
    assert ledger.load("top1_is_least_angle").grade == "argued"
    assert ledger.load("calinski_harabasz_cosine_sweep").grade == "numerical"
    for claim in map(ledger.load, ledger.claim_ids()):
        assert claim.grade != "numerical" or claim.expected is not Verdict.PROVED
        assert claim.theorem == "" or claim.theorem in claim.formal
