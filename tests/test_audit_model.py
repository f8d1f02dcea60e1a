"""The audit of a model's own routers, on a small random Mixtral stored with a tokenizer of its own."""

import dataclasses
import json
import os
import shutil
import sys

import numpy as np
import pytest

from resonance_theory import audit, cli

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'peers')")

from resonance_theory.audit import model as audited  # noqa: E402

WORDS = [f"w{i}" for i in range(40)]
LENGTH, EXPERTS, TOP, DIM = 32, 4, 2, 24


def save_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """(folder, network, text file, token ids as the words were drawn)."""
    folder = tmp_path_factory.mktemp("model")
    config = transformers.MixtralConfig(
        vocab_size=41,
        hidden_size=DIM,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=EXPERTS,
        num_experts_per_tok=TOP,
        max_position_embeddings=64,
    )
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = transformers.MixtralForCausalLM(config).eval()
    with torch.no_grad():
        for name, p in network.named_parameters():
            if "gate.weight" in name:  # rows of unequal length: inner products and cosines choose differently
                p.mul_(20 * torch.arange(1.0, 1 + EXPERTS)[:, None])
    network.save_pretrained(folder)
    save_tokenizer(folder)
    ids = np.random.default_rng(0).integers(1, 41, 6 * LENGTH + 5)
    text = folder / "text.txt"
    text.write_text(" ".join(WORDS[i - 1] for i in ids), encoding="utf-8")
    return folder, network, text, ids


@pytest.fixture(scope="module")
def captured(stored):
    return audited.capture(stored[0], stored[2], length=LENGTH)[0]


def direct(network, ids):
    """Hidden states before each router and its logits, by a forward of the whole batch and the model's own outputs."""
    entering = []
    hooks = [layer.mlp.register_forward_pre_hook(lambda _, x: entering.append(x[0])) for layer in network.model.layers]
    with torch.no_grad():
        out = network(torch.from_numpy(ids), output_router_logits=True)
    for hook in hooks:
        hook.remove()
    shape = (*ids.shape, EXPERTS)
    return [x.numpy() for x in entering], [x.numpy().reshape(shape) for x in out.router_logits]


def test_captured_states_and_logits_are_those_of_a_direct_forward(stored, captured):
    _, network, _, ids = stored
    hidden, logits = direct(network, ids[: 6 * LENGTH].reshape(6, LENGTH))
    assert len(captured) == len(hidden) == len(logits) == 2
    for k, layer in enumerate(captured):
        np.testing.assert_allclose(layer.hidden, hidden[k], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.logits, logits[k], rtol=1e-4, atol=1e-4)
        taken = np.sort(np.argsort(-layer.logits, axis=-1)[..., :TOP], axis=-1)
        np.testing.assert_array_equal(np.sort(layer.chosen, axis=-1), taken)
        assert layer.agreement > 0.98
        assert not np.allclose(layer.hidden, hidden[1 - k], atol=0.1)


def test_weights_on_the_disk(stored, captured):
    pytest.importorskip("accelerate")
    placed, _ = audited.capture(stored[0], stored[2], length=LENGTH, device_map={"": "disk"})
    for layer, wanted in zip(placed, captured, strict=True):
        assert isinstance(wanted.hidden, np.memmap)  # of no layer's hidden states memory must hold all
        for name in ("hidden", "logits", "chosen", "weight"):
            np.testing.assert_array_equal(getattr(layer, name), getattr(wanted, name))


def test_a_router_that_runs_twice_or_never_is_unlike_mixtral(stored):
    _, network, _, ids = stored
    rows = ids[: 2 * LENGTH].reshape(2, LENGTH)

    class Model(torch.nn.Module):
        def __init__(self, times):
            super().__init__()
            self.inner, self.times = network.model, times

        def forward(self, **given):
            for _ in range(self.times):
                self.inner(**given)

    for times, words in ((2, "runs more than once"), (0, "does not run")):
        with pytest.raises(audited.UnlikeMixtral, match=words):
            audited._run(torch, Model(times), rows, "m")


