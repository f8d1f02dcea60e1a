"""The tutorial for other people's claims: its example project works as the page says, and the page shows its files."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "docs" / "birthday"
PAGE = (ROOT / "docs" / "your_claims.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return shutil.copytree(PROJECT, tmp_path_factory.mktemp("there") / "birthday", ignore=shutil.ignore_patterns("__*"))


def call(project, *command, status=0):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_the_page_shows_the_files():
    files = "\n".join(
        (PROJECT / name).read_text() for name in ("proofs/no_collision.py", "claims.yml", "pyproject.toml")
    )
    blocks = re.findall(r"```(?:py|yaml|toml)\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 6
    assert [block.splitlines()[1] for block in blocks if block.strip() not in files] == ['my-paper = "my_paper.proofs"']


def test_the_theorem_is_proved_and_then_lost(project):
    out = call(project, "resonance_theory", "verify", "--json", "baseline.json", "--report", "report")
    assert "PROVED" in out
    page = (project / "report" / "index.html").read_text()
    assert "<h1>birthday</h1>" in page
    assert "LocMoE" not in page
    (claim,) = json.loads((project / "baseline.json").read_text())["claims"]
    assert [check["passed"] for check in claim["checks"]] == [True] * 4
    file = project / "proofs" / "no_collision.py"
    sound = file.read_text()
    assert "0 lost" in call(project, "resonance_theory", "verify", "--baseline", "baseline.json")
    try:  # a slip in the model: a value more than the theorem has
        file.write_text(sound.replace("rng.integers(0, values, ", "rng.integers(0, values + 9, "))
        out = call(project, "resonance_theory", "verify", "--baseline", "baseline.json", status=1)
    finally:
        file.write_text(sound)
    assert "lost     no_collision, estimate of Monte Carlo: distinct" in out


def test_pytest_passes(project):
    out = call(project, "pytest", "-p", "resonance_theory.pytest_plugin", "-p", "no:xdist")
    assert "9 passed" in out


def test_the_workflow_calls_what_is_there():
    """Every step of the workflow that is this package's parses as its command line does."""
    from resonance_theory.cli import _parser

    commands = re.findall(r"resonance (verify .*)", (PROJECT / "claims.yml").read_text())
    assert len(commands) == 1
    words = commands[0].replace("$baseline", "--baseline baseline.json").split()
    options = _parser().parse_args(words)
    assert (options.baseline, options.report, options.json) == ("baseline.json", "report", "ledger.json")
