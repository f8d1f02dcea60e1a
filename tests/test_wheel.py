"""Wheel and sdist, built and installed: every command outside a checkout, with only the extras that it names."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.long
OFFLINE = ("No matching distribution", "Could not fetch", "Temporary failure in name resolution", "NewConnectionError")


def call(*command, cwd=ROOT, status=0):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == status, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def install(python, *what):
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *what], capture_output=True, text=True)
    if any(words in done.stderr for words in OFFLINE) and "resonance" not in done.stderr:
        pytest.skip(f"the packages cannot be fetched from here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def environment(folder):
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel that is built from an sdist, and the sdist."""
    folder = tmp_path_factory.mktemp("built")
    python = environment(folder / "venv")
    install(python, "build", "hatchling")
    call(python, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT)
    (wheel,), (sdist,) = (list((folder / "dist").glob(f"*.{kind}")) for kind in ("whl", "tar.gz"))
    return wheel, sdist


@pytest.fixture(scope="module")
def bare(built, tmp_path_factory):
    """An environment with the wheel and no extra."""
    python = environment(tmp_path_factory.mktemp("bare") / "venv")
    install(python, built[0])
    return python


@pytest.fixture(scope="module")
def equipped(built, tmp_path_factory):
    """An environment with the wheel and the extras of the ledger, and pytest."""
    python = environment(tmp_path_factory.mktemp("equipped") / "venv")
    install(python, f"{built[0]}[verify,report]", "pytest", "pytest-xdist")
    return python


def resonance(python, *arguments, cwd, status=0):
    return call(python.with_name("resonance"), *arguments, cwd=cwd, status=status)


def test_nothing_but_the_package_is_installed(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"resonance_theory"}
    carried = {name.removeprefix("resonance_theory/_bundled/") for name in names if "/_bundled/" in name}
    tracked = call("git", "ls-files", "proofs", "simulations", "paper_figures").split("\n")
    assert {name for name in tracked if name} <= carried
    assert not [name for name in names if "__pycache__" in name]
    with tarfile.open(built[1]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"proofs/published.toml", "tests/test_claims.py", "docs/tour.ipynb", "hatch_build.py"} <= inside


def test_without_extras(bare, tmp_path):
    plan = ("plan", "--rule", "token-choice", "--tokens", "4096", "--experts", "8", "--target", "0.95")
    assert "488" in resonance(bare, *plan, cwd=tmp_path)
    assert "layer" in resonance(bare, "audit", "example", "--details", cwd=tmp_path)
    assert "resonance-theory with its extra [" in resonance(bare, "verify", "cap_law", cwd=tmp_path, status=2)
    assert "resonance-theory with its extra [" in resonance(bare, "figures", "overview", cwd=tmp_path, status=2)


def test_every_command(equipped, tmp_path):
    assert "PROVED" in resonance(equipped, "verify", "cap_law", "--json", "l.json", "--workers", "2", cwd=tmp_path)
    record = json.loads((tmp_path / "l.json").read_text())
    assert (record["passed"], record["provenance"]["commit"]) == (True, None)
    resonance(equipped, "report", "l.json", "page", cwd=tmp_path)
    assert (tmp_path / "page" / "index.html").exists()
    assert "published statements" in resonance(equipped, "claims", "--published", cwd=tmp_path)
    assert "overview.png" in resonance(equipped, "figures", "overview", cwd=tmp_path)
    assert "overview" in resonance(equipped, "figures", "overview", "--check", cwd=tmp_path)
    assert "passed" in resonance(equipped, "simulate", "router_scale", cwd=tmp_path)
    refused = resonance(equipped, "data", "cap_law", cwd=tmp_path, status=2)
    assert "stored in a checkout of the project" in refused
    assert {p.name for p in tmp_path.iterdir()} == {"l.json", "page", "out"}


def test_the_tour(equipped, built, tmp_path):
    with tarfile.open(built[1]) as sdist:
        (name,) = (name for name in sdist.getnames() if name.endswith("docs/tour.ipynb"))
        notebook = json.load(sdist.extractfile(name))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "tour.py").write_text("\n".join(cells))
    assert "PROVED" in call(equipped, "tour.py", cwd=tmp_path)


def test_one_file_in_an_empty_folder(equipped, tmp_path):
    """A verdict, a pytest pass, a baseline and a report, of a claim of anybody's."""
    resonance(equipped, "new", "claim", "mine", "--to", ".", cwd=tmp_path)
    assert "1 PROVED" in resonance(
        equipped, "verify", "mine.py", "--json", "old.json", "--report", "page", cwd=tmp_path
    )
    assert "5 passed" in call(equipped, "-m", "pytest", "--claims", "mine.py", cwd=tmp_path)
    assert "5 passed" in call(equipped, "-m", "pytest", "--claims", "-n", "2", "mine.py", cwd=tmp_path)
    assert "0 lost" in resonance(equipped, "verify", "mine.py", "--baseline", "old.json", cwd=tmp_path)
    text = (tmp_path / "mine.py").read_text()
    assert "@claim.certificate" in text
    (tmp_path / "mine.py").write_text(text.replace("@claim.certificate", "@claim.reference"))
    worse = resonance(equipped, "verify", "mine.py", "--baseline", "old.json", cwd=tmp_path, status=1)
    assert "verdict: PROVED -> SUPPORTED" in worse
    assert "certificate: a square -> gone" in worse


if sys.platform == "win32":
    pytest.skip("paths of a POSIX environment", allow_module_level=True)
