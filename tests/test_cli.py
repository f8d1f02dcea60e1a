"""The command line: what it prints, what it writes, and one sentence with status 2 for everything that is wrong."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from resonance_theory import cli
from resonance_theory.cli import main

PLAN = ["plan", "--rule", "token_choice", "--tokens", "4096", "--experts", "8", "--target", "0.95"]


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(a) for a in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def replace(option, value):
    changed = list(PLAN)
    changed[changed.index(option) + 1] = value
    return changed


def refuse(capsys, *arguments):
    status, out, err = run(capsys, *arguments)
    assert status == 2, (arguments, out, err)
    assert out == ""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err
    return err


# --- plan -------------------------------------------------------------------------------------------------------------


def test_plan_answers(capsys):
    status, out, _ = run(capsys, *PLAN, "--json", "-")
    record = json.loads(out)
    assert status == 0
    assert record["capacity"] == 488  # N9's example
    assert record["success"] >= 0.95 > record["success_below"]
    status, out, _ = run(capsys, *PLAN)
    assert "488" in out


@pytest.mark.parametrize(("rho", "capacity"), [("0.6", 336), ("0.4", 229), ("0.1", 64)])
def test_plan_for_resonance(capsys, rho, capacity):
    status, out, _ = run(capsys, *replace("--rule", "resonance"), "--percentile", rho, "--json", "-")
    record = json.loads(out)
    assert status == 0
    assert record["capacity"] == capacity
    assert record["saving"] == pytest.approx(1 - capacity / 488)


def test_plan_for_the_planted_model(capsys):
    planted = ["--signal", "2.5", "--dim", "64", "--tokens", "256", "--target", "0.6"]
    answers = {}
    for rule in ("resonance", "expert_choice"):
        _, out, _ = run(capsys, *replace("--rule", rule), *planted, "--json", "-")
        answers[rule] = json.loads(out)
        assert answers[rule]["success"] >= 0.6 > answers[rule]["success_below"]
    assert answers["expert_choice"]["capacity"] <= answers["resonance"]["capacity"]  # N8's order


def test_plans_are_drawn_alike_every_time_and_as_every_figure_is(tmp_path):
    from resonance_theory import _style
    from resonance_theory.planning import plan
    from resonance_theory.rules import Rates

    answer = plan("resonance", 4096, 0.95, Rates(experts=8, percentile=0.4))
    for name in ("a.pdf", "b.pdf"):
        answer.figure(tmp_path / name)
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    stream = io.BytesIO()
    answer.figure(stream)
    text = stream.getvalue().decode()
    for shown in ("resonance, exact law", "target 0.95", "least capacity 229", "token choice: 488"):
        assert f"<!-- {shown} -->" in text
    assert _style.LOOK["resonance"]["color"].lower() in text


def test_plan_for_dependent_tokens(capsys):
    """Dependence costs slots, and none of it is the independent plan."""
    capacity = {}
    for options in (
        [],
        ["--correlation", "0"],
        ["--block-length", "1"],
        ["--correlation", "0.05"],
        ["--block-length", "20"],
    ):
        status, out, _ = run(capsys, *replace("--tokens", "256"), *options, "--json", "-")
        record = json.loads(out)
        assert status == 0
        assert record["success"] >= 0.95 > record["success_below"]
        assert record["independent"] == (34 if options else None)
        assert record["token_choice"] == record["capacity"]
        capacity[" ".join(options)] = record["capacity"]
    none, zero, one, loads, runs = capacity.values()
    assert none == zero == one == 34
    assert min(loads, runs) > 36
    # far below the mean load it spares some (N11)
    planted = ["--signal", "2.5", "--dim", "64", "--tokens", "64", "--target", "0.6"]
    _, alone, _ = run(capsys, *replace("--rule", "resonance"), *planted, "--json", "-")
    _, out, _ = run(capsys, *replace("--rule", "resonance"), *planted, "--correlation", "0.3", "--json", "-")
    assert json.loads(out)["independent"] == json.loads(alone)["capacity"] > json.loads(out)["capacity"]
    _, out, _ = run(capsys, *replace("--rule", "resonance"), "--percentile", "0.4", "--block-length", "4")
    assert "in runs of 4" in out
    assert "if independent" in out


def test_plan_for_adaptive_capacity(capsys, tmp_path):
    """The least share: its own router succeeds as often as asked for, and at a share a little smaller no longer."""
    import resonance_theory as rt

    planted = ["--signal", "2", "--dim", "16", "--tokens", "32", "--experts", "4", "--target", "0.7"]
    status, out, err = run(
        capsys, *replace("--rule", "adaptive"), *planted, "--json", "-", "--plot", tmp_path / "p.svg"
    )
    assert status == 0, err
    record = json.loads(out)
    assert record["success"] == pytest.approx(0.7, abs=1e-5)
    assert record["kept"] + record["drop"] * 8 == pytest.approx(8)
    rng, samples = np.random.default_rng(3), 60_000
    drawn = rt.tokens.samplers.planted_affinity(rng, samples, 32, 16, 4, 2.0)
    for mass, holds in ((record["mass"], True), (record["mass"] - 0.05, False)):
        rate = rt.adaptive.route(drawn.values, mass).contains(drawn.position, drawn.expert).mean()
        assert (abs(rate - 0.7) < 6 * 0.46 / samples**0.5) == holds
    assert record["resonance"] >= record["resonance_kept"] > 0
    assert "<svg" in (tmp_path / "p.svg").read_text()
    _, out, _ = run(capsys, *replace("--rule", "adaptive"), *planted)
    assert "least affinity mass" in out


def test_plan_writes_a_figure_and_json(capsys, tmp_path):
    status, _, _ = run(capsys, *PLAN, "--plot", tmp_path / "p.svg", "--json", tmp_path / "p.json")
    assert status == 0
    assert "<!-- least capacity 488 -->" in (tmp_path / "p.svg").read_text()
    assert json.loads((tmp_path / "p.json").read_text())["capacity"] == 488
    assert sorted(f.name for f in tmp_path.iterdir()) == ["p.json", "p.svg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan"], "required"),
        (replace("--rule", "best"), "rule = 'best' must be one of adaptive, expert_choice, "),
        (replace("--tokens", "many"), "--tokens: invalid int value: 'many'"),
        (replace("--tokens", "0"), "tokens = 0 must be a whole number of at least 1"),
        (replace("--tokens", "-5"), "tokens = -5"),
        (replace("--target", "1"), "target = 1.0 must be a finite number in (0, 1)"),
        (replace("--target", "nan"), "target = nan"),
        ([*PLAN, "--hit", "0.5"], "target"),  # unreachable: the best rate is named
        ([*PLAN, "--hit", "1.5"], "hit = 1.5"),
        ([*PLAN, "--top", "9"], "top = 9 must be a whole number between 1 and experts = 8"),
        (replace("--rule", "resonance"), "resonance needs exactly one of percentile"),
        ([*replace("--rule", "resonance"), "--percentile", "0.5", "--candidate-tail", "0.1"], "exactly one"),
        ([*replace("--rule", "resonance"), "--percentile", "2"], "percentile = 2.0"),
        (replace("--rule", "expert_choice"), "expert_choice needs false_positive"),
        ([*PLAN, "--signal", "1"], "signal and dim"),
        ([*PLAN, "--signal", "-1", "--dim", "64"], "signal = -1.0"),
        ([*PLAN, "--signal", "1", "--dim", "4"], "experts"),
        ([*PLAN, "--signal", "1", "--dim", "64", "--hit", "0.5"], "hit = 0.5 must not be given together"),
        ([*PLAN, "--correlation", "1.5"], "correlation = 1.5 must be"),
        ([*PLAN, "--correlation", "nan"], "correlation = nan must be"),
        ([*PLAN, "--block-length", "0"], "block_length = 0 must be"),
        ([*PLAN, "--block-length", "2.5"], "invalid int value: '2.5'"),
        ([*PLAN, "--block-length", "2", "--correlation", "0.1"], "two models of dependent tokens: give one"),
        (
            [*replace("--tokens", "20000000"), "--correlation", "0.1"],
            "tokens = 20000000 is too many for loads that vary",
        ),
        ([*replace("--rule", "expert_choice"), "--correlation", "0.1"], "must not be given for expert_choice"),
        ([*replace("--rule", "adaptive"), "--block-length", "2"], "must not be given for adaptive"),
        (replace("--rule", "adaptive"), "adaptive needs signal with dim"),
        ([*replace("--rule", "adaptive"), "--percentile", "0.3"], "percentile = 0.3 must not be given for adaptive"),
        ([*replace("--rule", "adaptive"), "--signal", "1", "--dim", "64", "--hit", "1"], "hit = 1.0 must not be given"),
        ([*replace("--rule", "adaptive"), "--signal", "1", "--dim", "64"], "target = 0.95 cannot be reached"),
        ([*replace("--rule", "adaptive"), "--signal", "1", "--dim", "4"], "experts = 8 must be"),
        (
            [*replace("--tokens", "200000"), "--rule", "adaptive"],
            "tokens = 200000 must be a whole number between 1 and",
        ),
        ([*PLAN, "--json", "/no/such/folder/x.json"], "cannot be written"),
        ([*PLAN, "--plot", "/no/such/folder/x.png"], "cannot be written"),
        ([*PLAN, "--plot", "/tmp"], "is a folder"),
        ([*PLAN, "--plot", "/tmp/x.nonsense"], "must end in .png, .svg or .pdf"),
        (["audit", "/no/such/file.npy", "--plot", "/tmp/x.jpeg"], "must end in .png, .svg or .pdf"),
        ([*PLAN, "--percentile", "0.3"], "percentile = 0.3 must not be given for token_choice"),
        ([*PLAN, "--false-positive", "0.3"], "false_positive = 0.3 must not be given for token_choice"),
        ([*replace("--rule", "resonance"), "--candidate-tail", "0.2"], "candidate_tail = 0.2 must be at most top/exp"),
        (replace("--tokens", "9" * 23), f"tokens = {'9' * 23} must be a whole number of at least 1 (and below 2^63)"),
        ([*PLAN, "--plot", "/tmp/x.svg", "--json", "/tmp/./x.svg"], "--plot = '/tmp/x.svg' would overwrite --json"),
        (["simulate", "success_rate", "--store", "s", "--json", "s"], "--json = 's' would overwrite --store"),
        (["verify", "cap_lav"], "did you mean cap_law"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["verify", "no_such_claim"], "matches no claim"),
        (["verify", "--workers", "0"], "'0' must be 'auto' or a whole number between 1 and 1024"),
        (["verify", "--seed", "x"], "'x' must be a whole number"),
        (["verify", "exchangeability_identity", "--report", "/proc/nothing"], "report folder"),
        (["claims", "no_such_claim"], "matches no claim"),
        (["simulate", "no_such_study"], "no_such_study"),
        (["simulate", "success_rate", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["report", "/no/such/file", "/tmp/never"], "/no/such/file"),
        (["audit", "/no/such/file.npy"], "/no/such/file.npy"),
        (["audit", "example", "--experts", "7"], "7"),
        (["audit", "example", "--experts", "-1"], "experts = -1"),
    ],
)
def test_bad_input_is_one_sentence(capsys, arguments, words):
    assert words in refuse(capsys, *arguments)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rule=st.sampled_from(["token_choice", "expert_choice", "resonance", "adaptive", "", "TCR"]),
    numbers=st.tuples(
        *[st.one_of(st.integers(-2, 40).map(str), st.sampled_from(["", "x", "1e3", "99999999999999999999"]))] * 3
    ),
    rates=st.tuples(*[st.one_of(st.floats(-0.5, 1.5).map(repr), st.sampled_from(["nan", "inf", "-inf", "half"]))] * 3),
    extra=st.sampled_from(
        ["--hit", "--percentile", "--candidate-tail", "--false-positive", "--signal", "--correlation", "--block-length"]
    ),
)
def test_plan_answers_or_refuses_but_never_breaks(capsys, rule, numbers, rates, extra):
    tokens, experts, dim = numbers
    status, out, err = run(
        capsys, "plan", f"--rule={rule}", f"--tokens={tokens}", f"--experts={experts}", f"--target={rates[0]}",
        f"{extra}={tokens if extra == '--block-length' else rates[1]}", *([f"--dim={dim}"] if extra == "--signal" else []),
        "--json", "-",
    )  # fmt: skip
    if status == 0:
        record = json.loads(out)
        if rule == "adaptive":
            assert 0 < record["mass"] <= 1
            assert record["success"] == pytest.approx(record["target"], abs=1e-4) or record["mass"] <= 1e-6
            assert 0 <= record["kept"] <= record["tokens"]
        else:
            assert 1 <= record["capacity"] <= record["tokens"]
            assert record["success"] >= record["target"] > record["success_below"]
    else:
        assert status == 2
        assert out == ""
        assert len(err.strip().splitlines()) == 1
        assert "Traceback" not in err


# --- claims, verify, report -------------------------------------------------------------------------------------------


def test_claims_lists_the_ledger(capsys):
    status, out, _ = run(capsys, "claims", "--json", "-")
    record = json.loads(out)
    assert status == 0
    assert {"id", "statement", "source", "expected"} <= set(record[0])
    status, out, _ = run(capsys, "claims", "--long")
    for claim in record:
        assert claim["id"] in out


def test_verify_writes_every_format(capsys, tmp_path):
    status, out, err = run(
        capsys, "verify", "exchangeability_identity", "--report", tmp_path / "r", "--json", tmp_path / "l.json"
    )
    assert status == 0, err
    assert "PROVED" in out
    assert sorted(f.name for f in (tmp_path / "r").iterdir()) == [
        "explorer.html",
        "index.html",
        "junit.xml",
        "ledger.json",
        "ledger.md",
    ]
    stored = json.loads((tmp_path / "l.json").read_text())
    assert stored["passed"]
    # a stored record renders to the same page
    assert run(capsys, "report", tmp_path / "l.json", tmp_path / "again")[0] == 0
    assert (tmp_path / "again" / "index.html").read_text() == (tmp_path / "r" / "index.html").read_text()


def test_verify_fails_when_a_claim_does(capsys, monkeypatch):
    from resonance_theory.evidence.claims import ledger
    from resonance_theory.evidence.outcome import fails

    claim = ledger.load("exchangeability_identity")
    check = claim.checks[0]
    monkeypatch.setattr(claim, "checks", [type(check)("broken", "derivation", lambda side: fails("it is wrong"))])
    status, out, _ = run(capsys, "verify", "exchangeability_identity")
    assert status == 1
    assert "VIOLATED" in out
    assert "broken: it is wrong" in out


PARTIAL = b'{"format": "resonance-theory ledger 1", "full": false}'


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "other"}', b"\xff\xfe\x00", b"null", PARTIAL])
def test_report_refuses_other_files(capsys, tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    words = refuse(capsys, "report", tmp_path / "bad.json", tmp_path / "out")
    assert "bad.json" in words


def test_an_earlier_result_survives_a_failed_write(capsys, tmp_path):
    kept = tmp_path / "kept.json"
    kept.write_text("earlier")
    refuse(capsys, *replace("--target", "2"), "--json", kept)
    assert kept.read_text() == "earlier"


# --- audit ------------------------------------------------------------------------------------------------------------


def test_audit_of_the_example(capsys, tmp_path):
    status, out, err = run(capsys, "audit", "example", "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    assert status == 0, err
    assert "layer.6" in out
    assert json.loads((tmp_path / "a.json").read_text())
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_audit_prints_its_conclusion_and_on_demand_every_number(capsys):
    status, short, err = run(capsys, "audit", "example")
    assert status == 0, err
    status, long, err = run(capsys, "audit", "example", "--details")
    assert status == 0, err
    assert len(long.splitlines()) > 2 * len(short.splitlines())
    assert set(short.split("\n\n")[0].splitlines()) <= set(long.splitlines())


def test_audit_of_own_gates_and_of_lone_tokens(capsys, tmp_path):
    """--gates, --center, and a file of (tokens, features)."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((64, 12)))
    np.save(tmp_path / "w.npy", rng.standard_normal((5, 12)))
    status, out, err = run(
        capsys, "audit", tmp_path / "x.npy", "--gates", tmp_path / "w.npy", "--center", "--json", "-"
    )
    assert status == 0, err
    record = json.loads(out)
    assert (record["gates"], record["experts"]) == ("given", 5)
    (layer,) = record["layers"]
    assert (layer["sequences"], layer["tokens"], layer["dim"]) == (1, 64, 12)
    assert [r["centred"] for r in layer["routings"]] == [True]


