"""The plan of the house: who may import whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# folder -> project folders it may import; nothing points back
ALLOWED = {
    "resonance_theory": {"resonance_theory"},
    "proofs": {"proofs", "resonance_theory"},
    "simulations": {"simulations", "proofs", "resonance_theory"},
    # the look, and how files are written: a figure computes nothing
    "paper_figures": {"paper_figures", "resonance_theory._style", "resonance_theory._output"},
    "docs": {"resonance_theory"},
}
PROJECT = {"resonance_theory", "proofs", "simulations", "paper_figures", "tests"}


def modules(tree: ast.AST) -> set[str]:
    """Dotted names of everything that a module imports, wherever it stands."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in modules(tree)}


def violations(folder: str, source: str) -> set[str]:
    allowed = tuple(f"{name}." for name in ALLOWED[folder])
    return {
        top
        for name in modules(ast.parse(source))
        if (top := name.split(".")[0]) in PROJECT and not f"{name}.".startswith(allowed)
    }


@pytest.mark.parametrize("folder", ALLOWED)
def test_arrows(folder):
    files = list((ROOT / folder).rglob("*.py"))
    bad = {str(f.relative_to(ROOT)): v for f in files if (v := violations(folder, f.read_text()))}
    assert not bad


def test_the_arrow_test_can_fail():
    assert violations("resonance_theory", "def f():\n    from proofs.cap import claim") == {"proofs"}
    assert violations("proofs", "import simulations.success_rate as s, numpy") == {"simulations"}
    assert violations("paper_figures", "from resonance_theory import _style, rules") == {"resonance_theory"}
    assert not violations("paper_figures", "from resonance_theory._style import LOOK")
    assert not violations("simulations", "from resonance_theory import rules")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_core_import_is_light():
    # counted in modules, not seconds: a second is easily met as long as none of these is loaded
    heavy = ("torch", "cupy", "sympy", "flint", "matplotlib", "numba", "scipy.stats")
    code = f"import resonance_theory as rt, sys; rt.token_choice; print([m for m in {heavy!r} if m in sys.modules])"
    assert run(code) == "[]"


def test_public_names_resolve():
    code = "import resonance_theory as rt; print(all(getattr(rt, n) is not None for n in rt.__all__), 'torch' in dir())"
    assert run(code) == "True False"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        __import__("resonance_theory").nonsense  # noqa: B018


def test_nothing_in_the_tree_uses_pickle_to_read():
    for file in (ROOT / "resonance_theory").rglob("*.py"):
        tree = ast.parse(file.read_text())
        assert not imported(tree) & {"pickle", "joblib", "dill"}, file
        assert "allow_pickle=True" not in file.read_text(), file
