"""The plan of the house: who may import whom, and what an import costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
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


# files that `resonance_theory` finds in a checkout and does not know by name
FOUND = {"proofs", "simulations", "paper_figures"}
# commands that start a program of the checkout by its name, which is to become discovery; as for the circles
BY_NAME = {f"resonance_theory/cli/{name}.py": {"simulations"} for name in ("bench", "cost", "data", "gpu")}


def called(node: ast.AST) -> set[str]:
    """What `import_module` loads. A name with a part that is found at run time ends before it, with a dot."""
    if not isinstance(node, ast.Call) or "import_module" not in ast.unparse(node.func) or not node.args:
        return set()
    name = node.args[0]
    if isinstance(name, ast.Constant):
        return {str(name.value)}
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        return {str(name.values[0].value)}
    return set()  # a variable: read from a table of names, which is no arrow


def modules(tree: ast.AST, package: str = "") -> set[str]:
    """Dotted names of everything that a module of that package imports, wherever it stands and however."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
        else:
            names |= called(node)
    return names


def imported(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in modules(tree)}


def violations(folder: str, source: str) -> set[str]:
    allowed = tuple(f"{name}." for name in ALLOWED[folder])
    discovers = FOUND if folder == "resonance_theory" else set()
    return {
        top
        for name in modules(ast.parse(source))
        if (top := name.split(".")[0]) in PROJECT and not f"{name}.".startswith(allowed)
        if not (name.endswith(".") and top in discovers)
    }


@pytest.mark.parametrize("folder", ALLOWED)
def test_arrows(folder):
    files = list((ROOT / folder).rglob("*.py"))
    bad = {str(f.relative_to(ROOT)): v for f in files if (v := violations(folder, f.read_text()))}
    assert bad == (BY_NAME if folder == "resonance_theory" else {})


def test_the_arrow_test_can_fail():
    assert violations("resonance_theory", "def f():\n    from proofs.cap import claim") == {"proofs"}
    assert violations("proofs", "import simulations.success_rate as s, numpy") == {"simulations"}
    assert violations("paper_figures", "from resonance_theory import _style, rules") == {"resonance_theory"}
    assert not violations("paper_figures", "from resonance_theory._style import LOOK")
    assert not violations("simulations", "from resonance_theory import rules")
    # by name is an arrow up, by discovery is not
    assert violations("resonance_theory", "importlib.import_module('paper_figures.overview')") == {"paper_figures"}
    assert violations("resonance_theory", "import_module(f'tests.{name}')") == {"tests"}
    assert not violations("resonance_theory", "importlib.import_module(f'proofs.{topic}.{name}')")


# --- no circles -------------------------------------------------------------------------------------------------------


def library() -> dict[str, set[str]]:
    """Each file of the library, by its dotted name in the package, and the files that it imports, lazily or not."""
    home = ROOT / "resonance_theory"
    files = {}
    for path in home.rglob("*.py"):
        parts = path.relative_to(home).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in files.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        within = {
            target.removeprefix("resonance_theory").lstrip(".")
            for target in modules(ast.parse(path.read_text()), f"resonance_theory.{package}".rstrip("."))
            if f"{target}.".startswith("resonance_theory.")
        }
        named = {known(target, files) for target in within if not target.endswith(".")}
        for prefix in (target for target in within if target.endswith(".")):  # found at run time: all that it may find
            named |= {f for f in files if f.startswith(prefix) and not f.removeprefix(prefix).startswith("_")}
        graph[name] = named - {name, ""}  # "": the package's version
    return graph


def known(target: str, files: Mapping[str, object]) -> str:
    """The file that holds the target, which may be a name in it."""
    while target and target not in files:
        target = target.rpartition(".")[0]
    return target


def room(name: str) -> str:
    """The package of a file; a file beside the packages stands for itself."""
    packages = {str(p.parent.relative_to(ROOT / "resonance_theory")).replace("/", ".") for p in INITS}
    return name if name in packages or "." not in name else name.rpartition(".")[0]


INITS = [path for path in (ROOT / "resonance_theory").rglob("__init__.py") if path.parent.name != "resonance_theory"]


def rooms(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, targets in graph.items():
        found.setdefault(room(name), set()).update({room(target) for target in targets} - {room(name)})
    return found


def circles(graph: Mapping[str, set[str]]) -> Iterator[frozenset[str]]:
    """Sets of nodes that reach each other."""
    reach = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    seen: set[str] = set()
    for name in graph:
        if name in reach[name] and name not in seen:
            circle = frozenset({name, *(other for other in reach[name] if name in reach.get(other, set()))})
            seen |= circle
            yield circle


def test_no_circles_of_files():
    assert not set(circles(library()))


def test_no_circles_of_packages():
    assert not set(circles(rooms(library())))


def test_rules_know_no_token_model():
    assert not rooms(library())["rules"] & {"tokens", "evidence", "audit", "nn"}


def test_the_circle_test_can_fail():
    assert set(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {frozenset("abc")}
    assert not set(circles({"a": {"b"}, "b": {"c"}, "c": set()}))
    graph = library()
    assert "evidence.project" in graph["evidence.pages.gallery"]
    assert room("evidence.pages.gallery") == "evidence.pages"
    assert room("plan") == "plan"
    lazy = ast.parse("def f():\n    from . import b\n    from ..x import y\n    import_module('resonance_theory.z')")
    assert modules(lazy, "resonance_theory.a") == {
        "resonance_theory.a.b",
        "resonance_theory.x.y",
        "resonance_theory.z",
    }


# --- what an import costs ---------------------------------------------------------------------------------------------


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
