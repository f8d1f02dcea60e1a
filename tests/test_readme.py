"""What the README shows is what the program prints."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from resonance_theory.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n\$ resonance (.*?)\n(.*?)```", README, re.S)


def test_python_blocks():
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.S))
    runner.run(parser.get_doctest(code, {}, "README", "README.md", 0))
    assert runner.tries > 8
    assert runner.failures == 0


@pytest.mark.parametrize(("command", "output"), CONSOLE, ids=[c[:30] for c, _ in CONSOLE])
def test_console_blocks(capsys, command, output):
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out == output


def test_audit_table(capsys):
    """Every number of the README's audit table stands in the audit's own table, layer by layer."""
    from resonance_theory import audit

    layers = audit.audit(audit.example()).table().split("layer.")[1:]
    rows = re.findall(r"^\| (\d) \|(.*)\|$", README, re.M)
    assert len(rows) == len(layers) == 3
    for (name, cells), layer in zip(rows, layers):
        assert layer.startswith(name)
        printed = re.findall(r"\d*\.?\d+", layer)
        values = {float(v) for v in printed}
        for number in re.findall(r"\d*\.\d+|\d+", cells):
            assert float(number) in values, f"layer {name}: {number}"


def test_named_claims_and_files_exist():
    from resonance_theory.verification import ledger

    named = {n for row in re.findall(r"\| (`[a-z_0-9`, ]+`) \|$", README, re.M) for n in re.findall(r"`(\w+)`", row)}
    assert len(named) > 8
    assert named <= set(ledger.claim_ids())
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).exists(), path
