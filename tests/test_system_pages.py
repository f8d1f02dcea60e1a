"""Pages of neighbouring systems: their code runs, their links lead somewhere, and their measurements are the recorded ones."""

import doctest
import json
import re
from pathlib import Path

import pytest

from resonance_theory.evidence.claims import ledger
from resonance_theory.evidence.studies.study import Unavailable, settings_of
from tests.trainings import train

ROOT = Path(__file__).resolve().parents[1]
# page -> its paper's folder in proofs/ and its study
PAGES = {
    "moepp": ("moepp", "zero_computation"),
    "mcmoe": ("mcmoe", "quantised_experts"),
    "adapmoe": ("adapmoe", "expert_cache"),
    "moma": ("moma", "modality_groups"),
    "scmoe": ("scmoe", "self_contrast"),
    "mor1e": ("mor1e", "rank_one_experts"),
    "omoe": ("omoe", "orthogonal_experts"),
    "federated_contracts": ("federated_contracts", "asynchronous_federated"),
}


def text_of(page):
    return (ROOT / "docs" / "systems" / f"{page}.md").read_text(encoding="utf-8")


def recorded(study):
    return [json.loads(line) for line in (ROOT / "simulations" / "results" / f"{study}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_code(page):
    blocks = re.findall(r"```python\n(.*?)```", text_of(page), re.S)
    if any("import torch" in block for block in blocks):
        pytest.importorskip("torch")
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    runner.run(parser.get_doctest("\n".join(blocks), {}, page, page, 0))
    assert runner.tries >= 5
    assert runner.failures == 0


@pytest.mark.parametrize("page", PAGES)
def test_every_claim_of_the_paper_stands_there_with_its_verdict(page):
    rows = re.findall(r"^\| .* \| (.+?) \(\[(\w+)\]\((\.\./\.\./proofs/\S+)\)\) \|$", text_of(page), re.M)
    told = {name: verdict for verdict, name, _ in rows}
    folder = ROOT / "proofs" / PAGES[page][0]
    assert set(told) == {path.stem for path in folder.glob("[!_]*.py")}
    for _, name, link in rows:
        assert (ROOT / "docs" / "systems" / link).resolve() == folder / f"{name}.py"
        assert told[name].startswith(ledger.load(name).expected.value)


def numbers(study):
    """Means of the record's arms, rates and laws, differences of its comparisons with their limits, as a page writes them."""
    found = set()
    for row in recorded(study):
        values = [m["mean"] for m in row.get("metrics", {}).values()]
        values += [row[key] for key in ("difference", "low", "high", "estimate", "law") if key in row]
        found |= {f"{abs(v):.{digits}f}".removeprefix("0") for v in values for digits in (2, 3, 4)}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_measurements_are_those_of_the_record(page):
    measured = text_of(page).partition("## What was measured")[2]
    printed = re.findall(r"(?<![\w.])-?(\.\d{2,4})(?!\d)", measured)
    assert len(printed) >= 8
    margins = {".02"}
    assert not [n for n in printed if n not in numbers(PAGES[page][1]) | margins]
    assert ".1235" not in numbers(PAGES[page][1])  # so that the test can fail


SMALL = {"steps": 2, "router_steps": 2, "test_tokens": 64, "updates": 10}


def trains(study):
    return "def arms(" in (ROOT / "simulations" / f"{study}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("study", [study for _, study in PAGES.values() if trains(study)])
def test_a_study_s_settings_speak_of_arms_and_metrics_that_there_are(study):
    for package in ("torch", "sklearn"):
        pytest.importorskip(package)
    module = __import__(f"simulations.{study}", fromlist=["arms"])
    settings = settings_of(study, full=True) | {
        key: v for key, v in SMALL.items() if key in settings_of(study, full=True)
    }
    if "corpora" in settings:
        settings |= {"steps": 1, "batch": 2, "calibration_windows": 2, "test_windows": 2}
    try:
        found = {arm.label: {key.rpartition("/")[0] for key in train(arm, runs=1)} for arm in module.arms(settings)}
    except Unavailable as why:
        pytest.skip(str(why))
    for row in settings["comparisons"]:
        assert row["metric"] in found[row["first"]], row
        assert row.get("against", row["metric"]) in found[row["second"]], row
    assert set(settings.get("columns", ())) <= set().union(*found.values())


def test_links_from_a_folder_of_the_site():
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location("docs_build_systems", ROOT / "docs" / "build.py")
    build = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = build
    spec.loader.exec_module(build)
    text = "[a](../../proofs/moma/x.py) [b](../proofs/moma/y.py) [c](proofs/moma/z.py)"
    assert build.site_links(text) == "[a](../theory/x.md) [b](theory/y.md) [c](theory/z.md)"
