"""The pytest plugin: each side of each check is a test, and what is wrong with a claim fails the right one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CLAIM = """
import numpy as np
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import fails, holds
claim = Claim("t", "s", "test", "equality", Verdict.PROVED, truth=4, mutant=5, mutation="one more")
@claim.derivation("two and two")
def _(side):
    return holds("4") if side == 2 + 2 else fails("not 4")
@claim.reference("by counting")
def _(side):
    return {reference}
def sample(rng, trials):
    return {{"hits": int(np.count_nonzero(rng.integers(0, 20, trials) < 4))}}
claim.simulate(sample, cases=[{{}}], law=lambda side: {{"hits": side / 20}}, trials=20_000)
"""
SOUND = 'holds("4 counted") if side == 4 else fails("not what is counted")'


@pytest.fixture
def pytest_run(tmp_path):
    """Runs pytest on claims in an empty folder; returns the outcome of every test by its name, and the output."""

    def run(*arguments, **claims):
        (tmp_path / "theory").mkdir(exist_ok=True)
        (tmp_path / "pyproject.toml").write_text("[tool.resonance]\nclaims = 'theory'\n")
        for name, text in claims.items():
            (tmp_path / "theory" / f"{name}.py").write_text(text)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "resonance_theory.pytest_plugin",
            "-p",
            "no:cacheprovider",
            "-vv",
            *arguments,
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTEST_ADDOPTS", None)
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        words = [line for line in done.stdout.splitlines() if "::" in line and not line.startswith(("FAILED", "ERROR"))]
        found = {}
        for line in words:
            for status in ("PASSED", "FAILED"):
                if status in line:
                    name = line.replace(status, "").split("::", 1)[1].partition("  ")[0].partition(" [ ")[0].strip()
                    found[name] = status
        return found, done.stdout + done.stderr

    return run


ALL = {f"{name} [{side}]" for name in ("two and two", "by counting", "Monte Carlo") for side in ("truth", "mutant")}


def test_each_side_of_each_check_is_a_test(pytest_run):
    found, said = pytest_run("--claims", "-p", "no:xdist", mine=CLAIM.format(reference=SOUND))
    assert found.keys() == ALL | {"verdict"}, said
    assert set(found.values()) == {"PASSED"}, said
    assert not pytest_run()[0]  # nothing unless claims are wanted


@pytest.mark.parametrize(
    ("reference", "failing", "words"),
    [
        ('fails(f"never, {side}")', "by counting [truth]", "the check must hold, but it is fails: never"),
        ('holds("always")', "by counting [mutant]", "must reject the mutant (one more), but it is holds: always"),
        ('(holds if side == 4 else fails)("the same")', "by counting [mutant]", "says the same of both sides"),
        ("1 / 0", "by counting [truth]", "but it is error: ZeroDivisionError: division by zero (mine.py:"),
    ],
)
def test_what_is_wrong_fails_the_right_test(pytest_run, reference, failing, words):
    found, said = pytest_run("--claims", "-p", "no:xdist", mine=CLAIM.format(reference=reference))
    both = "1 / 0" in reference
    assert {name for name, status in found.items() if status == "FAILED"} == {failing} | (
        {"by counting [mutant]"} if both else set()
    ), said
    assert words in said
    assert "Traceback" not in said


def test_markers_and_names_choose(pytest_run):
    text = CLAIM.format(reference=SOUND)
    found, _ = pytest_run(
        "--claims", "--strict-markers", "-p", "no:xdist", "-m", "simulation and not mutant", mine=text
    )
    assert found.keys() == {"Monte Carlo [truth]"}
    found, _ = pytest_run("--claims", "-p", "no:xdist", "-k", "counting", mine=text, other="x = 1\n")
    assert found.keys() == {"by counting [truth]", "by counting [mutant]"}


def test_a_verdict_that_the_checks_do_not_amount_to(pytest_run):
    text = CLAIM.format(reference=SOUND).replace("@claim.derivation", "@claim.reference")
    found, said = pytest_run("--claims", "-p", "no:xdist", mine=text)
    assert {name for name, status in found.items() if status == "FAILED"} == {"verdict"}
    assert "the verdict is SUPPORTED if all checks pass, but PROVED is stated" in said


def test_over_several_processes(pytest_run):
    pytest.importorskip("xdist")
    texts = {f"claim_{i}": CLAIM.format(reference=SOUND) for i in range(3)}
    _, said = pytest_run("--claims", "-n", "2", **texts)
    assert f"{3 * (len(ALL) + 1)} passed" in said


def test_our_own_claims_are_collected():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "resonance_theory.pytest_plugin",
        "--claims",
        "-q",
        "proofs/capacity/cap_law.py",
    ]
    command[-1] = str(next((ROOT / "proofs").glob("*/cap_law.py")))
    done = subprocess.run([*command, "-p", "no:xdist"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
