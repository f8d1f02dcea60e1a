"""Mutation testing of the formulas: alter one operator or constant at a time, and see the tests notice.

    make mutants                                        the modules of DEFAULT
    python -m tests.mutants _law                        one of them
    python -m tests.mutants _law --only has_place       only mutants whose description contains a text
    python -m tests.mutants caps --sample 60            a random sample of that size
    python -m tests.mutants --record                    write the counts to simulations/results/mutants.json

A mutant is one changed node of a module's syntax tree: an operator (+ for -, * for /, < for <=, ...), a sign, or a
number (whole: one more; otherwise: 1 % more). Each runs the module's tests that call the altered function, stage by
stage, in each stage the quick ones first and up to the first failure, in a process forked from one that holds the
imported libraries; only the module under test differs. A test run that fails, or takes twice the original's processor
time and five seconds, kills the mutant. A sample is uniform and the same each time (seed 0); its mutants run in random
order, so that what an interrupted run has done is a uniform sample as well.

Survivors must be explained in `mutants.json`, under the mutant's description, which does not depend on line numbers:
why it computes the same, or differs by less than the stated accuracy, or only in speed. The run fails if a survivor is
not explained there, or if an explanation is out of date (its mutant is killed, or no longer exists). Results are kept
in out/mutants as they come, keyed by the code of the module and its tests: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = Path(__file__).with_suffix(".json")
RECORD = ROOT / "simulations" / "results" / "mutants.json"
LAWS = (("tests/test_law_numerics.py",), ("tests/test_laws.py", "tests/test_counts.py"))
# without the two slowest tests, half of the time: a survivor costs all the others
GEOMETRY = (
    (
        "tests/test_sphere.py",
        "--deselect=tests/test_sphere.py::test_planted_error_is_as_stated",
        "--deselect=tests/test_sphere.py::test_any_valid_arguments_give_probabilities",
    ),
    ("tests/test_sphere_edges.py",),
)
DEFAULT = ("token_choice", "expert_choice", "resonance", "random_keep", "rule", "bounds", "_ties", "_law", "_beta")
# The geometry, which is mostly quadrature and holds many numbers that trade accuracy for speed, runs on request.
SPHERE = ("_integration", "caps", "signals", "candidates", "planted")
# name -> (file, stages of tests that must notice: what survives one stage goes on to the next)
MODULES = {
    **{name: (f"resonance_theory/rules/{name}.py", LAWS) for name in DEFAULT},
    **{name: (f"resonance_theory/tokens/{name}.py", GEOMETRY) for name in SPHERE},
}

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
}


@dataclass(frozen=True)
class Mutant:
    """`name`: function, the altered expression before and after, and a number if that occurs more than once.

    path: fields (and positions in lists) from the module to the node; `field` of it becomes `value`, or None: the node
    gives way to its operand.
    """

    name: str
    line: int
    source: str
    path: tuple[tuple[str, int | None], ...]
    field: str
    value: object

    @property
    def function(self) -> str:
        """Where it is: "Class.function.inner", or "" outside of any."""
        where = self.name.split(":")[0]
        return "" if where == "module" else where

    @property
    def tree(self) -> ast.Module:
        """The altered module."""
        tree = ast.parse(self.source)
        _alter(tree, self.path, self.field, self.value)
        return ast.fix_missing_locations(tree)


def _alter(
    tree: ast.Module, path: tuple[tuple[str, int | None], ...], field: str, value: object
) -> tuple[ast.AST, Callable[[], None]]:
    """Alter a node in place; returns what stands there now, and how to undo it."""
    node: ast.AST = tree
    for name, index in path:
        parent, child = node, getattr(node, name)
        node = child if index is None else child[index]
    if value is not None:
        before = getattr(node, field)
        setattr(node, field, value)
        return node, lambda: setattr(node, field, before)
    assert isinstance(node, ast.UnaryOp)  # drop the sign or the negation

    def put(what: ast.AST) -> None:
        if index is None:
            setattr(parent, name, what)
        else:
            getattr(parent, name)[index] = what

    put(node.operand)
    return node.operand, lambda: put(node)


def _altered(node: ast.AST) -> Iterator[tuple[ast.AST, str, object]]:
    """(copy of the node to alter, field, new value) for each alteration of this node itself."""
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPS:
        yield node, "op", SWAPS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                yield node, "ops", [*node.ops[:i], SWAPS[type(op)](), *node.ops[i + 1 :]]
    elif isinstance(node, ast.UnaryOp):
        yield node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else None
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, complex):
        value = node.value
        yield node, "value", value + 1 if isinstance(value, int) else value * 1.01 or 1.0
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, "value", not node.value


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    found: list[tuple[str, int, list[tuple[str, int | None]], str, object]] = []

    def visit(node: ast.AST, path: list[tuple[str, int | None]], where: str, around: ast.AST | None) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            where = f"{where}.{node.name}" if where else node.name
        # the description shows the smallest operation around the altered node
        if isinstance(node, ast.expr | ast.stmt) and not isinstance(
            node, ast.Constant | ast.FunctionDef | ast.ClassDef
        ):
            around = node
        for _, name, value in _altered(node):
            found.append((where or "module", getattr(node, "lineno", 0), path, name, value))
            shown.append(around)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            if isinstance(value, ast.AST):
                visit(value, [*path, (name, None)], where, around)
            elif isinstance(value, list):
                for i, item in enumerate(value):
                    if isinstance(item, ast.AST):
                        visit(item, [*path, (name, i)], where, around)

    shown: list[ast.AST | None] = []
    visit(tree, [], "", None)
    result, seen = [], Counter[str]()
    for (where, line, path, field, value), around in zip(found, shown):
        before = ast.unparse(around) if around is not None else ""
        now, undo = _alter(tree, tuple(path), field, value)
        # dropping a sign replaces the node that is shown itself
        after = ast.unparse(now if value is None else around) if around is not None else ast.unparse(now)
        undo()
        clip = difference(" ".join((before or ast.unparse(now)).split()), " ".join(after.split()))
        name = f"{where}: {clip[0]} -> {clip[1]}"
        seen[name] += 1
        if seen[name] > 1:
            name += f" #{seen[name]}"
        result.append(Mutant(name, line, source, tuple(path), field, value))
    return result


def difference(before: str, after: str, margin: int = 45) -> tuple[str, str]:
    """Long expressions are cut to the part around the first difference."""
    if max(len(before), len(after)) <= 2 * margin:
        return before, after
    same = next((i for i, (x, y) in enumerate(zip(before, after)) if x != y), 0)
    return tuple(text[max(0, same - margin) : same + margin] for text in (before, after))  # type: ignore[return-value]


class _Swap(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import one module from a given syntax tree."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self.module, self.path, self.tree = module, path, tree

    def find_spec(self, name, path=None, target=None):
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


class _Tests:
    """Pytest plugin: of the tests in a file those that call a function, the quickest first.

    Without the file all run, and it is written: {test: [seconds, functions of the module that it calls]}. What is called
    while the module and its tests are imported stands under "", and counts as called by every test.
    """

    def __init__(self, file: Path, module: Path, function: str) -> None:
        self.file, self.module, self.function = file, str(module), function
        self.known: dict[str, tuple[float, list[str]]] = json.loads(file.read_text()) if file.exists() else {}
        self.called: dict[str, set[str]] = {"": set()}
        self.seconds: dict[str, float] = {}
        self.current = ""
        if not self.known:
            sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == self.module:
            self.called[self.current].add(_function(frame.f_code.co_qualname))

    def pytest_collection_modifyitems(self, items: list) -> None:
        if self.known and self.function not in self.known[""][1]:
            items[:] = [i for i in items if i.nodeid not in self.known or self.function in self.known[i.nodeid][1]]
        items.sort(key=lambda item: self.known.get(item.nodeid, (0.0,))[0])

    def pytest_runtest_setup(self, item) -> None:
        if self.known:
            return
        self.current = item.nodeid
        self.called[self.current] = set()
        for name, module in list(sys.modules.items()):
            if name.startswith("resonance_theory"):  # a result kept from an earlier test would hide a call
                for value in vars(module).values():
                    if hasattr(value, "cache_clear"):
                        value.cache_clear()

    def pytest_runtest_logreport(self, report) -> None:
        if not self.known and report.when == "call":
            self.seconds[report.nodeid] = report.duration

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if not self.known and exitstatus == 0:
            tests = {test: (self.seconds.get(test, 0.0), sorted(calls)) for test, calls in self.called.items()}
            self.file.write_text(json.dumps(tests))


def _function(qualified: str) -> str:
    """The def around a code object, by its qualified name: as in the description of a mutant, "" at a module's level."""
    parts = qualified.replace(".<locals>", "").split(".")
    return ".".join(part for part in parts if not part.startswith("<"))


