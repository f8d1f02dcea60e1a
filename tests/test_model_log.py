"""The log of a stored model: families of unlike layouts, stored with a tokenizer and read back."""

import gc
import os
import tempfile

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'peers')")
if int(transformers.__version__.split(".")[0]) < 5:
    pytest.skip("models of transformers before 5 have other blocks", allow_module_level=True)

from resonance_theory import audit, cli  # noqa: E402
from resonance_theory.audit.model_log import log_model  # noqa: E402
from resonance_theory.nn.families import record_routing  # noqa: E402
from tests import tiny_models  # noqa: E402
from tests.test_audit_model import WORDS, save_tokenizer  # noqa: E402

KINDS = [
    "DeepseekV3ForCausalLM",
    "DeepseekV4ForCausalLM",  # its weights do not load without the head
    "Gemma4ForCausalLM",
    "DogeForCausalLM",
    "SwitchTransformersForConditionalGeneration",
]


@pytest.fixture
def text(tmp_path):
    ids = np.random.default_rng(0).integers(1, 41, 6 * 16 + 5)
    path = tmp_path / "text.txt"
    path.write_text(" ".join(WORDS[i - 1] for i in ids), encoding="utf-8")
    return path, ids[: 5 * 16].reshape(5, 16)


def stored(kind, folder):
    family = transformers.models.auto.configuration_auto.model_type_to_module_name(
        getattr(transformers, kind).config_class.model_type
    ).removesuffix("_text")
    model = tiny_models.build(getattr(transformers, kind), family)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device_map", [None, "auto", {"": "disk"}])
def test_log_of_a_stored_model(kind, device_map, text, tmp_path, monkeypatch):
    if device_map:
        pytest.importorskip("accelerate")
    model = stored(kind, tmp_path / "m")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    log = log_model(tmp_path / "m", text[0], length=16, sequences=5, device_map=device_map)
    gc.collect()
    assert not list(tmp_path.glob("resonance-*"))  # what lay on the disk went with the model
    names = ["input_ids", *(["decoder_input_ids"] if model.config.is_encoder_decoder else [])]
    # One after the other: Doge's choices depend on the other tokens of a call.
    wanted = record_routing(model, [dict.fromkeys(names, torch.from_numpy(row)[None]) for row in text[1]])
    np.testing.assert_array_equal(log.choices, wanted.choices)
    np.testing.assert_allclose(log.weights, wanted.weights, rtol=1e-4)
    assert log.documents.tolist() == np.repeat(np.arange(5), 16).tolist()
    assert log.source == "m"
    assert log.notes[0] == "80 of the text's 101 tokens were read, in sequences of 16"
    assert log.experts == 4


def test_refusals(text, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        log_model(tmp_path / "none", text[0])
    dense = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    )
    dense.save_pretrained(tmp_path / "m")
    save_tokenizer(tmp_path / "m")
    with pytest.raises(ValueError, match="LlamaModel that has no Mixture-of-Experts blocks"):
        log_model(tmp_path / "m", text[0])
    with pytest.raises(ValueError, match="length = 1"):
        log_model(tmp_path / "m", text[0], length=1)
    stored("DeepseekV3ForCausalLM", tmp_path / "n")
    monkeypatch.setattr(transformers.DeepseekV3Model, "forward", lambda *_, **__: [].missing)
    with pytest.raises(
        ValueError, match=r"DeepseekV3Model that token ids alone do not run \(AttributeError: .*missing"
    ):
        log_model(tmp_path / "n", text[0])


def test_command(text, tmp_path, capsys):
    """`resonance audit` takes a model of any family, and says what the audit of its log says."""
    model = stored("DeepseekV3ForCausalLM", tmp_path / "m")
    for layer in model.model.layers:  # without it, the largest logits are the choice, as in Mixtral's kind
        layer.mlp.gate.e_score_correction_bias[3] = 0.1
    model.save_pretrained(tmp_path / "m")
    capsys.readouterr()
    folder, file = str(tmp_path / "m"), str(text[0])
    assert cli.main(["audit", "--model", folder, "--text", file, "--block", "16"]) == 0
    shown = capsys.readouterr().out
    assert audit.audit_log(log_model(folder, file), block=16).table() in shown
    assert cli.main(["audit", "--model", folder, "--text", file, "--device-map", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert cli.main(["audit", "example-log", "--device-map", "auto"]) == 2
    assert "--device-map = 'auto' must be left out without --model" in capsys.readouterr().err
    assert cli.main(["audit", "--model", folder, "--text", file, "--top", "1"]) == 2
    assert "--top = 1 must be left out" in capsys.readouterr().err
