"""Claims, studies and figures of anybody's: found by file, folder, module, entry point and pyproject.toml."""

import json
import re
import sys
from pathlib import Path

import pytest

from resonance_theory.cli import main
from resonance_theory.evidence import project
from resonance_theory.evidence.claims import ledger

ROOT = Path(__file__).resolve().parents[1]
CLAIM = """'''A proof.'''
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import fails, holds
claim = Claim("t", "s", "test", "equality", Verdict.PROVED, truth=4, mutant=5, mutation="one more")
@claim.derivation("two and two")
def _(side):
    return holds("4") if side == 2 + 2 else fails("not 4")
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """An empty folder to work in, which leaves no module behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def put(folder, *names, text=CLAIM):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(a) for a in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def verified(capsys, *arguments):
    status, out, err = run(capsys, "verify", *arguments, "--json", "-")
    assert status in (0, 1), err
    return {claim["id"]: claim["verdict"] for claim in json.loads(out)["claims"]}


def refused(capsys, *arguments):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    return err


def test_a_file_a_folder_and_a_pattern_in_it(capsys, there):
    put(there, "mine/one.py", "mine/deep/two.py", "mine/_helper.py", "mine/.venv/three.py", "mine/test_x.py")
    assert verified(capsys, "mine/one.py") == {"one": "PROVED"}
    assert verified(capsys, "mine") == {"one": "PROVED", "two": "PROVED"}
    assert verified(capsys, "mine/", "tw") == {"two": "PROVED"}
    assert verified(capsys, "mine/one.py", "mine/deep") == {"one": "PROVED", "two": "PROVED"}
    status, out, _ = run(capsys, "claims", "mine")
    assert (status, "2 claims" in out) == (0, True)


def test_a_package_and_an_entry_point(capsys, there, monkeypatch):
    put(there, "src/paper_x/__init__.py", "src/paper_x/proofs/__init__.py", text="")
    put(there, "src/paper_x/proofs/main_theorem.py")
    monkeypatch.syspath_prepend(there / "src")
    assert verified(capsys, "paper_x.proofs") == {"main_theorem": "PROVED"}
    assert verified(capsys, "paper_x.proofs.main_theorem") == {"main_theorem": "PROVED"}
    info = there / "src" / "paper_x-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: paper-x\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[resonance_theory.claims]\npaper-x = paper_x.proofs\ngone = no.such\n")
    assert verified(capsys, "paper-x") == {"main_theorem": "PROVED"}
    assert "names no.such, which is not there" in refused(capsys, "verify", "gone")


def test_a_pyproject_says_where(capsys, there, monkeypatch):
    put(there, "theory/one.py", "theory/two.py", "elsewhere/three.py")
    put(there, "pyproject.toml", text='[tool.resonance]\nclaims = "theory"\n')
    assert verified(capsys) == {"one": "PROVED", "two": "PROVED"}
    assert verified(capsys, "one") == {"one": "PROVED"}
    (there / "theory" / "sub").mkdir()
    monkeypatch.chdir(there / "theory" / "sub")
    assert verified(capsys) == {"one": "PROVED", "two": "PROVED"}
    # a claim's share of the false-alarm budget is the same alone and in company
    whole, places, _ = project.find(["../one.py"], "claims")
    assert len(ledger.claim_ids(whole)) == 2
    assert ledger.select("", whole, places) == ["one"]
    other, _, _ = project.find([str(there / "elsewhere")], "claims")
    assert ledger.claim_ids(other) == ["three"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('claim = "theory"', r"tool\.resonance\.claim of .* is unknown: .* did you mean claims\?"),
        ('claims = "nowhere"', "names nowhere, which is not there"),
        ("claims = 3", "must be a path or a list of paths"),
        ("claims = []", "must be a path or a list of paths"),
        ("claims = ", "cannot be read"),
    ],
)
def test_a_pyproject_that_says_nothing_usable(capsys, there, text, words):
    put(there, "theory/one.py")
    put(there, "pyproject.toml", text=f"[tool.resonance]\n{text}\n")
    assert re.search(words, refused(capsys, "verify"))


