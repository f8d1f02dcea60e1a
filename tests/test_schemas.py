"""The JSON Schemas describe the records of today, stored ones included, and refuse broken ones."""

import copy
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from resonance_theory.cli import main
from resonance_theory.evidence.pages import report
from resonance_theory.evidence.studies.study import StudyResult
from resonance_theory.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "simulations" / "results"
NAMES = sorted(path.stem for path in (report.DATA / "schemas").glob("*.json"))
PLAN = ["plan", "--tokens", "256", "--experts", "8", "--target", "0.8", "--rule"]
COMMANDS = {
    "audit": ["audit", "example", "--experts", "4"],
    "audit_log": ["audit", "LOG"],
    "load_plan": ["plan", "--load", "LOG"],
    "device_plan": ["plan", "--load", "LOG", "--devices", "2"],
    "policies": ["policies", "example-log", "--factors", "1"],
    "drop_plan": ["plan", "--drop", "0.0968", "--at", "1.0"],
    "ledger": ["verify", "exchangeability_identity"],
    "plan": [*PLAN, "resonance", "--percentile", "0.4"],
}


def wrong(name, record):
    return [f"{e.json_path}: {e.message}" for e in Draft202012Validator(report.schema(name)).iter_errors(record)]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """One record of each kind."""
    made = {
        "benchmark": json.loads((RESULTS / "router_benchmark.json").read_text()),
        "gpu": {"status": "failed", "provenance": {"command": ""}, "checks": {"a": {"passed": False, "seconds": 1.0}}},
    }
    first, row = map(json.loads, (RESULTS / "success_rate.jsonl").read_text().splitlines()[:2])
    study = StudyResult(
        "success_rate", [row, {**row, "detectable": float("inf")}], {"a law": True}, first["provenance"]
    )
    made["study"] = study.to_json()
    log = tmp_path_factory.mktemp("logs") / "counts.npz"
    counts = np.random.default_rng(0).multinomial(256, [0.4, 0.2, 0.2, 0.2], size=(32, 2))
    np.savez(log, counts=counts)
    for name, arguments in COMMANDS.items():
        file = tmp_path_factory.mktemp("records") / f"{name}.json"
        arguments = [str(log) if word == "LOG" else word for word in arguments]
        assert main([*arguments, "--json", str(file)]) in (0, 1)
        made[name] = json.loads(file.read_text())
    return made


@pytest.mark.parametrize("name", NAMES)
def test_records_fit_their_schemas(name, records):
    Draft202012Validator.check_schema(report.schema(name))
    assert report.schema(name)["$id"] == f"{name}.json"
    assert wrong(name, records[name]) == []
    assert wrong(name, {**records[name], "provenance": {"command": "", **provenance()}}) == []


def test_more_records(capsys):
    assert main([*PLAN, "adaptive", "--signal", "2.5", "--dim", "64", "--json", "-"]) == 0
    assert wrong("plan", json.loads(capsys.readouterr().out)) == []
    for file in RESULTS.glob("*.jsonl"):
        first, *rows = map(json.loads, file.read_text().splitlines())
        assert wrong("study", {**first, "rows": rows}) == [], file
    assert wrong("benchmark", json.loads((RESULTS / "training_cost.json").read_text())) == []


def test_a_gpu_suite_without_a_device(tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    subprocess.run(
        [sys.executable, "-m", "simulations.gpu_suite", "--out", str(tmp_path)], cwd=ROOT, capture_output=True
    )
    assert wrong("gpu", json.loads((tmp_path / "checks.json").read_text())) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_record_does_not_fit(name, records):
    """Without any one of the fields that the schema asks for, or with one of another kind, a record is none."""
    required = report.schema(name).get("required", [])
    assert required or name == "gpu"
    for field in required:
        record = copy.deepcopy(records[name])
        del record[field]
        assert wrong(name, record), field
        assert wrong(name, {**records[name], field: [None]}), field
    for field, value in (("commit", "main"), ("dirty", "no"), ("packages", [1])):
        assert wrong(name, {**records[name], "provenance": {"command": "", **provenance(), field: value}}), field
    assert wrong(name, {})


def test_time_is_utc():
    assert datetime.fromisoformat(provenance()["time"]).utcoffset().total_seconds() == 0
