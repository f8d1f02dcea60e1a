"""`resonance simulate --all` and `make evidence`: every study found, each judged, one failure told without hiding others."""

import json
import sys
from pathlib import Path

import pytest

from resonance_theory import cli
from resonance_theory.evidence import project
from resonance_theory.evidence.sampling import store as store_module
from resonance_theory.evidence.sampling import task
from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies.evidence import Evidence
from resonance_theory.evidence.studies.study import StudyResult
from resonance_theory.evidence.studies.training import TrainingResult
from resonance_theory.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
COIN = '''"""A coin of chance {chance}, claimed to be fair."""

import numpy as np

from resonance_theory.evidence.studies.study import Case


def sample(rng, trials):
    with open({log!r}, "a") as log:
        log.write("x")
    {first}
    return {{"heads": int(np.count_nonzero(rng.random(trials) < {chance}))}}


def cases(settings):
    return [Case("coin", sample, {{}}, {{"heads": 0.5}}, {{"a bent coin": {{"heads": 0.4}}}})]
'''


@pytest.fixture
def stubs(monkeypatch, tmp_path):
    """Three studies in a folder of their own: one that passes, one whose law is wrong, one that breaks."""
    folder, log = tmp_path / "studies", tmp_path / "log"
    folder.mkdir()
    monkeypatch.setattr(study_module, "folder", lambda _: folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a later test has a study of the same name in another folder
    monkeypatch.setattr(project, "ADDED", [*project.ADDED])
    for name, chance, first in (
        ("stub_bent", 0.6, "pass"),
        ("stub_broken", 0.5, "raise OSError('the disk is gone')"),
        ("stub_fair", 0.5, "pass"),
    ):
        (folder / f"{name}.py").write_text(COIN.format(chance=chance, first=first, log=str(log)))
        (folder / f"{name}.toml").write_text(
            "[quick]\nblocks = 2\nblock_size = 20000\n[full]\nblocks = 3\nblock_size = 9\n"
        )
    (folder / "_no_study.py").write_text("raise RuntimeError")
    task._load.cache_clear()
    yield log
    for name in [name for name in sys.modules if name.startswith("stub_")]:
        del sys.modules[name]


def test_every_study_runs_and_each_is_judged(stubs, capsys, tmp_path):
    file = tmp_path / "studies.json"
    assert cli.main(["simulate", "--all", "--json", str(file)]) == 1
    out = capsys.readouterr().out
    bent, broken, fair, *_, summary = out.splitlines()
    assert bent.startswith("✗ stub_bent")
    assert broken.startswith("✗ stub_broken")
    assert broken.endswith("OSError: the disk is gone")
    assert fair.startswith("✓ stub_fair")
    assert summary == "1 of 3 studies passed; failed stub_bent, stub_broken"
    record = json.loads(file.read_text())
    assert [(r["study"], r["passed"]) for r in record] == [
        ("stub_bent", False),
        ("stub_broken", False),
        ("stub_fair", True),
    ]
    assert "VIOLATED" in out  # the rates of a study that fails are shown
    assert record[2]["rows"][0]["trials"] == 40_000  # the quick size
    made = provenance()
    for study in record:
        assert study["format"] == "resonance-theory study 1"
        assert {key: study["provenance"][key] for key in made} == made | {"time": study["provenance"]["time"]}
        assert study["provenance"]["time"] <= made["time"]


def test_one_pattern_and_a_store_that_resumes(stubs, capsys, tmp_path):
    command = ["simulate", "--all", "*fair", "--store", str(tmp_path / "new" / "store")]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 studies passed"
    assert [f.name for f in (tmp_path / "new" / "store").iterdir()] == ["stub_fair.jsonl"]
    drawn = stubs.read_text()
    assert cli.main([*command, "--resume"]) == 0
    assert stubs.read_text() == drawn == "xx"  # both blocks came from the store
    assert cli.main(command) == 1  # without --resume an earlier result is not overwritten
    assert "already holds results" in capsys.readouterr().out


def test_a_store_drawn_under_other_versions_says_so(stubs, capsys, monkeypatch, tmp_path):
    run_study, options = study_module.run_study, {"store": tmp_path / "s", "progress": sys.stderr}
    now = store_module.versions()
    monkeypatch.setattr(store_module, "versions", lambda: now | {"numpy": "1.0"})
    assert "stored blocks drawn under" not in run_study("stub_fair", **options).provenance
    monkeypatch.setattr(store_module, "versions", lambda: now)
    resumed = run_study("stub_fair", resume=True, **options)
    assert resumed.provenance["stored blocks drawn under"] == [now | {"numpy": "1.0"}]
    assert f"some of them were drawn under numpy 1.0 (now {now['numpy']})" in capsys.readouterr().err
    assert stubs.read_text() == "xx"


def test_more_successes_than_trials_are_refused(stubs):
    file = study_module.folder("simulations") / "stub_fair.py"
    file.write_text(COIN.format(chance=0.5, first="return {'heads': trials + 1}", log=str(stubs)))
    with pytest.raises(ValueError, match="counts heads = 40002 in 40000 trials of coin but a rate is at most 1"):
        study_module.run_study("stub_fair", progress=None)


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["SUPPORTED", "SUPPORTED"], "passed"),
        (["SUPPORTED", "INCONCLUSIVE"], "undecided"),
        (["VIOLATED", "INCONCLUSIVE"], "failed"),
        (["NO CLAIM", "VIOLATED"], "no claim"),  # the violated one is a premise
    ],
)
def test_trainings_that_few_runs_leave_open_are_undecided(verdicts, status):
    rows = [{"expect": "more", "verdict": verdict} for verdict in verdicts] + [{"verdict": "MEASURED"}]
    assert Evidence("some", TrainingResult("some", rows, {}, {}), "", 1.0).status == status


@pytest.mark.parametrize(
    ("raised", "status"), [("ModuleNotFoundError('torch')", 0), ("Unavailable('another text')", 0), ("ValueError", 1)]
)
def test_what_a_machine_lacks_is_not_a_failure(stubs, capsys, raised, status):
    file = study_module.folder("simulations") / "stub_fair.py"
    use = f"from resonance_theory.evidence.studies.study import Unavailable\n    raise {raised}"
    file.write_text(COIN.format(chance=0.5, first=use, log=str(stubs)))
    assert cli.main(["simulate", "--all", "*fair"]) == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"0 of 1 studies passed; {'failed' if status else 'not run'} stub_fair"


def test_rates_that_show_nothing_are_a_failure():
    row = {"case": "a", "verdict": "INCONCLUSIVE"}
    assert Evidence("some", StudyResult("some", [row], {"mutant": True}, {}), "", 1.0).status == "failed"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--all", "no_such*"], "study = 'no_such*' matches none of stub_bent"),
        (["--all", "--record"], "leave --record"),
        (["--all", "--backend", "torch"], "leave --record, --backend"),
        (["--all", "--store", "/proc/nothing/here"], "must be a folder"),
        ([], "give STUDY, or --all"),
    ],
)
def test_bad_options_are_one_sentence(stubs, capsys, options, words):
    assert cli.main(["simulate", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert words in captured.err


def test_the_makefile_runs_the_studies_of_the_checkout():
    command = (ROOT / "Makefile").read_text().split("evidence: $(STAMP)\n")[1].split("\n\n")[0]
    options = command.splitlines()[-1].split("resonance ")[1].split()
    parsed = vars(cli._parser().parse_args(options))
    assert parsed["all"]
    assert parsed["resume"]
    assert not parsed["full"]
    assert parsed["study"] is None
    assert {"success_rate", "evolution", "digits_mosaics"} <= set(study_module.studies())