def test_few_sequences_and_short_texts(stored):
    folder, _, text, ids = stored
    captured, tokens = audited.capture(folder, text, length=LENGTH, sequences=2)
    assert tokens == ids.size
    assert captured[0].hidden.shape == (2, LENGTH, DIM)
    captured, _ = audited.capture(folder, text)  # no longer than the model's positions
    assert captured[0].hidden.shape == (ids.size // 64, 64, DIM)


def test_the_own_router_is_audited_by_its_logits(stored, captured):
    """Loads, drops and the least capacity from the logits' Top-l alone, token by token."""
    folder, _, text, _ = stored
    result = audited.audit_model(folder, text, length=LENGTH, center=False)
    assert (result.own.experts, result.own.top, result.grap.experts) == (EXPERTS, TOP, EXPERTS)
    for layer, report, grap in zip(captured, result.own.layers, result.grap.layers):
        (routing,) = report.routings
        load = np.zeros((6, EXPERTS), dtype=int)
        for b in range(6):
            for scores in layer.logits[b]:
                for expert in sorted(range(EXPERTS), key=lambda i, s=scores: -s[i])[:TOP]:
                    load[b, expert] += 1
        np.testing.assert_allclose([x.value for x in routing.load], load.sum(axis=0) / load.sum(), atol=1e-12)
        for drop in routing.drops:
            capacity = int(np.ceil(drop.factor * TOP * LENGTH / EXPERTS - 1e-9))
            lost = np.maximum(load - capacity, 0).sum() / load.sum()
            assert drop.measured.value == pytest.approx(lost, abs=1e-12)
        needed = next(c for c in range(LENGTH + 1) if np.maximum(load - c, 0).sum() <= 0.01 * load.sum())
        assert routing.token_choice.capacity == needed
        share = load.sum(axis=0) / (6 * LENGTH)
        binomial = LENGTH * (share * (1 - share) + load.var(axis=0, ddof=1) / (6 * LENGTH**2)).sum()
        assert routing.dispersion.value == pytest.approx(load.var(axis=0, ddof=1).sum() / binomial)
        winner = np.quantile(layer.logits.max(axis=-1), [0.05, 0.5, 0.95])
        np.testing.assert_allclose(np.array(routing.affinity.measured)[[0, 2, 4]], winner, rtol=1e-4)
        assert routing.affinity.isotropic is None
        # not what the cosines with the same weight choose, nor GrAP
        (cosine,) = audit.audit(layer.hidden, gates=layer.weight, top=TOP, center=False).layers[0].routings
        assert cosine.load != routing.load
        alone = audit.audit(layer.hidden, experts=EXPERTS, top=TOP, center=False).layers[0].routings[0]
        assert grap.routings[0].load == alone.load != routing.load


def test_a_router_that_is_not_linear_is_refused(captured):
    layer = captured[0]
    audited._check(layer, 1e-3, "m")
    for other in (
        dataclasses.replace(layer, logits=layer.logits + 0.1 * np.abs(layer.logits).max()),
        dataclasses.replace(layer, chosen=EXPERTS - 1 - layer.chosen),
    ):
        with pytest.raises(ValueError, match="largest inner products"):
            audited._check(other, 1e-3, "m")


def test_inner_needs_gates():
    with pytest.raises(TypeError, match="inner = True"):
        audit.audit(np.eye(8), inner=True)


# --- the command ------------------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    status = cli.main(["audit", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def refuse(capsys, *arguments):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    return err


def test_the_command(capsys, stored, tmp_path):
    folder, _, text, ids = stored
    status, out, err = run(
        capsys, "--model", folder, "--text", text, "--experts", 3, "--top", 1, "--center",
        "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "4 experts of a linear router, top-1" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "3 GrAP gates, top-1" in out
    record = json.loads((tmp_path / "a.json").read_text())
    assert (record["tokens"], record["tokens_read"], record["model_top"]) == (ids.size, 64 * (ids.size // 64), TOP)
    assert [r["centred"] for r in record["own"]["layers"][1]["routings"]] == [True]
    assert len(record["grap"]["layers"][0]["routings"][0]["load"]) == 3
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_bad_combinations_are_one_sentence(capsys, stored, monkeypatch):
    monkeypatch.setattr(audited, "_run", None)  # all is refused before the model is run
    folder, _, text, _ = stored
    assert "give FILE" in refuse(capsys)
    assert "together" in refuse(capsys, "--model", folder)
    assert "together" in refuse(capsys, "--text", text)
    assert "leave those out" in refuse(capsys, "example", "--model", folder, "--text", text)
    assert "leave those out" in refuse(capsys, "--gates", text, "--model", folder, "--text", text)
    assert "experts = 5" in refuse(capsys, "--model", folder, "--text", text, "--experts", 5)
    assert "top = 4" in refuse(capsys, "--model", folder, "--text", text, "--top", 4)


def test_bad_texts_are_one_sentence(capsys, stored, tmp_path):
    folder = stored[0]
    text = tmp_path / "t.txt"
    assert "does not exist" in refuse(capsys, "--model", folder, "--text", text)
    for content, words in ((b"", "is empty"), (b" \n", "is empty"), (b"w1", "1 tokens"), (b"w1 \xff", "not UTF-8")):
        text.write_bytes(content)
        assert words in refuse(capsys, "--model", folder, "--text", text)


def test_bad_models_are_one_sentence(capsys, stored, tmp_path):
    folder, network, text, _ = stored

    def problem(where):
        return refuse(capsys, "--model", where, "--text", text)

    assert "does not exist" in problem(tmp_path / "none")
    assert "config.json" in problem(tmp_path)

    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(network.state_dict(), pickled / "pytorch_model.bin")
    assert "pickled ones are never read" in problem(pickled)
    (pickled / "model.safetensors.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')
    assert "pickled ones are never read" in problem(pickled)

    dense = tmp_path / "dense"
    config = transformers.LlamaConfig(
        vocab_size=41, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    transformers.LlamaForCausalLM(config).save_pretrained(dense)
    save_tokenizer(dense)
    capsys.readouterr()  # the progress of storing it
    assert "no Mixture-of-Experts block" in problem(dense)

    from safetensors.numpy import load_file, save_file

    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    tensors = load_file(cut / "model.safetensors")
    name = next(name for name in tensors if name.endswith("gate.weight"))
    save_file({k: v for k, v in tensors.items() if k != name}, cut / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights" in problem(cut)
    (cut / "model.safetensors").write_bytes(b"nonsense")
    assert "weights" in problem(cut)
    (cut / "tokenizer.json").write_text("{")
    assert "tokenizer" in problem(cut)
    (cut / "config.json").write_text("{")
    assert "configuration" in problem(cut)


def edited(folder, where, **changes):
    shutil.copytree(folder, where)
    config = json.loads((where / "config.json").read_text())
    (where / "config.json").write_text(json.dumps({**config, **changes}))
    return where


def test_a_configuration_fetches_no_attention(stored, tmp_path, monkeypatch):
    import types

    asked = []
    stub = types.ModuleType("kernels")
    stub.get_kernel = stub.load_kernel = lambda name, *a, **k: asked.append(name)
    monkeypatch.setitem(sys.modules, "kernels", stub)
    for k, name in enumerate(("nobody/no-such-kernel", "flash_attention_2")):
        folder = edited(stored[0], tmp_path / str(k), attn_implementation=name, _attn_implementation=name)
        layers, _ = audited.capture(folder, stored[2], length=LENGTH)
        np.testing.assert_array_equal(
            layers[0].hidden, audited.capture(stored[0], stored[2], length=LENGTH)[0][0].hidden
        )
    assert asked == []


@pytest.mark.parametrize("shard", ["../model.safetensors", "/tmp/model.safetensors", "sub\\model.safetensors"])
def test_weights_lie_in_the_folder(stored, tmp_path, shard):
    folder = edited(stored[0], tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match="must lie in the model's folder"):
        audited.capture(folder, stored[2])


def test_a_nested_index_is_no_index(stored, tmp_path):
    folder = edited(stored[0], tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not an index"):
        audited.capture(folder, stored[2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 10**12),
        ("hidden_size", -1),
        ("num_hidden_layers", 10**6),
        ("max_position_embeddings", -5),
        ("num_experts_per_tok", 5),
        ("num_local_experts", 10**6),
    ],
)
def test_sizes_of_a_model_are_bounded(stored, tmp_path, name, value):
    folder = edited(stored[0], tmp_path / "m", **{name: value})
    with pytest.raises(ValueError, match=rf"{name} = {value} of|{value} experts but"):
        audited.audit_model(folder, stored[2])


def test_a_composite_configuration_is_read(stored, tmp_path):
    """The numbers of a model of text and images stand in its part that reads text."""
    kind = getattr(transformers, "Qwen3VLMoeConfig", None)
    if kind is None:
        pytest.skip("this transformers has no Qwen3-VL-MoE")
    kind(text_config={"num_experts": 4, "num_experts_per_tok": 2, "hidden_size": 24}).save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["text_config"]["_attn_implementation"] = "nobody/no-such-kernel"
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert audited._whole(tmp_path).text_config._attn_implementation == "eager"
    config = audited._config(tmp_path)
    assert (audited._experts(config), config.num_experts_per_tok, config.hidden_size) == (4, 2, 24)


def test_numbers_that_are_not_finite_are_named(captured):
    layer = captured[0]
    with pytest.raises(ValueError, match="numbers that are not finite"):
        audited._check(dataclasses.replace(layer, logits=np.full_like(layer.logits, np.nan)), 1e-3, "m")


def test_without_transformers(capsys, stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    words = refuse(capsys, "--model", stored[0], "--text", stored[2])
    assert "the package 'transformers' is needed: pip install transformers" in words
