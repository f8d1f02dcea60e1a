"""The Coq proofs: linked from their claims, complete, and unable to prove the nearest false statement."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from resonance_theory.evidence.claims import ledger

FOLDER = Path(__file__).resolve().parents[1] / "proofs" / "formal"
spec = importlib.util.spec_from_file_location("formal_check", FOLDER / "check.py")
assert spec
assert spec.loader
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)

needs_coq = pytest.mark.skipif(not shutil.which("coqc"), reason="coqc is not installed (see proofs/formal/check.py)")
TEXT = {file.name: file.read_text(encoding="utf-8") for file in check.files()}


def test_claims_and_theorems_know_each_other():
    proved = {f"{file}: {name}" for file, text in TEXT.items() for name in check.theorems(text)}
    named = {name for claim_id in ledger.claim_ids() for name in ledger.load(claim_id).formal}
    assert named <= proved, f"no such theorem: {named - proved}"
    # what no claim names must at least serve one that is named, in the same file
    assert {name.split(":")[0] for name in named} == set(TEXT)


def test_every_proof_is_finished():
    for file, text in TEXT.items():
        bare = check.without_comments(text)
        assert not check.ASSUMING.findall(bare), file
        assert bare.count("Proof.") == bare.count("Qed.") > 0


@pytest.mark.parametrize(
    "text",
    [
        "Axiom easy : 0 = 1.\nTheorem t : 0 = 1.\nProof. exact easy. Qed.",
        "Theorem t : 0 = 1.\nProof. Admitted.",
        "Theorem t : 0 = 1.\nProof. admit. Qed.",
        "Section s. Variable easy : 0 = 1.\nTheorem t : 0 = 1.\nProof. exact easy. Qed.",
        "(* Theorem t : 0 = 1. *) Definition one := 1.",
    ],
)
def test_assumptions_in_disguise_are_seen(text):
    assert check.problems("scalar_lemmas.v", text)


def test_lists_of_assumptions_are_read():
    output = "Closed under the global context\nAxioms:\nA.b\n  : forall x : nat, x = x\nUint63.c : nat\nAxioms:\n"
    assert check.assumptions(output) == [set(), {"A.b", "Uint63.c"}, {"?"}]
    assert not check.accepted("token_choice.v", "Classical_Prop.classic")
    assert check.accepted("scalar_lemmas.v", "Classical_Prop.classic")
    assert not check.accepted("scalar_lemmas.v", "Uint63.add_spec")
    assert check.accepted("numeric_lemmas.v", "Uint63.add_spec")
    assert not check.accepted("numeric_lemmas.v", "?")


@needs_coq
@pytest.mark.parametrize(
    "file", [name if name == "token_choice.v" else pytest.param(name, marks=pytest.mark.long) for name in TEXT]
)
def test_file_proves_its_theorems(file):
    assert check.problems(file, TEXT[file]) == []


# theorem, a piece of its statement, the nearest false one
FALSE = [
    ("token_choice.v", "pascal", "p * mass p m c.", "p * mass p m (S c)."),
    ("token_choice.v", "size_bias", "num (S m) * p", "num m * p"),
    ("token_choice.v", "masses_sum_to_one", "below p m (S m) == 1", "below p m m == 1"),
    ("token_choice.v", "success_rate_of_token_choice", "below p (S (S s)) (S C)", "below p (S s) (S C)"),
    ("exchangeability.v", "exchangeability_identity", "INR C / INR (S M)", "INR C / INR (S (S M))"),
    ("exchangeability.v", "uniform_count", "Nat.leb c M", "Nat.ltb c M"),
    ("scalar_lemmas.v", "logarithm_above_quotient", "2 * u / (2 - u)", "11 / 5 * u / (2 - u)"),
    ("scalar_lemmas.v", "bernstein", "(6 + 2 * x)", "(6 + 9 / 5 * x)"),
    ("scalar_lemmas.v", "lower_tail_quadratic", "x ^ 2 / 2", "x ^ 2 * (51 / 100)"),
    ("scalar_lemmas.v", "poisson_bound_at_one", "x * exp (- x) - (1", "x * exp (- x) - (11 / 10"),
    ("scalar_lemmas.v", "threshold", "5 / 4", "6 / 5"),
    ("scalar_lemmas.v", "strip_one", "< 4 / 5", "< 3 / 5"),
    ("scalar_lemmas.v", "largest_value_of_z_exp", "exp (- 1)", "exp (- 11 / 10)"),
    ("scalar_lemmas.v", "root_of_squares", "sqrt v + x", "sqrt v + 9 / 10 * x"),
    ("scalar_lemmas.v", "modulus_below_mean", "+ w) / 2", "+ w) * (49 / 100)"),
    ("scalar_lemmas.v", "slope_ratio_negative", "7 <= d", "6 <= d"),
    ("numeric_lemmas.v", "printed_constants", "3 / 16 <", "4 / 20 <"),
    ("numeric_lemmas.v", "strip_many", "< 3 / 10", "< 28 / 100"),
]


def test_every_theorem_has_a_false_neighbour():
    assert {(file, theorem) for file, theorem, _, _ in FALSE} == {(f, n) for f in TEXT for n in check.theorems(TEXT[f])}


@needs_coq
@pytest.mark.long
@pytest.mark.parametrize(("file", "theorem", "true", "false"), FALSE)
def test_the_false_neighbour_is_not_proved(file, theorem, true, false):
    text = check.upto(TEXT[file], theorem)
    at = text.index(f"Theorem {theorem}")
    statement, proof = text[at:].split("Proof.", 1)
    assert true in statement
    mutated = text[:at] + statement.replace(true, false) + "Proof." + proof
    accepted, output = check.compiled(text)
    assert accepted, output  # what is cut out stands by itself
    accepted, output = check.compiled(mutated)
    assert not accepted
    assert "Syntax error" not in output, output
