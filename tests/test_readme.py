"""What the README and the pages in docs/ show is what the program prints."""

import doctest
import json
import re
import shlex
from pathlib import Path

import pytest

from resonance_theory.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}
CONSOLE = [
    found for text in PAGES.values() for found in re.findall(r"```console\n\$ resonance (.*?)\n(.*?)```", text, re.S)
]


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if "```python" in text])
def test_python_blocks(name):
    blocks = re.findall(r"```python\n(.*?)```", PAGES[name], re.S)
    if any("import torch" in block for block in blocks):
        pytest.importorskip("torch")
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(parser.get_doctest("\n".join(blocks), {}, name, name, 0))
    assert runner.tries >= 5
    assert runner.failures == 0


@pytest.mark.parametrize(("command", "output"), CONSOLE, ids=[c[:30] for c, _ in CONSOLE])
def test_console_blocks(capsys, command, output):
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out == output


def test_the_tour_prints_what_it_shows(capsys):
    pytest.importorskip("sympy", reason="the tour proves a claim")
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    space: dict = {}
    shown = 0
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
            assert capsys.readouterr().out == "".join(line for out in cell["outputs"] for line in out["text"]), cell[
                "id"
            ]
            shown += bool(cell["outputs"])
    assert shown >= 5


def test_audit_table(capsys):
    """Every number of the audit table of docs/audit.md stands in the audit's own table, layer by layer."""
    from resonance_theory import audit

    layers = audit.audit(audit.example()).table(details=True).split("\nlayer.")[1:]
    rows = re.findall(r"^\| (\d) \|(.*)\|$", PAGES["audit.md"], re.M)
    assert len(rows) == len(layers) == 3
    for (name, cells), layer in zip(rows, layers):
        assert layer.startswith(name)
        printed = re.findall(r"\d*\.?\d+", layer)
        values = {float(v) for v in printed}
        for number in re.findall(r"\d*\.\d+|\d+", cells):
            assert float(number) in values, f"layer {name}: {number}"


def test_named_claims_and_files_exist():
    from resonance_theory.evidence.claims import ledger

    links = re.findall(r"\[`?(\w+)`?\]\((?:\.\./)?proofs/\w+/(\w+)\.py\)", "".join(PAGES.values()))
    assert len(links) > 20
    assert all(word == file for word, file in links)
    assert {file for _, file in links} <= set(ledger.claim_ids())
    last_cells = re.findall(r"\| ([^|]*proofs/[^|]*) \|$", PAGES["corrections.md"], re.M)
    assert len(last_cells) > 8
    notebook = "".join("".join(c["source"]) for c in json.loads((ROOT / "docs" / "tour.ipynb").read_text())["cells"])
    for name, text in {**PAGES, "tour.ipynb": notebook}.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (folder / path).exists(), f"{name}: {path}"


def test_benchmark_table_is_the_stored_record():
    import numpy as np

    runs = json.loads((ROOT / "simulations/results/router_benchmark.json").read_text())["runs"]
    table = PAGES["speed.md"]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert rows[0][1:] == [f"{s['tokens']}, {s['dim']}, {s['experts']}" for s in runs[0].values()]
    names = ["kernel", "kernel, top-2", "kernel, with gradient", "kernel, fresh gradient", "eager torch"]
    names += ["Mixtral router (transformers)", "Switch router (transformers)"]
    for name, row in zip(names, rows[1:], strict=True):
        for shape, cell in zip("ABC", row[1:], strict=True):
            routers = [run[shape]["routers"][name] for run in runs]
            times, ratios = [r["median_ms"] for r in routers], [r["ratio"] for r in routers]
            assert cell == (
                f"{np.median(times):.2f} ms, {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