def _passes(file: str, tests: tuple[str, ...], tree: ast.Module, times: Path, function: str) -> bool:
    """Whether the tests pass with this tree in place of the module; only for a process that ends afterwards.

    Tests that never call `function`, where the tree differs, cannot notice and are left out; "": none is.
    """
    import pytest

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    module = file.removesuffix(".py").replace("/", ".")
    sys.meta_path.insert(0, _Swap(module, ROOT / file, tree))
    with open(os.devnull, "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        # plain assertions, and no plugin but Hypothesis: a mutant that dies in the first test costs a tenth of a second
        options = ["-x", "-q", "--tb=no", "--assert=plain", "-p", "_hypothesis_pytestplugin", "--hypothesis-seed=0"]
        off = [f"-pno:{plugin}" for plugin in ("cacheprovider", "unraisableexception", "threadexception")]
        plugin = _Tests(times, ROOT / file, function)
        return pytest.main([*options, *off, *tests], plugins=[plugin]) in (0, pytest.ExitCode.NO_TESTS_COLLECTED)


def run(file: str, tests: tuple[str, ...], tree: ast.Module, limit: int, times: Path, function: str = "") -> str:
    """The fate of one mutant, "survived", "killed" or "timeout", with `limit` seconds of processor time."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            code = 0 if _passes(file, tests, tree, times, function) else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) == signal.SIGXCPU else "killed"
    return "survived" if status == 0 else "killed"


def _share(jobs: list[Mutant], workers: int, file: str, tests: tuple[str, ...], limit: int, results: Path) -> None:
    """Workers are forked before any thread starts; each takes every workers-th mutant and appends its results."""
    children = []
    for w in range(workers):
        child = os.fork()
        if child == 0:
            try:
                for job in jobs[w::workers]:
                    fate = run(file, tests, job.tree, limit, results.with_suffix(".tests"), job.function)
                    with results.open("a") as out:
                        out.write(json.dumps([job.name, fate], ensure_ascii=False) + "\n")
            finally:
                os._exit(0)
        children.append(child)
    waiting = set(children)
    start = time.monotonic()
    total, before = len(jobs), len(_read(results))
    while waiting:
        waiting -= {c for c in waiting if os.waitpid(c, os.WNOHANG)[0]}
        time.sleep(1)
        done = len(_read(results)) - before
        print(f"\r  {done}/{total} mutants, {time.monotonic() - start:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _texts(tests: tuple[str, ...]) -> list[str]:
    """What the fate of a mutant hangs on, besides its module: the test files and the options."""
    return [t if t.startswith("--") else (ROOT / t).read_text() for t in tests]


def _code(text: str) -> str:
    """A module's code alone: what comments and docstrings say, no fate hangs on."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[:1] = [ast.Pass()]
    return ast.unparse(tree)


def _stamp(source: str, *texts: str) -> str:
    """The name of results: `texts` are the tests and their options."""
    code = [_code(source), *(t if t.startswith("--") else _code(t) for t in texts)]
    return hashlib.sha256("".join(code).encode()).hexdigest()[:12]


def _read(results: Path) -> dict[str, str]:
    if not results.exists():
        return {}
    return dict(json.loads(line) for line in results.read_text().splitlines() if line.endswith("]"))


def check(name: str, *, only: str, sample: int, workers: int) -> tuple[bool, dict[str, object]]:
    """Run a module's mutants and report; True if every survivor is explained and every explanation is needed.

    With it the counts: mutants of the module, how many of them ran, were killed (by the processor time's limit among
    them), survived, and are explained; and the hash of the code of the module and its tests.
    """
    file, stages = MODULES[name]
    source = (ROOT / file).read_text()
    every = mutants(source)
    jobs = [m for m in every if only in m.name]
    if sample:
        jobs = random.Random(0).sample(jobs, len(jobs))[:sample]
    folder = ROOT / "out" / "mutants"
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, str] = {}
    for tests in stages:
        # each stage's results hang on the module and on its own tests alone: tests added to a later one cost no rerun
        results = folder / f"{name}-{_stamp(source, *_texts(tests))}.jsonl"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if run(file, tests, ast.parse(source), 3600, results.with_suffix(".tests")) != "survived":
            print(f"{name}: the tests fail on the module as it is")
            return False, {}
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        limit = 5 + 2 * int(after.ru_utime - before.ru_utime)
        left = [m for m in jobs if known.get(m.name, "survived") == "survived"]
        done = _read(results)
        _share([m for m in left if m.name not in done], workers, file, tests, limit, results)
        done = _read(results)
        for m in left:
            known.pop(m.name, None)
        known |= {m.name: done[m.name] for m in left if m.name in done}
    explained = json.loads(EXPLAINED.read_text()).get(name, {}) if EXPLAINED.exists() else {}
    survivors = [m for m in jobs if known.get(m.name) == "survived"]
    unexplained = [m for m in survivors if m.name not in explained]
    names, tried = {m.name for m in every}, {m.name for m in jobs}
    stale = [e for e in explained if e not in names or (e in tried and known.get(e) != "survived")]
    for m in unexplained:
        print(f"  survives without an explanation: {file}:{m.line} {m.name}")
    for e in stale:
        print(f"  explained, but killed or gone: {e}")
    missing = [m for m in jobs if m.name not in known]
    fates = Counter(known[m.name] for m in jobs if m.name in known)
    counts: dict[str, object] = {
        "mutants": len(every),
        "tried": fates.total(),
        "killed": fates["killed"] + fates["timeout"],
        "of them by time": fates["timeout"],
        "survive": len(survivors),
        "explained": len(survivors) - len(unexplained),
        "sha256": _stamp(source, *(text for tests in stages for text in _texts(tests))),
    }
    return not (unexplained or stale or missing), counts


