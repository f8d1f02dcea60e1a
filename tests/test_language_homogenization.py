"""Homogenization along the training of a small language model: its measurements by hand, its closed forms, tiny runs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from resonance_theory import affinity, homogenization
from resonance_theory.evidence.sampling import generator
from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies.study import run_study, settings_of
from simulations import _corpus, _language, _metrics, language_model
from simulations import language_homogenization as study
from tests.trainings import assert_measured, assert_repeats, of_run, train

torch = pytest.importorskip(
    "torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'"
)

LINE = b"def place(self, token):\n    return self.table[token] + 1\n\nclass Other(Base):\n    size = 27\n"
SMALL = {
    "tokens": 32, "batch": 16, "checkpoints": [0, 1, 3], "calibration_windows": 6, "test_windows": 16, "dim": 16,
    "hidden": 24, "layers": 2, "heads": 2, "grams": [3], "table": 64, "drawn": 400,
}  # fmt: skip
ISOTROPIC = [f"{name} @0" for name in ("calinski-harabasz, all tokens", "byte information", "cka", "load cv")]


@pytest.fixture(scope="module")
def runs():
    """Two tiny runs of every arm: (arms, their metrics by label and run, their counts by label)."""
    rng = np.random.default_rng(0)
    text = b"".join(LINE[: int(rng.integers(1, len(LINE)))] for _ in range(400))
    splits = dict.fromkeys(("training", "calibration", "test"), np.frombuffer(text, np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_corpus, "load", lambda accepted: splits)
        arms = study.arms(settings_of("language_homogenization", full=True) | SMALL)
        counts = {arm.label: train(arm) for arm in arms}
        found = {label: [of_run(mine, study.PER, run) for run in range(2)] for label, mine in counts.items()}
        yield {arm.label: arm for arm in arms}, found, counts


# --- measurements -----------------------------------------------------------------------------------------------------


def test_bytes_and_what_an_expert_tells_of_them():
    kind = study.byte_class()
    assert [int(kind[b]) for b in b"\n 7xX_"] == [0, 1, 2, 3, 4, 5]
    assert np.bincount(kind).tolist() == [1, 1, 10, 26, 26, 192]
    # three tokens of a at expert 0, one at 1; four of b at 1
    group, expert = np.array([0] * 4 + [1] * 4), np.array([0, 0, 0, 1, 1, 1, 1, 1])
    by_hand = (3 / 8) * math.log(2) + (1 / 8) * math.log((1 / 8) / (1 / 2 * 5 / 8)) + (1 / 2) * math.log(8 / 5)
    assert _metrics.information(group, 2, expert, 2) == pytest.approx(by_hand)


@pytest.mark.parametrize("label", ["resonance", "orthogonal map"])
def test_unit_gates_have_the_cosines_of_the_router(runs, label):
    arm = runs[0][label].parameters
    router = _language.routers_of(_language.build(arm["arm"], arm["size"], 0))[0]
    x = torch.randn(3, 32, 16, generator=torch.Generator().manual_seed(1))
    routing, gates = router(x), study.gates_of(router.inner.gate, 16, 4)
    assert gates @ gates.T == pytest.approx(np.eye(4), abs=1e-6)
    assert affinity(x.double().numpy(), gates=gates) == pytest.approx(routing.score.detach().numpy(), abs=1e-5)


def test_measurements_of_a_layer_by_hand(runs):
    arm = runs[0]["resonance"].parameters
    router = _language.routers_of(_language.build(arm["arm"], arm["size"], 0))[0]
    x = torch.randn(5, 32, 16, generator=torch.Generator().manual_seed(2)) + 0.3
    text = np.random.default_rng(3).choice(np.frombuffer(b"ab \n", np.uint8), (5, 32))
    routing = router(x)
    found, tokens = study.routed(x.double().numpy(), text, routing), x.double().numpy()
    pairs = [
        (b, int(routing.token[b, i, c]), i) for b, i, c in np.argwhere(routing.filled.numpy())
    ]  # window, token, expert
    assert found["kept"] == pytest.approx(len(pairs) / 160)
    kept = np.array([tokens[b, t] for b, t, _ in pairs])
    expert = np.array([i for *_, i in pairs])
    assert found["calinski-harabasz"] == pytest.approx(
        float(homogenization.calinski_harabasz(kept, expert, normalized=False))
    )
    best = affinity(tokens.reshape(-1, 16), 4).argmax(axis=1)
    assert found["calinski-harabasz, all tokens"] == pytest.approx(
        float(homogenization.calinski_harabasz(tokens.reshape(-1, 16), best, normalized=False))
    )
    assert found["heaviest share"] == pytest.approx(np.bincount(best).max() / 160)
    table = np.zeros((256, 4))
    for b, t, i in pairs:
        table[text[b, t], i] += 1
    assert found["byte information"] == pytest.approx(homogenization.dispatch_information(table))
    assert 0 < found["class information"] <= found["byte information"]


def test_normalised_isotropic_tokens_have_one_dimension_less():
    """Uniform on the sphere in the hyperplane across the vector of ones, through GrAP gates; .002 is five errors."""
    x = np.random.default_rng(4).normal(size=(100_000, 16))
    x = x - x.mean(axis=1, keepdims=True)
    x *= 4 / np.linalg.norm(x, axis=1, keepdims=True)
    best = affinity(x, 4).argmax(axis=1)
    index = float(homogenization.calinski_harabasz(x, best, normalized=False))
    found = study.predicted(np.random.default_rng(5), x, study.gates_of(None, 16, 4), 100)
    assert found["isotropic law"] == pytest.approx(index, abs=0.002)
    assert abs(float(homogenization.token_choice_scatter(16, 4, sphere=True)) - index) > 0.004  # with all 16 it fails


def test_gaussian_tokens_meet_the_law_of_their_covariance():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(5000, 16)) @ rng.normal(size=(16, 16)) + 3.0
    found = study.predicted(rng, x, study.gates_of(None, 16, 4), 50_000)
    assert found["calinski-harabasz, Gaussian"] == pytest.approx(found["calinski-harabasz law"], rel=0.05)
    assert abs(found["calinski-harabasz law"] - found["isotropic law"]) > 0.1 * found["isotropic law"]


# --- tiny runs --------------------------------------------------------------------------------------------------------


def test_tiny_runs(runs):
    arms, found, _ = runs
    for label in arms:
        assert found[label][0].keys() == found["resonance"][0].keys()
        for v in found[label]:
            for step in ("@0", "@1", "@end"):
                assert 0 < v[f"kept {step}"] <= 1 or label == "expert choice"
                assert 0.25 <= v[f"heaviest share {step}"] <= 1
                assert 0 <= v[f"entropy {step}"] <= math.log(4) + 1e-4
                assert 0 <= v[f"class information {step}"] <= v[f"byte information {step}"] + 1e-4
                assert v[f"byte information {step}"] <= math.log(4) + 1e-4
                assert 0 <= v[f"centroid distance {step}"] <= 2
                assert 0 < v[f"cka chance {step}"] < v[f"cka {step}"] <= 1
                assert v[f"token distance at one expert {step}"] <= 2
            assert "calinski-harabasz law @0" in v
            assert "calinski-harabasz law @1" not in v
            assert v["loss selected @end"] != v["loss selected @0"]
            assert (v["cka @0"] > 0.9) == (label == "resonance, copies")


def test_arms_of_a_run_share_text_and_initial_weights(runs):
    _, found, _ = runs
    for run in range(2):
        start = {label: {k: v for k, v in found[label][run].items() if k.endswith("@0")} for label in found}
        assert start["resonance, no balance loss"] == start["resonance"]
        for label in ("LocMoE", "random keep"):  # the first layer's tokens are the same, but what is kept is not
            assert start[label]["calinski-harabasz @0"] != start["resonance"]["calinski-harabasz @0"]
        assert found["resonance, no balance loss"][run] != found["resonance"][run]
    assert found["resonance"][0] != found["resonance"][1]


@pytest.mark.parametrize("label", ["resonance", "random keep", "centred"])
def test_watching_does_not_change_the_training(runs, label):
    """The network of `language_model` under the same arm, unwatched; its own count of the index, by sums on the device."""
    arms, found, counts = runs
    own = {key: arms[label].parameters[key] for key in ("arm", "text", "size", "rate", "alpha")}
    plain = language_model.train(generator(0, "t", 0), 2, **own)
    for run in range(2):
        for name in ("processed", "loss"):
            assert counts[label][f"{name}/{run}"] == round(plain[f"{name}/{run}"] / 1e6 * study.PER), name
        if label == "resonance":
            for theirs, mine in (("calinski harabasz", "calinski-harabasz, standard @end"), ("cka", "cka @end")):
                assert found[label][run][mine] == pytest.approx(plain[f"{theirs}/{run}"] / 1e6, rel=1e-3), mine


def test_watching_with_the_generator_of_the_training_would_be_seen(runs):
    arm = runs[0]["random keep"].parameters

    def kept(watch):
        data = _language.draw(np.random.default_rng(0), **arm["text"])[0]
        model = _language.build(arm["arm"], arm["size"], 0)
        torch.manual_seed(0)
        _language.fit(model, data, 0.01, 0.01, "cpu", watch)
        return float(_language.loss_of(model.eval(), torch.from_numpy(data[0].astype(np.int64))).detach())

    steps = []
    assert kept(None) == kept(steps.append)
    assert steps == [0, 1, 2, 3]
    assert kept(None) != kept(lambda _: torch.rand(1))


def test_a_run_is_a_function_of_its_stream(runs):
    arms, _, counts = runs
    arm = arms["random keep"]
    first = {key: value for key, value in counts["random keep"].items() if key.endswith("/0")}
    assert_repeats(arm, first, runs=1)


# --- the study --------------------------------------------------------------------------------------------------------


def test_what_is_compared_is_measured(runs):
    _, _, counts = runs
    assert_measured("language_homogenization", counts)
    for full in (False, True):
        columns = settings_of("language_homogenization", full=full)["columns"]
        assert all(f"{column}/0" in counts["resonance"] for column in columns)


def test_a_quick_run_claims_nothing(runs, monkeypatch):
    settings = settings_of("language_homogenization", full=False)
    settings["comparisons"] = settings["comparisons"][:1]
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: settings | SMALL)
    chosen = [runs[0][label] for label in ("resonance", "random keep")]
    monkeypatch.setattr(study, "arms", lambda _: chosen)
    result = run_study("language_homogenization", progress=None)
    assert "smoke test: no claim" in result.table()
    assert not result.passed
    assert {row["verdict"] for row in result.rows if "expect" in row and "premise" not in row} == {"NO CLAIM"}


def test_the_page_shows_the_record():
    root = Path(study.__file__).parent
    page = (root / "findings" / "language_homogenization.md").read_text(encoding="utf-8")
    first, *rows = map(json.loads, (root / "results" / "language_homogenization.jsonl").read_text().splitlines())
    assert first["provenance"]["seed"] == 0
    for row in rows:
        if "arm" in row:
            for metric in ("calinski-harabasz @0", "byte information @end", "cka @end", "heaviest share @end"):
                found = row["metrics"][metric]
                half = (found["high"] - found["low"]) / 2
                assert f"| {found['mean']:.3f} ± {half:.3f} ".replace("0.", ".") in page, (row["arm"], metric)
        else:
            limits = [
                [f"{row[side]:.{digits}f}".replace("0.", ".") for side in ("low", "high")] for digits in (2, 3, 4)
            ]
            assert any(f"[{low}, {high}] | " in page for low, high in limits), row["metric"]
            assert row["verdict"] in ("MEASURED", "SUPPORTED", "INCONCLUSIVE")
