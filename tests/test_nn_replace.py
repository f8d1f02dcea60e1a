"""A small random Mixtral with its routers replaced: same outputs where nothing is dropped, padding, cache, losses."""

import copy
import os
import threading

import pytest

import resonance_theory as rt

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'peers')")
from torch.utils.checkpoint import checkpoint  # noqa: E402

from resonance_theory.nn.padding import padded  # noqa: E402


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
        blocks = rt.nn.replace_router(model, gates="own", rule=rule, capacity_factor=2.0, statistics=True)
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


@pytest.mark.parametrize("rule", ["token_choice", "resonance", "expert_choice"])
def test_counts(rule, text, mask):
    """By the tables of each call."""
    model = mixtral()
    (block, _) = rt.nn.replace_router(model, rule=rule, capacity=3)
    tokens = pairs = kept = dropped = 0
    with torch.no_grad():
        for given in ({"input_ids": text, "attention_mask": mask}, {"input_ids": text[:2]}):
            model(**given)
            real = given.get("attention_mask", torch.ones_like(given["input_ids"])) > 0
            routing = block.routing
            taken = torch.zeros(*real.shape, 4, dtype=torch.bool)
            for b, e, slot in routing.filled.nonzero().tolist():
                taken[b, routing.token[b, e, slot], e] = True
            tokens, kept = tokens + int(real.sum()), kept + int(taken.sum())
            pairs += int(taken.sum() if rule == "expert_choice" else 2 * real.sum())
            dropped += int((real & ~taken.any(-1)).sum())
    assert dropped > 0
    wanted = {"tokens": tokens, "pairs": pairs, "drop_rate": 1 - kept / pairs, "dropped": dropped / tokens}
    assert block.summary() == pytest.approx(wanted)
    block.reset()
    assert block.summary()["tokens"] == 0


def padding_of(blocks, call):
    with torch.no_grad():
        call()
    real = blocks[0].routing.real
    return None if real is None else (~real).long().sum(-1).tolist()


