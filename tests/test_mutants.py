"""The mutants themselves: one change each, named the same wherever the code stands, and told from the original."""

import ast
import json

from tests import mutants

SOURCE = """
def f(a, b: int = 3):
    '''1 + 1'''
    return -a * 2.0 + b if a < b and not b else a**2 + 7
"""


def test_each_operator_and_number_is_changed_once():
    names = [m.name for m in mutants.mutants(SOURCE)]
    assert len(names) == len(set(names)) == 12
    assert "f: -a * 2.0 -> -a / 2.0" in names
    assert "f: -a * 2.0 -> -a * 2.02" in names
    assert "f: -a -> +a" in names
    assert "f: a < b -> a <= b" in names
    assert "f: a < b and (not b) -> a < b or not b" in names
    assert "f: not b -> b" in names
    assert "f: a ** 2 -> a * 2" in names
    assert "f: a ** 2 + 7 -> a ** 2 + 8" in names
    assert "f: 3 -> 4" in names
    for mutant in mutants.mutants(SOURCE):
        assert ast.unparse(mutant.tree) != ast.unparse(ast.parse(SOURCE))


def test_names_do_not_depend_on_lines():
    moved = "import math\n\n\nx = math.pi\n" + SOURCE
    assert [m.name for m in mutants.mutants(moved)] == [m.name for m in mutants.mutants(SOURCE)]


def test_explanations_are_of_mutants_that_exist():
    explained = json.loads(mutants.EXPLAINED.read_text(encoding="utf-8"))
    assert set(explained) <= set(mutants.MODULES)
    for module, reasons in explained.items():
        names = {
            m.name for m in mutants.mutants((mutants.ROOT / mutants.MODULES[module][0]).read_text(encoding="utf-8"))
        }
        assert set(reasons) <= names, set(reasons) - names
        assert all(len(reason) > 20 for reason in reasons.values())


def test_a_killed_and_a_surviving_mutant_are_told_apart(tmp_path, monkeypatch):
    (tmp_path / "pkg.py").write_text("def double(x):\n    return x * 2 + 0 * x\n")
    (tmp_path / "test_pkg.py").write_text("from pkg import double\ndef test_it():\n    assert double(3) == 6\n")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    fate = {
        m.name: mutants.run("pkg.py", ("test_pkg.py",), m.tree, 60, tmp_path / "times")
        for m in mutants.mutants((tmp_path / "pkg.py").read_text())
    }
    assert fate["double: x * 2 -> x / 2"] == fate["double: x * 2 -> x * 3"] == "killed"
    assert fate["double: x * 2 + 0 * x -> x * 2 - 0 * x"] == "survived"
