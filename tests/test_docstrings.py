"""Examples in docstrings are executed, and every public formula has one and names its claim."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "resonance_theory"
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)
ROOMS = ("rules", "tokens", "homogenization")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed")
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failed == 0


def formulas():
    """Public functions of the rooms whose modules say what is public, and public rules, with their docstrings."""
    for room in ROOMS:
        for path in sorted((ROOT / room).glob("[!_]*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            public = re.search(r"__all__ = \[(.*?)\]", path.read_text(encoding="utf-8"), re.S)
            names = set(re.findall(r'"(\w+)"', public[1])) if public else set()
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and node.name in names:
                    yield f"{room}/{path.stem}.{node.name}", ast.get_docstring(node) or ""


# no single number shows what they do: they draw, check, or move arrays about
WITHOUT = re.compile(
    r"rules/(select|bounds|registry)|tokens/(samplers|evolving|gaussian|affinity_mass)|homogenization/cells"
)


def test_every_formula_has_an_example():
    missing = [name for name, text in formulas() if ">>>" not in text and not WITHOUT.match(name)]
    assert not missing


def test_claims_that_docstrings_name_exist():
    from resonance_theory.evidence.claims import ledger

    known = set(ledger.claim_ids())
    named = []
    for path in ROOT.rglob("*.py"):
        for ids in re.findall(r"\bClaims?: ([a-z0-9_, \n]+)\.", path.read_text(encoding="utf-8")):
            named += re.findall(r"\w+", ids)
    assert len(named) > 40
    assert set(named) <= known


def test_no_tag_stands_for_a_claim():
    """Names of claims, not tags such as N4, lead from the library to its proofs."""
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8").replace('such as "N4"', "")
        assert not re.search(r"\((?:[NGHV]\d+'?(?:, |-)?)+\)|section [36]|theory notes", text), path