class Scorer(torch.nn.Module):
    """A user's own model around one of the library's."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, words, weights):
        return self.backbone(words, attention_mask=weights).last_hidden_state


WRAPPERS = {
    "plain": lambda m: m,
    "own": lambda m: Scorer(m.model),
    "DataParallel": torch.nn.DataParallel,
    "PEFT": lambda m: pytest.importorskip("peft").get_peft_model(
        m, pytest.importorskip("peft").LoraConfig(target_modules=["q_proj"])
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_models_see_the_padding(wrapper, text, mask):
    model = WRAPPERS[wrapper](mixtral())
    blocks = rt.nn.replace_router(model)
    call = (lambda: model(text, mask)) if wrapper == "own" else (lambda: model(input_ids=text, attention_mask=mask))
    assert padding_of(blocks, call) == [0, 5, 3]
    rt.nn.restore_router(model)
    assert not any("Padding" in str(hook) for m in model.modules() for hook in m._forward_pre_hooks.values())


def additive(seen):
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_of_every_form(side):
    tokens, lengths = 6, torch.tensor([[6], [3], [5]])
    place = torch.arange(tokens)
    real = place < lengths if side == "right" else place >= tokens - lengths
    x, causal = torch.zeros(3, tokens, 8), torch.ones(tokens, tokens).tril().bool()
    square = real[:, None, None] & causal
    opened = square | ~square.any(-1, keepdim=True)  # rows of padding that see nothing, opened as some attentions do
    forms = {
        "whole numbers": real.long(), "booleans": real, "floats": real.float(), "added": additive(real),
        "square": square[:, 0], "heads": square.expand(3, 2, 6, 6), "square, added": additive(square),
        "opened": opened, "both ways": real[:, None, None].expand(3, 1, 6, 6), "one query": real[:, None, None],
        "dictionary": {"sliding_attention": None, "full_attention": square},
    }  # fmt: skip
    later = torch.nn.functional.pad(square, (0, 4))  # a static cache's slots to come
    for name, form in forms.items():
        assert torch.equal(~padded(form, x), real), name
    assert torch.equal(~padded(later, x, 0), real)
    assert torch.equal(~padded(torch.nn.functional.pad(real, (0, 4)), x[:, :2], torch.tensor(3)), real[:, 3:5])
    assert torch.equal(~padded(real, x[:, :2]), real[:, -2:])
    assert padded(None, x) is padded({"full_attention": None}, x) is None
    assert not padded(torch.zeros(3, tokens), x).any()  # added to scores
    for bad, words in ((torch.ones(5), r"shape is \(5,\)"), ("causal", "is a str"), (real[:, :4], r"\(3, 4\) for 3")):
        with pytest.raises(TypeError, match=words):
            padded(bad, x)


def test_generation_with_either_cache(text):
    mask = torch.ones_like(text)
    mask[1, :4] = 0
    model = mixtral()
    options = {"attention_mask": mask, "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    wanted = model.generate(text, **options)
    rt.nn.replace_router(model, gates="own", rule="token_choice", capacity=6, statistics=True)
    model.generate(text, **options)
    for cache in ({}, {"cache_implementation": "static"}, {"num_beams": 2}, {"use_cache": False}):
        other = mixtral()
        blocks = rt.nn.replace_router(other, gates="own", rule="token_choice", capacity_factor=4.0, statistics=True)
        got = other.generate(text, **options, **cache)
        assert blocks[0].routing.real.all() or "use_cache" in cache  # the last token is no padding
        assert blocks[0].router.statistics.summary()["tokens"] > 32
        if "num_beams" not in cache:
            assert torch.equal(got, wanted)
            seen = sum(range(12, 16)) * 3 - 16 if cache.get("use_cache") is False else 32 + 9
            assert blocks[0].router.statistics.summary()["tokens"] == seen


def test_unknown_and_packed_forms_are_told_once(text, recwarn):
    model = mixtral()
    blocks = rt.nn.replace_router(model)
    for _ in range(2):
        model(text[:1], position_ids=torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]]))
        assert blocks[0].routing.real is None
    assert ["packed documents" in str(w.message) for w in recwarn.list].count(True) == 1
    bare = torch.nn.Sequential(torch.nn.Linear(24, 24), mixtral().model.layers[0].mlp)
    with pytest.warns(UserWarning, match="no module around 1 takes an attention_mask, so padding takes slots"):
        rt.nn.replace_router(bare)
    with pytest.warns(UserWarning, match="output_router_logits = True is taken as False"):
        out = model(text, labels=text, output_router_logits=True)
    assert torch.equal(out.loss, model(text, labels=text).loss)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_micro_batches_keep_their_masks_when_computed_again(reentrant, whole, text, mask):
    """Two forwards, then both backwards: what is computed again has the padding of its own forward."""
    gradients = []
    for checkpointed in (False, True):
        model = mixtral()
        blocks = rt.nn.replace_router(model, gates="own", rule="token_choice", capacity_factor=0.6, statistics=True)
        model.train()
        if checkpointed and not whole:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            model.enable_input_require_grads()
        embedded = model.get_input_embeddings()(text)

        def run(x, weights, model=model):
            return model(inputs_embeds=x, attention_mask=weights).logits

        outs = []
        for weights in (mask, mask.flip(1), None):
            x = embedded.detach().clone().requires_grad_()
            again = checkpointed and whole
            outs.append(checkpoint(run, x, weights, use_reentrant=reentrant) if again else run(x, weights))
        kept = blocks[0].routing
        sum(out.square().sum() for out in outs).backward()
        assert blocks[0].routing is kept
        gradients.append([p.grad for n, p in model.named_parameters() if "embed_tokens" not in n])
        assert blocks[1].router.statistics.summary()["tokens"] == 28 + 28 + 36
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_threads_have_their_own_masks_and_routings(text, mask):
    model = mixtral()
    blocks = rt.nn.replace_router(model, capacity_factor=0.6)
    with pytest.raises(ValueError, match="before the first forward"):
        blocks[0].routing.load_balance()
    wrong, start = [], threading.Barrier(2)

    def work(weights):
        start.wait()
        for _ in range(15):
            with torch.no_grad():
                model(text, attention_mask=weights)
            if not torch.equal(blocks[0].routing.real, weights > 0):
                wrong.append(weights)

    threads = [threading.Thread(target=work, args=(weights,)) for weights in (mask, mask.flip(1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # a call inside a call, as of a teacher, leaves the outer one its mask
    layer = model.model.layers[0]
    hook = layer.register_forward_hook(lambda *_: hook.remove() or (model(text[:1, :5]) and None))
    with torch.no_grad():
        model(text, attention_mask=mask)
    assert torch.equal(blocks[1].routing.real, mask > 0)


def test_save_load_and_back(text, tmp_path):
    model = mixtral()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = model(text).logits
    blocks = rt.nn.replace_router(model, gates="own", rule="token_choice", capacity_factor=2.0, statistics=True)
    assert set(model.state_dict()) == set(before)
    with torch.no_grad():
        blocks[0].router.gate.weight += 1
    got = model(text).logits
    model.save_pretrained(tmp_path)
    loaded, told = transformers.MixtralForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    rt.nn.replace_router(loaded, gates="own", rule="token_choice", capacity_factor=2.0, statistics=True)
    torch.testing.assert_close(loaded(text).logits, got)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for each in (model, twin):
            each.model.layers[0].mlp.router.gate.weight -= 1
    for each in (model, twin):
        rt.nn.restore_router(each)
        torch.testing.assert_close(each(text).logits, wanted)
        assert set(each.state_dict()) == set(before)
    with pytest.raises(ValueError, match="without replaced blocks"):
        rt.nn.restore_router(model)
    rt.nn.replace_router(model)  # the idle gate stays under its name
    torch.testing.assert_close(
        model.state_dict()["model.layers.0.mlp.gate.weight"], before["model.layers.0.mlp.gate.weight"]
    )
    with pytest.raises(ValueError, match=r"replaced blocks already.*restore_router"):
        rt.nn.replace_router(model)
    rt.nn.restore_router(model)
    rt.nn.replace_router(model, gates="orthogonal")
    with pytest.raises(ValueError, match="save_pretrained would lose the new gates"):
        model.save_pretrained(tmp_path)


SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
UNLIKE = {
    "MiniMaxM2": {"num_local_experts": 4, "rotary_dim": 8},
    "Qwen2Moe": {"num_experts": 4, "shared_expert_intermediate_size": 16, "decoder_sparse_step": 1},
    "Mixtral": {"num_local_experts": 4},
}


@pytest.mark.parametrize("family", UNLIKE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_acts_otherwise_keeps_its_blocks(family, dtype, text):
    """A new gate before their experts; put back, everything is as it was."""
    options = {**SIZES, **UNLIKE[family]}
    if family == "Mixtral":
        options = {k: v for k, v in options.items() if k not in ("moe_intermediate_size",)}
    config = getattr(transformers, f"{family}Config")(**options)
    model = getattr(transformers, f"{family}ForCausalLM")._from_config(config).to(dtype).eval()
    if family == "Mixtral":  # the same parts and shapes, but the gate is a sigmoid
        gate = model.model.layers[0].mlp.gate

        def sigmoid(x):
            value, index = torch.sigmoid(x.reshape(-1, 32) @ gate.weight.T).topk(2)
            return None, value / value.sum(-1, keepdim=True), index

        gate.forward = sigmoid
    before = [(name, type(m)) for name, m in model.named_modules()]
    values = {name: value.clone() for name, value in model.state_dict().items()}
    wanted, state = model(text).logits, torch.get_rng_state()
    blocks = rt.nn.replace_router(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [type(block) for block in blocks] == [rt.nn.Regated]
    assert not torch.equal(model(text).logits, wanted)
    assert set(model.state_dict()) == set(values)  # GrAP gates have no weights
    rt.nn.restore_router(model)
    assert before == [(name, type(m)) for name, m in model.named_modules()]
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(text).logits, wanted)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_offloaded_blocks(text):
    accelerate = pytest.importorskip("accelerate")
    model = mixtral()
    rt.nn.replace_router(model, capacity_factor=0.5, normalize=True)
    wanted = model(text).logits
    offloaded = accelerate.cpu_offload(mixtral(), execution_device=torch.device("cpu"))
    with torch.no_grad():
        rt.nn.replace_router(offloaded, capacity_factor=0.5)
        torch.testing.assert_close(offloaded(text).logits, wanted)


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated")
def test_cache_and_copies(text):
    model = mixtral()
    rt.nn.replace_router(model, gates="own", rule="token_choice", capacity_factor=2.0, statistics=True)
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
    noisy = rt.nn.replace_router(mixtral(router_jitter_noise=0.1))  # the model goes on multiplying tokens by noise
    assert [type(block) for block in noisy] == [rt.nn.Regated] * 2
    with pytest.raises(TypeError, match="model is a str"):
        rt.nn.replace_router("model")
    model = mixtral()
    with pytest.raises(ValueError, match="rule = 'best'"):
        rt.nn.replace_router(model, rule="best")
    assert not any(isinstance(m, rt.nn.ReplacedMoE) for m in model.modules())