def _table(rows: dict[str, dict[str, object]]) -> str:
    columns = ("mutants", "tried", "killed", "survive", "explained")
    lines = [["module", *columns], *([name, *(str(row.get(c, "-")) for c in columns)] for name, row in rows.items())]
    return "\n".join("".join(f"{cell:>15}" for cell in line) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of the formulas.")
    parser.add_argument("modules", nargs="*", choices=[[], *MODULES], help=f"default: {DEFAULT}")
    parser.add_argument("--only", default="", help="only mutants whose description contains this text")
    parser.add_argument("--sample", type=int, default=0, help="a random sample of this size")
    parser.add_argument("--record", action="store_true", help="store the counts in simulations/results/mutants.json")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.record and options.only:
        parser.error("--record stores the counts of a module or of a uniform sample: it goes without --only")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.chdir(ROOT)
    import flint  # noqa: F401
    import hypothesis  # noqa: F401
    import mpmath  # noqa: F401
    import numpy.testing  # noqa: F401
    import pytest  # noqa: F401
    import scipy.special
    import scipy.stats  # noqa: F401

    fine, rows = True, {}
    for name in options.modules or DEFAULT:
        passed, rows[name] = check(name, only=options.only, sample=options.sample, workers=options.workers)
        fine = fine and passed
    print(_table(rows))
    if options.record:
        stored = json.loads(RECORD.read_text()) if RECORD.exists() else {"modules": {}}
        sample = f" --sample {options.sample}" if options.sample else ""
        for name, row in rows.items():
            stored["modules"][name] = {"command": f"python -m tests.mutants {name}{sample} --record", **row}
        RECORD.write_text(json.dumps(stored, indent=1) + "\n")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
