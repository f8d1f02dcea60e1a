"""The language-model study: its text, its n-gram lines, and that no logit sees a later token where none should."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from resonance_theory.evidence.sampling import generator
from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies.study import run_study, settings_of
from simulations import _corpus, _language, _ngram, language_model, training_cost

torch = pytest.importorskip(
    "torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'"
)

SENTENCE = b"def place(self, token):\n    return self.table[token] + 1\n\nclass Other:\n    pass\n"
SMALL = {
    "tokens": 32, "batch": 4, "steps": 2, "calibration_windows": 6, "test_windows": 8, "dim": 16, "hidden": 24,
    "layers": 2, "heads": 2, "experts": 4, "grams": [3], "table": 64,
}  # fmt: skip


@pytest.fixture
def settings(monkeypatch):
    rng = np.random.default_rng(0)

    def text(words):
        lines = [SENTENCE[: int(rng.integers(1, len(SENTENCE)))] for _ in range(words)]
        return np.frombuffer(b"".join(lines), np.uint8)

    splits = {"training": text(400), "calibration": text(60), "test": text(60)}
    monkeypatch.setattr(_corpus, "load", lambda accepted: splits)
    return settings_of("language_model", full=False) | SMALL


LABELS = [
    "dense", "linear top-1", "LocMoE", "expert choice", "resonance", "resonance, adaptive", "resonance, by theory",
    "random keep", "position keep", "random routing", "learned gate", "centred", "orthogonal map",
]  # fmt: skip


def arm_of(settings, label):
    return {arm.label: arm for arm in language_model.arms(settings)}[label].parameters


def model_of(settings, label, seed=0):
    parameters = arm_of(settings, label)
    return _language.build(parameters["arm"], parameters["size"], seed)


# --- text -------------------------------------------------------------------------------------------------------------


def test_files_are_read_once_and_split_without_overlap(tmp_path):
    for i in range(60):
        (tmp_path / f"m{i}.py").write_text(f"x = {i}\n")
    for path, content in {
        "copy.py": "x = 3\n",
        "empty.py": "",
        "site-packages/a.py": "y",
        "t/__pycache__/b.py": "z",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    files = _corpus.collect(tmp_path)
    assert len(files) == len(set(files.values())) == 60
    parts = _corpus.split(files)
    assert sorted(path for paths in parts.values() for path in paths) == sorted(files)
    assert len(parts["training"]) > 35
    assert all(parts.values())
    fewer = {path: content for path, content in files.items() if path != "m7.py"}
    for name, paths in _corpus.split(fewer).items():
        assert set(paths) == set(parts[name]) - {"m7.py"}


def test_another_text_is_refused_until_its_hash_is_written_down(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    key = _corpus.digest(_corpus.collect(tmp_path))
    assert key == hashlib.sha256(b"a.py\0" + b"6\0" + b"x = 1\n").hexdigest()
    _corpus.check(key, [key], "3.9.9")
    (tmp_path / "a.py").write_text("x = 2\n")
    other = _corpus.digest(_corpus.collect(tmp_path))
    with pytest.raises(ValueError, match=f"Python 3.9.9 is a corpus of SHA-256 {other}.*write it there"):
        _corpus.check(other, [key], "3.9.9")


def test_the_library_of_this_python_is_checked():
    with pytest.raises(ValueError, match="corpora"):
        _corpus.load(("0" * 64,))


def test_every_arm_of_a_run_sees_the_same_windows(settings, monkeypatch):
    seen = {}
    for label in LABELS:
        monkeypatch.setattr(_language, "fit", lambda model, data, *_: seen[label].append(data.copy()))  # noqa: B023
        monkeypatch.setattr(_language, "processed", lambda *_: {"capacity": 1.0})
        monkeypatch.setattr(_language, "measure", lambda _, c, t, *__: seen[label].extend([c, t]) or {})  # noqa: B023
        seen[label] = []
        language_model.train(generator(0, "t", 0), 1, **arm_of(settings, label))
    monkeypatch.setattr(_ngram, "loss", lambda tables, test: seen["bigram"].append(test) or 1.0)
    seen["bigram"] = []
    language_model.line(generator(0, "t", 0), 1, **arm_of(settings, "bigram"))
    for one, two in pairwise(seen[label] for label in LABELS):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert np.array_equal(seen["bigram"][0], seen["dense"][2])


def test_a_pass_shows_every_window_once_and_four_passes_are_the_most(settings):
    text = arm_of(settings, "dense")["text"]
    everything = _language.windows(_corpus.load(())["training"], text["tokens"])
    steps = 2 * len(everything) // text["batch"]
    drawn = _language.draw(np.random.default_rng(0), **text | {"steps": steps})[0].reshape(-1, 33)
    _, count = np.unique(drawn, axis=0, return_counts=True)
    _, there = np.unique(everything, axis=0, return_counts=True)
    assert (count <= 2 * there).all()
    assert (everything[1:, 0] == everything[:-1, -1]).all()  # no byte goes unpredicted
    with pytest.raises(ValueError, match="at most 4 times"):
        _language.draw(np.random.default_rng(0), **text | {"steps": 3 * steps})


# --- n-grams ----------------------------------------------------------------------------------------------------------


def bytes_of(rows, width, seed):
    rng = np.random.default_rng(seed)
    return rng.choice(np.frombuffer(b"aaabbc", np.uint8), (rows, width))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_one_and_beat_the_uniform_law(order):
    tables = _ngram.fit(bytes_of(50, 9, 0), order)
    context = bytes_of(5, 6, 1)
    every = [np.column_stack([context, np.full(5, b, np.uint8)]) for b in range(256)]
    total = sum(_ngram.probability(tables, w)[:, -1] for w in every)
    assert total == pytest.approx([1.0] * 5, abs=1e-12)
    assert _ngram.loss(tables, bytes_of(20, 9, 2)) < np.log(256) / 2


def test_witten_bell_by_hand():
    """Windows abab and abac: a follows b twice, c... by counting."""
    windows = np.frombuffer(b"ababaabc", np.uint8).reshape(2, 4)
    tables = _ngram.fit(windows, 2)
    # unigrams: a 4, b 3, c 1, three different bytes; after b: a 1, c 1
    p_a = (4 + 3 / 256) / 11
    assert _ngram.probability(tables, np.frombuffer(b"ba", np.uint8)[None])[0, 0] == pytest.approx(
        (1 + 2 * p_a) / 4, rel=1e-12
    )
    # nothing follows c, so what follows it is as frequent as anywhere
    assert _ngram.probability(tables, np.frombuffer(b"ca", np.uint8)[None])[0, 0] == pytest.approx(p_a, rel=1e-12)


def test_a_context_ends_where_its_window_begins():
    windows = np.frombuffer(b"abcdabcd", np.uint8).reshape(2, 4)
    assert not (_ngram.fit(windows, 2)[1].gram == ord("d") * 256 + ord("a")).any()
    tables = _ngram.fit(windows, 4)
    short = _ngram.probability(tables[:2], windows)[:, 0]
    assert _ngram.probability(tables, windows)[:, 0] == pytest.approx(short, rel=1e-12)


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS)
def test_one_step_reaches_every_parameter(settings, label):
    torch.manual_seed(0)
    model = model_of(settings, label)
    x = torch.from_numpy(_language.windows(_corpus.load(())["training"], 32)[:8].astype(np.int64))
    loss = _language.loss_of(model, x)
    loss.backward()
    assert torch.isfinite(loss)
    assert abs(float(loss.detach()) - np.log(256)) < 1.5
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32, name
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_arms_start_from_the_same_weights(settings):
    models = {label: dict(model_of(settings, label, seed=3).named_parameters()) for label in LABELS}
    shared = [name for name in models["dense"] if ".feed." not in name]
    routed = [name for name in models["resonance"] if "experts" in name]
    assert len(shared) > 10
    assert len(routed) == 8
    for label in LABELS:
        assert all(torch.equal(models[label][name], models["dense"][name]) for name in shared), label
        assert label == "dense" or all(
            torch.equal(models[label][name], models["resonance"][name]) for name in routed
        ), label


def test_gates_of_all_arms_have_one_scale(settings):
    """Logits before the softmax: spread of about 1 for learned and for GrAP gates."""
    x = torch.nn.functional.layer_norm(torch.randn(4, 32, 16, generator=torch.Generator().manual_seed(1)), (16,))
    for label in ("linear top-1", "LocMoE", "centred", "orthogonal map"):
        router = _language.routers_of(model_of(settings, label))[0]
        log = router(x).probability.log()
        spread = (log - log.mean(-1, keepdim=True)).detach().std() / 0.75**0.5
        assert 0.6 < float(spread) < 1.5, label


def calibrated(settings, label):
    from simulations._causal import calibrate

    model = model_of(settings, label).eval()
    routers = _language.routers_of(model)
    text = torch.from_numpy(_language.windows(_corpus.load(())["calibration"], 32)[:24].astype(np.int64))[:, :-1]
    torch.manual_seed(5)
    calibrate(model, routers, [text[:12], text[12:]])
    return model, routers, text


LEAKY = [
    "expert choice",
    "resonance",
    "resonance, adaptive",
    "random keep",
    "learned gate",
    "centred",
    "orthogonal map",
]


def changed_by_the_future(model, routers, text, mode):
    """Largest change of logits of the first 20 tokens when the 12 after them are others."""
    for router in routers:
        router.mode = mode
    found = []
    for later in (text, torch.cat([text[:, :20], text.flip(0)[:, 20:]], dim=1)):
        torch.manual_seed(9)
        with torch.no_grad():
            found.append(model(later)[:, :20])
    return float((found[0] - found[1]).abs().max())


@pytest.mark.parametrize("label", LABELS)
def test_no_later_token_moves_an_earlier_logit(settings, label):
    model, routers, text = calibrated(settings, label)
    assert changed_by_the_future(model, routers, text, "threshold") < 1e-5
    leak = changed_by_the_future(model, routers, text, "select")
    if label in LEAKY:  # the mutant: selection among all tokens of the window
        assert leak > 1e-3
    elif label != "resonance, by theory":  # before any measurement it has slots for nearly everyone
        assert leak < 1e-5


@pytest.mark.parametrize("label", LEAKY)
def test_thresholds_keep_what_selection_keeps(settings, label):
    model, routers, text = calibrated(settings, label)

    def kept(modes):
        for router, mode in zip(routers, modes, strict=True):
            router.mode, router.seen = mode, []
        torch.manual_seed(5)
        with torch.no_grad():
            model(text)
        return [router.seen[0][1].kept.sum(0) for router in routers]

    for layer in range(2):
        before = ["threshold"] * layer
        rest = ["select"] * (1 - layer)
        selected, causal = kept([*before, "select", *rest])[layer], kept([*before, "threshold", *rest])[layer]
        if label == "random keep":  # other coins
            assert float((selected - causal).abs().max()) < 6 * 16
        else:
            assert float((selected - causal).abs().max()) <= 4  # tokens of one score stay together
    assert float(sum(kept(["all"] * 2)[1])) > float(sum(selected))


@pytest.mark.parametrize("label", LABELS[1:])
@pytest.mark.parametrize("mode", ["select", "threshold"])
def test_dropped_tokens_and_padding_take_the_residual_alone(settings, label, mode):
    model, routers, _ = calibrated(settings, label)
    layer = model.blocks[0].feed
    x = torch.randn(3, 32, 16, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(3, 32, dtype=torch.bool)
    padding[1, 25:] = True
    routers[0].mode = mode
    with torch.no_grad():
        y, routing = layer(x, padding, return_routing=True)
    out = routing.dropped | padding
    assert bool(routing.dropped.any()) or label in ("random routing", "resonance, by theory", "linear top-1", "LocMoE")
    assert float(y[out].abs().max()) == 0
    assert (y[~out].abs().amax(-1) > 0).all()
    # and within a block nothing else is added
    block = model.blocks[0]
    torch.manual_seed(1)
    with torch.no_grad():
        middle = x + block.out(_attention(block, x))
        torch.manual_seed(1)
        whole = block(x)
        torch.manual_seed(1)
        routing = routers[0](block.after(middle))
    assert torch.allclose(whole[routing.dropped], middle[routing.dropped], atol=1e-6)


def _attention(block, x):
    query, key, value = (p.unflatten(-1, (2, -1)).transpose(1, 2) for p in block.mix(block.before(x)).chunk(3, dim=-1))
    weight = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    weight = weight.masked_fill(torch.ones(32, 32).triu(1).bool(), -torch.inf).softmax(-1)
    return (weight @ value).transpose(1, 2).flatten(2)


def test_random_keep_takes_candidates_of_its_expert_without_regard_to_place(settings):
    routers = _language.routers_of(model_of(settings, "random keep"))
    x = torch.randn(1, 32, 16, generator=torch.Generator().manual_seed(2)).expand(2000, -1, -1)
    torch.manual_seed(0)
    routing = routers[0](x)
    best = routing.expert[..., 0].gather(1, routing.token.flatten(1)).reshape(routing.token.shape)
    column = torch.arange(4)[:, None].expand_as(best)
    assert torch.equal(best[routing.filled], column[routing.filled])
    assert torch.equal(routing.kept, routing.load.clamp(max=routing.token.shape[-1]))
    share = routing.copies.double().mean(0)
    crowded = routing.load[0] > routing.token.shape[-1]
    for i in crowded.nonzero().flatten().tolist():
        mine = share[routing.expert[0, :, 0] == i]
        assert float((mine - mine.mean()).abs().max()) < 5 * 0.5 / 2000**0.5
    assert bool(crowded.any())


@pytest.mark.parametrize("label", ["linear top-1", "expert choice", "resonance, adaptive", "random keep", "centred"])
def test_no_step_waits_for_the_device(settings, label):
    """On torch's meta device there are no values, so whatever looks at one raises."""
    model = model_of(settings | {"layers": 1}, label).to("meta")
    counted = _language.fit(model, np.zeros((1, 4, 33), np.uint8), 0.01, 0.01, "meta")
    assert {value.device.type for value in counted.values()} == {"meta"}


