"""The command line: what it prints, what it writes, and one sentence with status 2 for everything that is wrong."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    status, out, _ = run(capsys, *PLAN, "--json")
    record = json.loads(out)
    assert status == 0
    assert record["capacity"] == 488  # N9's example
    assert record["success"] >= 0.95 > record["success_below"]
    status, out, _ = run(capsys, *PLAN)
    assert "488" in out


@pytest.mark.parametrize(("rho", "capacity"), [("0.6", 336), ("0.4", 229), ("0.1", 64)])
def test_plan_for_resonance(capsys, rho, capacity):
    status, out, _ = run(capsys, *replace("--rule", "resonance"), "--percentile", rho, "--json")
    record = json.loads(out)
    assert status == 0
    assert record["capacity"] == capacity
    assert record["saving"] == pytest.approx(1 - capacity / 488)


def test_plan_for_the_planted_model(capsys):
    planted = ["--signal", "2.5", "--dim", "64", "--tokens", "256", "--target", "0.6"]
    answers = {}
    for rule in ("resonance", "expert_choice"):
        _, out, _ = run(capsys, *replace("--rule", rule), *planted, "--json")
        answers[rule] = json.loads(out)
        assert answers[rule]["success"] >= 0.6 > answers[rule]["success_below"]
    assert answers["expert_choice"]["capacity"] <= answers["resonance"]["capacity"]  # N8's order


def test_plans_are_drawn_alike_every_time_and_as_every_figure_is(tmp_path):
    from resonance_theory import _style
    from resonance_theory.plan import plan
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
        status, out, _ = run(capsys, *replace("--tokens", "256"), *options, "--json")
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
    _, alone, _ = run(capsys, *replace("--rule", "resonance"), *planted, "--json")
    _, out, _ = run(capsys, *replace("--rule", "resonance"), *planted, "--correlation", "0.3", "--json")
    assert json.loads(out)["independent"] == json.loads(alone)["capacity"] > json.loads(out)["capacity"]
    _, out, _ = run(capsys, *replace("--rule", "resonance"), "--percentile", "0.4", "--block-length", "4")
    assert "in runs of 4" in out
    assert "if independent" in out


def test_plan_for_adaptive_capacity(capsys, tmp_path):
    """The least share: its own router succeeds as often as asked for, and at a share a little smaller no longer."""
    import resonance_theory as rt

    planted = ["--signal", "2", "--dim", "16", "--tokens", "32", "--experts", "4", "--target", "0.7"]
    status, out, err = run(capsys, *replace("--rule", "adaptive"), *planted, "--json", "--plot", tmp_path / "p.svg")
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
        (replace("--rule", "best"), "rule = 'best' must be one of token_choice, expert_choice, resonance, adaptive"),
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
            "tokens = 20000000 must be a whole number between",
        ),
        ([*replace("--rule", "expert_choice"), "--correlation", "0.1"], "must not be given for expert_choice"),
        ([*replace("--rule", "adaptive"), "--block-length", "2"], "must not be given for adaptive"),
        (replace("--rule", "adaptive"), "adaptive needs signal with dim"),
        ([*replace("--rule", "adaptive"), "--percentile", "0.3"], "adaptive needs signal with dim"),
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
        ([], "required"),
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
        "--json",
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
    status, out, _ = run(capsys, "claims", "--json")
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
    pages = ["figures.html", "index.html", "training.html"]
    assert sorted(f.name for f in (tmp_path / "r").iterdir()) == sorted(
        [*pages, "junit.xml", "ledger.json", "ledger.md"]
    )
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


def test_outputs_do_not_replace_inputs(capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((64, 8)))
    before = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "link.json").symlink_to("x.npy")
    for name in ("x.npy", "link.json"):
        words = refuse(capsys, "audit", tmp_path / "x.npy", "--experts", "4", "--json", tmp_path / name)
        assert "would overwrite FILE" in words
    assert (tmp_path / "x.npy").read_bytes() == before


def test_devices_and_links_are_written_through(capsys, tmp_path):
    """As a superuser a rename would put a file in the place of /dev/null."""
    assert run(capsys, *PLAN, "--json", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()
    (tmp_path / "link.json").symlink_to("real.json")
    assert run(capsys, *PLAN, "--json", tmp_path / "link.json")[0] == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["capacity"] == 488


# --- audit ------------------------------------------------------------------------------------------------------------


def test_audit_of_the_example(capsys, tmp_path):
    status, out, err = run(capsys, "audit", "example", "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    assert status == 0, err
    assert "layer.6" in out
    assert json.loads((tmp_path / "a.json").read_text())
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_audit_of_own_gates_and_of_lone_tokens(capsys, tmp_path):
    """--gates, --center, and a file of (tokens, features)."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((64, 12)))
    np.save(tmp_path / "w.npy", rng.standard_normal((5, 12)))
    status, out, err = run(capsys, "audit", tmp_path / "x.npy", "--gates", tmp_path / "w.npy", "--center", "--json")
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
        "integer.npy": np.ones((4, 32, 16), dtype=np.int64),
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
