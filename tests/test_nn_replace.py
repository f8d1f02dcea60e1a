"""A small random Mixtral with its routers replaced: same outputs where nothing is dropped, padding, cache, losses."""

import copy
import os

import pytest

import resonance_theory as rt

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'peers')")


def mixtral(**options):
    config = transformers.MixtralConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
        attn_implementation="eager",
        **options,
    )
    torch.manual_seed(0)
    model = transformers.MixtralForCausalLM(config).eval()
    with torch.no_grad():  # large enough for the experts to matter
        for name, p in model.named_parameters():
            if "experts" in name or "gate.weight" in name:
                p.mul_(20)
    return model


@pytest.fixture(scope="module")
def text():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 50, (3, 12), generator=generator)


@pytest.fixture(scope="module")
def mask():
    return (torch.arange(12) < torch.tensor([[12], [7], [9]])).long()


@pytest.mark.parametrize("rule", ["token_choice", "resonance"])
def test_own_gates_without_drops_change_nothing(rule, text, mask):
    model = mixtral()
    with torch.no_grad():
        wanted = model(text, attention_mask=mask).logits
        names = {name for name, _ in model.named_parameters() if "experts" in name}
        blocks = rt.nn.replace_router(model, gates="own", rule=rule, capacity_factor=2.0)
        got = model(text, attention_mask=mask).logits
        torch.testing.assert_close(got[mask > 0], wanted[mask > 0], rtol=1e-4, atol=1e-5)
        less = [b.router for b in blocks]
        for router in less:
            router.capacity_factor = 0.5
        other = model(text, attention_mask=mask).logits
    assert len(blocks) == 2
    assert names == {name for name, _ in model.named_parameters() if "experts" in name}
    assert not torch.allclose(other[mask > 0], wanted[mask > 0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("options", [{"rule": "resonance"}, {"rule": "expert_choice"}, {"mass": 0.8}])
def test_padding_and_gradients(options, text, mask):
    model = mixtral(output_router_logits=True)
    blocks = rt.nn.replace_router(model, **options)
    with torch.no_grad():
        padded = model(text, attention_mask=mask).logits
        for row, length in zip(range(3), (12, 7, 9)):
            alone = model(text[row : row + 1, :length]).logits
            torch.testing.assert_close(padded[row, :length], alone[0], rtol=1e-4, atol=1e-5)
    model.train()
    out = model(text, attention_mask=mask, labels=text)
    loss = out.loss + sum(block.routing.load_balance() for block in blocks)
    loss.backward()
    grads = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in grads)
    assert blocks[0].router.statistics.summary()["tokens"] == 3 * 28


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated")
def test_cache_and_copies(text):
    model = mixtral()
    rt.nn.replace_router(model, gates="own", rule="token_choice", capacity_factor=2.0)
    mask = torch.ones_like(text)
    mask[1, :4] = 0  # padding on the left, as for generation
    with torch.no_grad():
        whole = model(text, attention_mask=mask).logits[:, -1]
        start = model(text[:, :-1], attention_mask=mask[:, :-1], use_cache=True)
        step = model(text[:, -1:], attention_mask=mask, past_key_values=start.past_key_values).logits[:, -1]
    torch.testing.assert_close(step, whole, rtol=1e-4, atol=1e-5)
    model.train()
    model(text, attention_mask=mask)
    twin = copy.deepcopy(model)
    twin(text, attention_mask=mask)
    routing = twin.model.layers[0].mlp.routing
    assert torch.equal(routing.real, mask > 0)
    twin(text)
    assert twin.model.layers[0].mlp.routing.real is None
    assert torch.equal(model.model.layers[0].mlp.routing.real, mask > 0)


def test_refusals():
    with pytest.raises(ValueError, match="model is a Linear without blocks"):
        rt.nn.replace_router(torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match="without blocks"):
        rt.nn.replace_router(mixtral(router_jitter_noise=0.1))
    with pytest.raises(TypeError, match="model is a str"):
        rt.nn.replace_router("model")
    model = mixtral()
    with pytest.raises(ValueError, match="rule = 'best'"):
        rt.nn.replace_router(model, rule="best")
    assert not any(isinstance(m, rt.nn.ReplacedMoE) for m in model.modules())