def test_what_is_not_there_or_is_called_alike(capsys, there):
    assert "must be a file or folder that is there" in refused(capsys, "verify", "nothing/here.py")
    put(there, "empty/_x.py")
    assert "empty holds no claim" in refused(capsys, "verify", "empty")
    put(there, "a/same.py", "b/same.py")
    assert "has the name of a/same.py" in refused(capsys, "verify", ".")
    put(there, "lib/statistics.py")  # a module of Python's own
    status, out, _ = run(capsys, "verify", "lib")
    assert status == 1
    assert "needs another name: the module statistics is" in out


def test_our_own_files_are_of_our_own_ledger(capsys, there):
    own, places, patterns = project.find([str(ROOT / "proofs" / "capacity")], "claims")
    assert own.own
    assert not patterns
    chosen = ledger.select("", own, places)
    assert set(chosen) < set(ledger.claim_ids())
    assert set(chosen) == {p.stem for p in (ROOT / "proofs" / "capacity").glob("[!_]*.py")}


def test_a_file_without_a_claim_is_named_and_left_out(capsys, there):
    put(there, "mine/one.py")
    put(there, "mine/tools.py", text="x = 1\n")
    status, out, err = run(capsys, "verify", "mine")
    assert status == 0
    assert "mine/tools.py" in err
    assert "1 PROVED" in out


# --- new --------------------------------------------------------------------------------------------------------------


def test_every_start_works_as_it_is(capsys, there):
    for kind in ("claim", "study", "figure", "rule"):
        assert run(capsys, "new", kind, f"my_{kind}")[0] == 0
    assert verified(capsys, "proofs") == {"my_claim": "PROVED"}
    status, out, err = run(capsys, "simulate", "simulations/my_study.py", "--workers", "2", "--json", "-")
    assert status == 0, err
    assert json.loads(out)["passed"]
    assert run(capsys, "simulate", "--all", "simulations")[0] == 0
    assert run(capsys, "figures", "figures/my_figure.py")[0] == 0
    assert (there / "out" / "figures" / "my_figure.svg").exists()
    (there / "pyproject.toml").write_text("[tool.resonance]\n")  # the usual folders
    assert verified(capsys) == {"my_claim": "PROVED"}
    assert run(capsys, "simulate", "my_study", "--record")[0] == 0
    assert json.loads((there / "results" / "my_study.jsonl").read_text().splitlines()[0])["passed"]
    assert run(capsys, "figures")[0] == 0
    assert "one of my_study" in refused(capsys, "simulate", "success_rate")


def test_the_start_of_a_rule_is_a_rule(capsys, there, monkeypatch):
    from resonance_theory.rules import registry

    monkeypatch.setattr(registry, "_REGISTERED", {})
    assert run(capsys, "new", "rule", "every_other")[0] == 0
    registry.register(project.loaded(there / "every_other.py").every_other)
    asked = ["--tokens", 64, "--experts", 4, "--target", 0.9, "--json", "-"]
    plans = [json.loads(run(capsys, "plan", "--rule", rule, *asked)[1]) for rule in ("every-other", "random-keep")]
    assert plans[0]["rule"] == "every_other"
    assert plans[0]["capacity"] == plans[1]["capacity"]


def test_a_start_overwrites_nothing_and_needs_a_name(capsys, there):
    put(there, "simulations/mine.toml", text="x")
    assert "simulations/mine.toml is there already" in refused(capsys, "new", "study", "mine")
    assert not (there / "simulations" / "mine.py").exists()
    for name in ("my-claim", "_x", "class", "a/b", "../up"):
        assert "must be a Python name" in refused(capsys, "new", "claim", name)
    assert run(capsys, "new", "claim", "mine", "--to", "deep/er")[0] == 0
    assert verified(capsys, "deep") == {"mine": "PROVED"}