def test_audit_refuses_bad_files(capsys, tmp_path):
    rng = np.random.default_rng(0)
    good = rng.standard_normal((4, 32, 16)).astype(np.float32)
    files = {}
    for name, array in {
        "text.npy": np.array(["a", "b"]),
        "object.npy": np.array([{}, []], dtype=object),
        "flat.npy": good[0, 0],
        "negative.npy": np.full((4, 32, 16), -7),  # neither hidden states nor counts
        "nan.npy": np.where(good > 2, np.nan, good),
        "none.npy": good[:0],
    }.items():
        np.save(tmp_path / name, array, allow_pickle=True)
        files[name] = tmp_path / name
    np.save(tmp_path / "good.npy", good)
    whole = (tmp_path / "good.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    (tmp_path / "other.txt").write_text("hello")
    for name in [*files, "cut.npy", "empty.npy", "cut.safetensors", "other.txt"]:
        assert name in refuse(capsys, "audit", tmp_path / name), name
    assert str(tmp_path) in refuse(capsys, "audit", tmp_path)


# --- outputs that must not be lost, inputs that must not be overwritten -----------------------------------------------


@pytest.fixture
def hidden(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((64, 8)))
    return tmp_path / "x.npy"


def test_outputs_do_not_replace_inputs(capsys, tmp_path, hidden):
    before = hidden.read_bytes()
    (tmp_path / "link.json").symlink_to("x.npy")
    os.link(hidden, tmp_path / "hard.json")
    for name in ("x.npy", "link.json", "hard.json"):
        words = refuse(capsys, "audit", hidden, "--experts", "4", "--json", tmp_path / name)
        assert "would overwrite FILE" in words
    from resonance_theory import audit

    assert "would overwrite FILE" in refuse(capsys, "audit", "example", "--json", audit.example())
    assert hidden.read_bytes() == before


def test_outputs_do_not_replace_what_is_in_a_folder_that_is_read(capsys, tmp_path):
    """A model's weights, also where they are links to files elsewhere; a store's studies."""
    model, text = tmp_path / "model", tmp_path / "t.txt"
    (model / "deep").mkdir(parents=True)
    text.write_text("hello")
    (tmp_path / "blob.json").write_text("weights")
    (model / "model.safetensors").symlink_to(tmp_path / "blob.json")
    for target in (
        model / "config.json",
        model / "model.safetensors",
        model / "deep" / "x.json",
        tmp_path / "blob.json",
    ):
        words = refuse(capsys, "audit", "--model", model, "--text", text, "--json", target)
        assert "would overwrite --model" in words
    assert "overwrite --text" in refuse(capsys, "audit", "--model", model, "--text", text, "--json", text)
    assert (tmp_path / "blob.json").read_text() == "weights"
    for target in ("router_scale.jsonl", "router_scale.jsonl.rank1"):
        words = refuse(
            capsys, "simulate", "--all", "no_such", "--store", tmp_path / "s", "--json", tmp_path / "s" / target
        )
        assert "would overwrite --store" in words
    words = refuse(capsys, "simulate", "success_rate", "--store", "s.json", "--json", "s.json.rank2")
    assert "would overwrite --store" in words
    # beside the studies there is room; the pattern is then refused
    words = refuse(
        capsys, "simulate", "--all", "no_such", "--store", tmp_path / "s", "--json", tmp_path / "s" / "x.json"
    )
    assert "matches none" in words
    stored = Path(__file__).parents[1] / "simulations" / "results" / "success_rate.jsonl"
    assert "--record would overwrite --store" in refuse(
        capsys, "simulate", "success_rate", "--record", "--resume", "--store", stored
    )


def test_a_record_may_lie_in_the_new_report_but_not_be_one_of_its_pages(capsys, tmp_path):
    new = tmp_path / "new"
    for name in ("index.html", "ledger.json", "junit.xml"):
        words = refuse(capsys, "verify", "exchangeability_identity", "--report", new, "--json", new / name)
        assert "would overwrite --report" in words
        assert not new.exists()
    status, _, err = run(capsys, "verify", "exchangeability_identity", "--report", new, "--json", new / "x.json")
    assert status == 0, err
    assert json.loads((new / "x.json").read_text()) == json.loads((new / "ledger.json").read_text())
    assert "drawing the report" in err


def test_devices_pipes_and_links_are_written_through(capsys, tmp_path):
    """As a superuser a rename would put a file in the place of /dev/null."""
    assert run(capsys, *PLAN, "--json", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()
    (tmp_path / "link.json").symlink_to("real.json")
    assert run(capsys, *PLAN, "--json", tmp_path / "link.json")[0] == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["capacity"] == 488
    os.mkfifo(tmp_path / "pipe")
    status, _, err = run(capsys, *PLAN, "--json", tmp_path / "pipe")  # nobody reads it: not a wait without end
    assert status == 2
    assert "pipe' cannot be written" in err
    for source in ("/dev/zero", tmp_path / "pipe"):
        assert "must be a file" in refuse(capsys, "report", source, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_file_keeps_its_permissions_and_no_other_file_is_touched(monkeypatch, tmp_path):
    from resonance_theory import _output

    secret, victim = tmp_path / "secret.json", tmp_path / "victim"
    secret.write_text("earlier")
    secret.chmod(0o600)
    victim.write_text("mine")
    names = iter(["taken", "free", "next"])
    monkeypatch.setattr(_output.secrets, "token_hex", lambda _: next(names))
    (tmp_path / ".taken.part").symlink_to(victim)  # even a foreseen name is not written through
    with pytest.raises(OSError, match="cannot be written"):
        _output.write(secret, "new")
    assert (secret.read_text(), victim.read_text()) == ("earlier", "mine")
    _output.write(secret, "new")
    assert secret.read_text() == "new"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.chmod(0o400)
    with pytest.raises(OSError, match="read-only"):
        _output.write(secret, "newer")
    assert secret.read_text() == "new"
    _output.folder("folder", tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("length", [240, 250])
def test_long_names_are_written(capsys, tmp_path, length):
    assert run(capsys, *PLAN, "--json", tmp_path / ("n" * length + ".json"))[0] == 0


def test_names_and_files_that_cannot_be_written_are_refused_before_the_work(capsys, tmp_path):
    assert "too long" in refuse(capsys, *PLAN, "--json", tmp_path / ("n" * 251 + ".json"))
    (tmp_path / "r.json").write_text("earlier")
    (tmp_path / "r.json").chmod(0o400)
    assert "read-only" in refuse(capsys, *PLAN, "--json", tmp_path / "r.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    assert "cannot be written" in refuse(capsys, *PLAN, "--json", tmp_path / "loop.json")


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["verify", "--json", "cap_law"], "cap_law"),
        (["verify", "--json", "cap_*"], "cap_*"),
        (["audit", "--json", "example"], "example"),
        (["audit", "--json", "x.npy"], "x.npy"),
        (["simulate", "--all", "--json", "success_rate"], "success_rate"),
        (["verify", "--json", "proofs/geometry/cap_law.py"], "cap_law.py"),
        ([*PLAN, "--json", ""], ""),
    ],
)
def test_json_does_not_swallow_another_argument(capsys, monkeypatch, tmp_path, arguments, instead):
    monkeypatch.chdir(tmp_path)
    words = refuse(capsys, *arguments)
    assert instead in words
    assert "--json" in words
    assert list(tmp_path.iterdir()) == []
    assert "expected one argument" in refuse(capsys, *PLAN, "--json")


def test_json_takes_a_path_without_an_ending(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, *PLAN, "--json", "./answer")[0] == 0
    assert json.loads((tmp_path / "answer").read_text())["capacity"] == 488


# --- terminals, pipes and full disks ----------------------------------------------------------------------------------


def program(*arguments, **options):
    command = [sys.executable, "-m", "resonance_theory", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=120, **options)


def test_an_ascii_terminal_shows_everything():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = program("verify", "exchangeability_identity", stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 0, done.stderr
    assert rb"\u2713 PROVED" in done.stdout


@pytest.mark.parametrize("arguments", [["claims"], ["verify", "exchangeability_identity"], ["--help"], PLAN])
def test_a_reader_who_leaves_is_no_error(arguments, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = program(*arguments, stdout=write)
    os.close(write)
    assert done.stderr == b""
    # a verification that ends before its end has not passed
    assert done.returncode == (1 if arguments[0] == "verify" else 0)


def test_what_goes_to_files_is_written_though_nobody_reads_the_output(tmp_path):
    read, write = os.pipe()
    os.close(read)
    target = tmp_path / "l.json"
    done = program("verify", "exchangeability_identity", "--json", target, stdout=write)
    os.close(write)
    assert done.returncode == 0, done.stderr
    assert json.loads(target.read_text())["passed"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence(tmp_path):
    target = tmp_path / "p.json"
    with open("/dev/full", "wb") as full:
        for arguments in ([*PLAN, "--json", target], ["claims"], ["--help"]):
            done = program(*arguments, stdout=full)
            assert done.returncode == 2
            assert done.stderr.decode().splitlines() == [
                "resonance: standard output cannot be written (No space left on device)"
            ]
        assert json.loads(target.read_text())["capacity"] == 488
        command = [sys.executable, "-m", "resonance_theory", "plan"]
        assert subprocess.run(command, stdout=subprocess.PIPE, stderr=full).returncode == 2


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams(closed):
    command = f"exec {shlex.quote(sys.executable)} -m resonance_theory {shlex.join(PLAN)} {closed}>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    if closed == 1:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "resonance: standard output is closed: redirect it to a file or to /dev/null\n"
    else:
        assert done.returncode == 0
        assert "488" in done.stdout
        wrong = subprocess.run(["sh", "-c", f"{command} --hit 7"], capture_output=True, text=True)
        assert (wrong.returncode, wrong.stdout) == (2, "")  # no message among the results


def on_a_terminal(columns, *arguments, interrupt=None):
    """(exit status, what a terminal of that many columns receives); Ctrl-C once `interrupt` has been seen."""
    import pty
    import signal
    import struct

    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    command = [sys.executable, "-m", "resonance_theory", *arguments]
    process = subprocess.Popen(command, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    received = b""
    with contextlib.suppress(OSError):  # a terminal whose other end is gone
        while part := os.read(master, 65536):
            received += part
            if interrupt is not None and interrupt in received:
                process.send_signal(signal.SIGINT)
                interrupt = None
    os.close(master)
    return process.wait(timeout=60), received.decode()


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_on_a_terminal_lines_fit_and_verdicts_have_colours():
    shown = {}
    for columns in (60, 80, 100):
        status, text = on_a_terminal(columns, "verify", "exchangeability_identity")
        assert status == 0
        assert "\x1b[32mPROVED\x1b[0m" in text
        (shown[columns],) = [
            line for line in text.replace("\x1b[32m", "").replace("\x1b[0m", "").splitlines() if "✓" in line
        ]
        assert len(shown[columns]) <= columns
        assert re.search(r" \d+\.\d s  exchangeability_identity", shown[columns])
    assert ["±" in line for line in shown.values()] == [False, False, True]


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_an_interruption_says_what_is_kept(tmp_path):
    status, text = on_a_terminal(100, "simulate", "success_rate", interrupt=b"trials")
    assert status == 130
    assert text.splitlines()[-1].endswith("resonance simulate: interrupted")
    store = str(tmp_path / "s.jsonl")
    status, text = on_a_terminal(100, "simulate", "success_rate", "--store", store, interrupt=b"trials")
    assert status == 130
    assert text.splitlines()[-1].endswith("resonance simulate: interrupted; what was stored is kept")


def test_names_from_files_cannot_command_the_terminal(capsys, tmp_path):
    """Nor is a name set as a formula, nor does a picture that fails take the answer with it."""
    from safetensors.numpy import save_file

    name = "a\x1b]0;owned\x07\nb $\\foo$"
    file = tmp_path / "l\u202e\x9b.safetensors"
    save_file({name: np.random.default_rng(0).standard_normal((4, 32, 16)).astype(np.float32)}, file)
    status, out, err = run(
        capsys, "audit", file, "--experts", "4", "--plot", tmp_path / "a.svg", "--json", tmp_path / "a.json"
    )
    assert status == 0, err
    assert not set(out) & set("\x1b\x07\x9b\u202e")
    assert r"a\x1b]0;owned\x07\nb $\foo$" in out
    assert json.loads((tmp_path / "a.json").read_text())["layers"][0]["name"] == name
    assert (tmp_path / "a.svg").exists()
    assert "\x1b" not in refuse(capsys, *PLAN, "--\x1b[2J")


def test_an_answer_is_there_though_its_picture_fails(capsys, monkeypatch, tmp_path, hidden):
    from resonance_theory import audit
    from resonance_theory.planning import Plan

    def fails(*_):
        raise ValueError("no picture")

    monkeypatch.setattr(audit.AuditReport, "figure", fails)
    monkeypatch.setattr(Plan, "figure", fails)
    for arguments in (["audit", hidden, "--experts", "4"], PLAN):
        target = tmp_path / f"{arguments[0]}.json"
        status, out, err = run(capsys, *arguments, "--json", target, "--plot", tmp_path / "p.svg")
        assert (status, err) == (2, f"resonance {arguments[0]}: no picture\n")
        assert out.strip()
        assert json.loads(target.read_text())


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (MemoryError("Unable to allocate 512. PiB"), 2, "needs more memory than there is (Unable to allocate 512. PiB)"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("a sampler\nraised"), 1, "a sampler raised"),
        (ModuleNotFoundError("no", name="matplotlib"), 2, "pip install matplotlib, or resonance-theory with its extra [plot]"),
        (ModuleNotFoundError("no", name="flint"), 2, "pip install python-flint"),
        (ModuleNotFoundError("no", name="mine"), 2, "the package 'mine' is needed"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_one_sentence(capsys, monkeypatch, raised, status, words):
    import importlib

    def fails(*_):
        raise raised

    monkeypatch.setattr(importlib.import_module("resonance_theory.planning"), "plan", fails)
    found, out, err = run(capsys, *PLAN)
    assert (found, out) == (status, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert "stored" not in err  # nothing was


def test_every_extra_that_is_recommended_brings_the_package():
    import tomllib

    from resonance_theory import _extras

    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for module, (package, extra) in _extras._FROM.items():
        having = [name for name, wants in extras.items() if any(w.startswith(package) for w in wants)]
        assert extra in having, module
        assert len(extras[extra]) == min(len(extras[name]) for name in having), module


# --- the lines of verify ----------------------------------------------------------------------------------------------


def result(**changes):
    row = {"estimate": 0.50150, "law": 0.50155, "low": 0.5, "high": 0.502, "detectable": 0.002, "relation": "equal"}
    vacuous = row | {"estimate": 0.94533, "law": 0.0, "relation": "at_least", "detectable": 1e-9}
    sure = row | {"estimate": 1.0, "law": 1.0, "detectable": 1e-8}
    rows = changes.pop("rows", [vacuous, sure, row])
    checks = [
        {"kind": "derivation", "rows": []},
        {"kind": "reference", "rows": []},
        {"kind": "simulation", "rows": rows},
    ]
    return {"id": "some_claim", "verdict": "PROVED", "passed": True, "seconds": 4.7, "checks": checks} | changes


def test_a_line_drops_columns_but_never_cuts_digits():
    from resonance_theory.cli.verify import _line

    whole = _line(result(), "[ 1/97]", 34, None)
    assert whole.startswith("[ 1/97] ✓ PROVED          4.7 s  some_claim ")
    assert "  0.50150 = 0.50155 ± 0.001  " in whole
    assert whole.endswith("  derived, 1 reference, 3 rates")
    cells = whole.split("  ")
    for columns in range(40, 140):
        line = _line(result(), "[ 1/97]", 34, columns)
        assert "4.7 s  some_claim" in line
        assert line == whole or line.endswith(("± 0.001", "some_claim", "3 rates"))
        assert set(line.split("  ")) <= set(cells)
        assert len(line) <= max(columns, 67)


def test_a_rate_that_cannot_fail_is_not_shown():
    from resonance_theory.cli.verify import _rate

    rows = result()["checks"][2]["rows"]
    assert _rate(result(rows=rows[:1])) == ""
    assert _rate(result(rows=rows[:2])).startswith("1.00000 = 1.00000")
    assert _rate(result()).startswith("0.50150 = 0.50155")
    assert _rate(result(rows=[rows[0] | {"relation": "at_most", "law": 1.0}])) == ""


# --- finding one's way ------------------------------------------------------------------------------------------------

SUBCOMMANDS = sorted(
    path.stem.replace("_", "-") for path in Path(cli.__file__).parent.glob("*.py") if not path.stem.startswith("_")
)


def test_help_names_every_subcommand_and_every_argument(capsys):
    status, out, _ = run(capsys)
    assert status == 0
    assert {"verify", "step-time", "gpu"} <= set(SUBCOMMANDS)
    assert all(f"\n    {name} " in out or f"\n    {name}\n" in out for name in SUBCOMMANDS)
    for name in SUBCOMMANDS:
        status, out, _ = run(capsys, name, "--help")
        assert status == 0
        examples = out.split("\nexamples:\n")[1]
        assert f"resonance {name}" in examples
    for name, sub in next(a for a in cli._parser()._actions if a.dest == "command").choices.items():
        assert all(action.help for action in sub.fill()._actions), name


def test_examples_of_the_help_are_understood():
    import importlib

    for name in SUBCOMMANDS:
        module = importlib.import_module(f"resonance_theory.cli.{name.replace('-', '_')}")
        for line in module.EXAMPLES.strip().splitlines():
            words = shlex.split(line.split("  ")[0])
            if words[0] == "resonance" and ">" not in words:
                options = cli._parser().parse_args(words[1:])
                assert callable(options.run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verfy"], "did you mean verify?"),
        (["--versoin"], "unrecognized arguments: --versoin"),
        ([*PLAN, "--xyz", "x"], "resonance plan: unrecognized arguments: --xyz x"),
        ([*PLAN, "--lod", "x"], "did you mean --load?"),
        ([*PLAN, "--blok-length=7"], "did you mean --block-length? (see resonance plan --help)"),
        (["simulate", "sucess_rate"], "did you mean success_rate?"),
        (["simulate", "success_rate", "--device", "cude"], "did you mean cuda?"),
        (["figures", "overveiw"], "did you mean overview?"),
        (["data", "cap_lw"], "did you mean cap_law?"),
        (["bench", "--shapes", "D"], "shapes = 'D' must be one of A, B, C"),
        (["bench", "--runs", "0"], "'0' must be a whole number between 1 and 10^6"),
        (["cost", "--size", "ful"], "did you mean full?"),
        (["gpu"], "--out"),
        (["step-time", "/no/such/folder/x.csv"], "FILE = '/no/such/folder/x.csv' cannot be written"),
        (replace("--rule", "token-chioce"), "did you mean token_choice?"),
    ],
)
def test_near_misses_are_named(capsys, arguments, words):
    assert words in refuse(capsys, *arguments)


def test_rules_may_be_written_with_hyphens(capsys):
    assert run(capsys, *replace("--rule", "token-choice")) == run(capsys, *PLAN)


def test_step_time_writes_the_stored_table(capsys, tmp_path):
    stored = Path(__file__).parents[1] / "simulations" / "results" / "step_time.csv"
    assert run(capsys, "step-time", tmp_path / "t.csv")[0] == 0
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == stored.read_text().splitlines()[0]
    assert run(capsys, "step-time", "-")[1] == (tmp_path / "t.csv").read_text()


def test_gpu_without_a_device_is_bad_input(capsys, monkeypatch, tmp_path):
    from simulations import gpu_suite

    monkeypatch.setattr(gpu_suite, "_device", lambda _: "this machine has no CUDA device")
    assert "nothing was checked: this machine has no CUDA device" in refuse(capsys, "gpu", "--out", tmp_path)
    assert gpu_suite.main(["--out", str(tmp_path)]) == gpu_suite.NO_DEVICE


def test_bash_completes_commands_and_options(capsys, tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    script = run(capsys, "completion")[1]
    ask = 'COMP_WORDS=({words}); COMP_CWORD={last}; _resonance; echo "${{COMPREPLY[@]}}"'
    for words, found in {"resonance ver": "verify", "resonance plan --cand": "--candidate-tail"}.items():
        text = f"{script}\n{ask.format(words=words, last=len(words.split()) - 1)}"
        done = subprocess.run([bash, "-c", text], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == found


# --- random words -----------------------------------------------------------------------------------------------------

# these would compute for minutes, whatever the words: they are parsed and their files checked, no more
WORKLESS = ("bench", "cost", "data", "figures", "gpu")
WORDS = [
    *(
        "plan",
        "audit",
        "simulate",
        "verify",
        "claims",
        "report",
        "completion",
        "step-time",
        "--rule",
        "--tokens",
        "--json",
    ),
    *(
        "--plot",
        "--seed",
        "--experts",
        "--top",
        "--workers",
        "--target",
        "--correlation",
        "--block-length",
        "--all",
        "--out",
    ),
    *(
        "--help",
        "--gates",
        "--resume",
        "--backend",
        "--store",
        "--report",
        "--check",
        "--shapes",
        "adaptive",
        "resonance",
    ),
    *("token_choice", "8", "-1", "nan", "1e400", "0.9", "numpy", "success_rate", "example.npy", "/", ".", "-"),
]
TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), max_size=8)


@pytest.mark.parametrize("examples", [400, pytest.param(2000, marks=pytest.mark.long)])
def test_the_command_line_never_breaks(examples, monkeypatch, tmp_path):
    import importlib

    monkeypatch.chdir(tmp_path)
    for name in WORKLESS:
        monkeypatch.setattr(importlib.import_module(f"resonance_theory.cli.{name}"), "run", lambda options: 0)

    @settings(max_examples=examples, deadline=None)
    @given(st.lists(st.one_of(st.sampled_from(["", *WORDS, *WORKLESS]), TEXT), max_size=6))
    @example(["plan", "--rule"])
    @example(["simulate", "no_such_study"])
    @example(["audit", "/"])
    @example(["audit", "\0"])
    @example([*PLAN, "--json", "\0.json"])
    def attempt(words):
        # Verification and studies that would run for minutes get a pattern that matches nothing.
        if words[:1] in (["verify"], ["simulate"]):
            study = any(w.startswith("--al") or "success_rate".startswith(w) for w in words[1:])
            words = [words[0], "no such one", *(words[1:] if words[0] == "simulate" and not study else [])]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
        assert status in (0, 1, 2)
        assert "Traceback" not in err.getvalue()
        if status == 2:
            assert len(err.getvalue().strip().splitlines()) == 1, err.getvalue()
            assert out.getvalue() == ""
            assert not re.search("[\x00-\x1f\x7f-\x9f]", err.getvalue()[:-1])

    attempt()


# --- as a program -----------------------------------------------------------------------------------------------------


def test_the_program_works_from_any_folder(tmp_path):
    program = Path(sys.executable).with_name("resonance")
    command = [str(program)] if program.exists() else [sys.executable, "-m", "resonance_theory.cli"]
    done = subprocess.run([*command, "claims"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "exchangeability_identity" in done.stdout
    broken = subprocess.run(
        [*command, *replace("--target", "7")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert broken.returncode == 2
    assert broken.stdout == ""
    assert "target = 7.0 must be" in broken.stderr