def test_the_test_of_waiting_can_fail(settings):
    """A capacity that follows measurements looks at them, every 50 steps."""
    model = model_of(settings | {"layers": 1}, "resonance, by theory").to("meta")
    with pytest.raises(RuntimeError, match="meta"):
        _language.fit(model, np.zeros((1, 4, 33), np.uint8), 0.01, 0.01, "meta")


@pytest.mark.parametrize("label", LABELS)
def test_a_short_run_measures_and_repeats(settings, label):
    parameters = arm_of(settings, label)
    found = language_model.train(generator(0, "t", 0), 1, **parameters)
    assert found == language_model.train(generator(0, "t", 0), 1, **parameters)
    value = {key.rpartition("/")[0]: v / 1e6 for key, v in found.items()}
    assert 1 < value["loss"] < 7
    if label == "dense":
        return
    assert value["processed"] == pytest.approx(value["capacity"] * (1 - value["padding"]), abs=2e-6)
    loads = [value[f"load {i}"] for i in range(4)]
    assert sum(loads) == pytest.approx(1, abs=1e-5)
    assert 0 <= value["cka"] <= 1
    assert 0 <= value["dispatch entropy"] <= np.log(4) + 1e-6
    if label in ("linear top-1", "LocMoE", "position keep", "random routing"):
        assert value["loss"] == value["loss selected"]  # nothing leaks
        assert value["dropped"] == pytest.approx(1 - value["processed"], abs=2e-6)
    if label == "random routing":
        assert value["dropped"] == value["dropped selected"] == 0
        assert value["capacity"] == pytest.approx(4 * 9 / 32)
    if label in ("resonance", "random keep", "position keep"):
        assert value["capacity"] == pytest.approx(4 * 6 / 32)  # 40 % fewer slots than 9 ...
        assert value["processed"] > 0.6 * min(1.0, 4 * 9 / 32)  # ... and not 40 % fewer tokens
        assert 0 <= value["dropped law"] <= 1


def test_training_lowers_the_loss(settings):
    before, after = (
        language_model.train(generator(0, "t", 0), 1, **arm_of(settings | {"steps": steps}, "resonance"))["loss/0"]
        for steps in (1, 60)
    )
    assert after < 0.8 * before


# --- the study --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("full", [False, True])
def test_the_settings_name_arms_that_there_are(full, device):
    settings = settings_of("language_model", full=full, device=device)
    labels = [arm.label for arm in language_model.arms(settings)]
    assert [label for label in labels if "gram" not in label] == LABELS
    for row in settings["premises"] + settings["comparisons"]:
        assert {row["first"], row["second"]} <= set(labels)
    assert settings["dim"] % settings["experts"] == 0
    assert (settings["dim"] == 64) == (device == "cpu" or not full)


def test_the_study_says_that_it_claims_nothing(settings, monkeypatch):
    some = {"blocks": 2, "comparisons": settings["comparisons"][:3], "premises": settings["premises"][:1]}
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: settings | some)
    chosen = ("dense", "LocMoE", "resonance", "random keep", "position keep", "4-gram", "4-gram, all text")
    whole = language_model.arms
    monkeypatch.setattr(language_model, "arms", lambda s: [arm for arm in whole(s) if arm.label in chosen])
    result = run_study("language_model", progress=None)
    assert "smoke test: no claim" in result.table()
    assert not result.passed
    assert {row["verdict"] for row in result.rows if "expect" in row and "premise" not in row} == {"NO CLAIM"}


# --- what a step costs ------------------------------------------------------------------------------------------------


def test_cost_of_every_arm_is_measured_and_recorded(settings, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(training_cost, "settings_of", lambda *_, **__: settings)
    monkeypatch.setattr(training_cost, "peak", lambda _, label: len(label))  # a process each: tried below
    training_cost.run("quick", 1, 2, str(tmp_path / "r.json"))
    record = json.loads((tmp_path / "r.json").read_text())
    assert list(record["arms"]) == LABELS
    for label, row in record["arms"].items():
        assert len(row["step_ms"]) == 2
        assert min(row["step_ms"]) > 0
        assert row["memory"] == len(label)
    table = capsys.readouterr().out
    assert all(label in table for label in LABELS)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is counted on Linux alone")
def test_memory_of_a_step_grows_with_the_slots(settings):
    large = settings | {"tokens": 64, "batch": 32, "hidden": 256, "capacity_factor": 4.0}
    every, some = training_cost.peak(large, "LocMoE"), training_cost.peak(large, "position keep")
    # 3.34 slots a token more, each with at least input, hidden units and output in forward and gradient, in two layers
    assert every - some > 3 * 64 * 32 * (16 + 256 + 16) * 4


def test_the_page_shows_the_recorded_cost():
    root = Path(language_model.__file__).parent
    page = (root / "findings" / "language_model.md").read_text(encoding="utf-8")
    arms = json.loads((root / "results" / "training_cost.json").read_text())["arms"]
    assert list(arms) == LABELS
    for label, row in arms.items():
        ms = row["step_ms"]
        cell = f"{np.median(ms):.1f} ({min(ms):.1f} to {max(ms):.1f}) | {row['memory'] / 1e6:.1f}"
        assert f"| {label} | {cell} |" in page
