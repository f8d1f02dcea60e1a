"""Another rule over a model's own choices: what users of such models meet, from caches and padding to wrappers."""

import copy
import os
import threading

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'peers')")
if int(transformers.__version__.split(".")[0]) < 5:
    pytest.skip("models of transformers before 5 have other blocks", allow_module_level=True)

from resonance_theory import nn as rnn  # noqa: E402
from resonance_theory.nn.families import find_blocks, record_routing  # noqa: E402
from resonance_theory.nn.selection import Selection, misfit, selections, within_capacity  # noqa: E402
from tests import tiny_models  # noqa: E402

transformers.utils.logging.set_verbosity_error()
FAMILIES = tiny_models.families()
KINDS = {"deepseek_v3": "DeepseekV3ForCausalLM", "glm4_moe": "Glm4MoeForCausalLM", "gpt_oss": "GptOssForCausalLM"}


def build(family="deepseek_v3"):
    model = tiny_models.build(getattr(transformers, KINDS[family]), family)
    with torch.no_grad():  # large enough for the experts to matter
        for name, p in model.named_parameters():
            if "experts" in name:
                p.mul_(20)
    return model


@pytest.fixture(scope="module")
def text():
    return torch.randint(2, 60, (3, 12), generator=torch.Generator().manual_seed(1))


LEFT = (torch.arange(12) >= torch.tensor([[0], [5], [3]])).long()


# --- the cut ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_pairs_within_capacity(seed):
    """Held against a loop over experts; a third of the places are empty, and priorities tie."""
    rng = np.random.default_rng(seed)
    expert = rng.integers(-2, 4, (3, 9, 2)).clip(-1)
    priority = rng.integers(0, 3, expert.shape) / 4
    slots = rng.integers(0, 5, 3)
    for order in (priority, None):
        got = within_capacity(
            torch.from_numpy(expert), None if order is None else torch.from_numpy(order), torch.from_numpy(slots), 4
        )
        for b in range(3):
            for e in range(4):
                pairs = [(t, j) for t in range(9) for j in range(2) if expert[b, t, j] == e]
                if order is not None:
                    pairs.sort(key=lambda pair, b=b, order=order: -order[b][pair])
                assert {pair for pair in pairs if got[b][pair]} == set(pairs[: slots[b]])
        assert got[torch.from_numpy(expert) < 0].all()


def test_ties_in_bfloat16_go_to_the_earlier_token(text):
    model = build().to(torch.bfloat16)
    with torch.no_grad():
        for block in find_blocks(model):
            block.router.weight.zero_()  # all logits agree
    rnn.replace_router(model, gates="own", rule="resonance", capacity=5)
    with torch.no_grad():
        model(text)
    for selection in selections(model):
        kept = selection.kept
        assert (kept.kept == (torch.arange(12) < 5)[None, :, None]).all()
        assert len(kept.expert.unique()) == 2


# --- a model in use ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", KINDS)
def test_generation_with_a_cache(family, text):
    """A step has one token a sample, which finds a slot whatever the capacity; the prompt is cut as a whole."""
    model = build(family)
    options = {"attention_mask": LEFT, "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    wanted = model.generate(text, **options)
    blocks = rnn.replace_router(model, gates="own", rule="token_choice", capacity=12)
    assert all(isinstance(block, Selection) for block in blocks)
    assert torch.equal(model.generate(text, **options), wanted)
    rnn.restore_router(model)
    blocks = rnn.replace_router(model, gates="own", rule="token_choice", capacity=1)
    with torch.no_grad():
        start = model(text, attention_mask=LEFT, use_cache=True)
        assert all(block.kept.cut.any() for block in blocks)
        longer = torch.cat([LEFT, torch.ones(3, 1, dtype=torch.long)], 1)
        for block in blocks:
            block.reset()
        model(text[:, :1], attention_mask=longer, cache=start.get("cache", start.get("past_key_values")))
    for block in blocks:
        assert block.kept.expert.shape == (3, 1, 2)
        assert block.summary() == {"tokens": 3, "pairs": 6, "drop_rate": 0.0, "dropped": 0.0}


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_takes_no_slot(family, side, text):
    mask = LEFT if side == "left" else LEFT.flip(1)
    model = build(family)
    blocks = rnn.replace_router(model, gates="own", rule="resonance", capacity_factor=0.5)
    with torch.no_grad():
        padded = model(text, attention_mask=mask).logits
        assert torch.equal(blocks[0].kept.real, mask > 0)
        for block in blocks:
            capacity = -(-mask.sum(-1) * 2 // (2 * 4))
            kept = block.kept.expert.masked_fill(~block.kept.kept, -1)
            count = (kept.flatten(1)[..., None] == torch.arange(4)).sum(1)
            assert torch.equal(count, torch.minimum(block.kept.load, capacity[:, None]))
        for row in range(3):
            alone = model(text[row : row + 1, mask[row] > 0]).logits
            torch.testing.assert_close(padded[row, mask[row] > 0], alone[0], rtol=1e-4, atol=1e-4)


def test_packed_documents_share_a_row(text):
    model = build()
    rnn.replace_router(model, gates="own")
    with pytest.warns(UserWarning, match="packed documents share"):
        model(text[:1], position_ids=torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]]))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_checkpointing_counts_once(reentrant, text):
    gradients, seen = [], []
    for again in (False, True):
        model = build()
        blocks = rnn.replace_router(model, gates="own", capacity_factor=0.5)
        model.train()
        if again:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(text, attention_mask=LEFT, use_cache=False).logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if "embed_tokens" not in name})
        seen.append([block.summary() for block in blocks])
    assert seen[0] == seen[1]
    assert seen[0][0]["tokens"] == 28
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad)


def test_own_logits_and_auxiliary_loss_stay(text):
    model = tiny_models.build(transformers.Qwen2MoeForCausalLM, "qwen2_moe")
    wanted = model(text, labels=text, output_router_logits=True)
    rnn.replace_router(model, gates="own", capacity=12)
    got = model(text, labels=text, output_router_logits=True)
    assert torch.equal(got.aux_loss, wanted.aux_loss)
    assert torch.equal(got.loss, wanted.loss)
    for one, other in zip(got.router_logits, wanted.router_logits, strict=True):
        assert torch.equal(one, other)
    rnn.restore_router(model)
    rnn.replace_router(model, gates="own", capacity=1)
    less = model(text, labels=text, output_router_logits=True)
    assert torch.equal(less.router_logits[0], wanted.router_logits[0])
    assert not torch.equal(less.router_logits[1], wanted.router_logits[1])


def test_saved_loaded_copied_and_put_back(text, tmp_path):
    model = build()
    wanted = model(text).logits
    names = list(model.state_dict())
    rnn.replace_router(model, gates="own", capacity_factor=0.5)
    assert list(model.state_dict()) == names
    got = model(text).logits
    assert not torch.allclose(got, wanted)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(loaded(text).logits, wanted)
    rnn.replace_router(loaded, gates="own", capacity_factor=0.5)
    assert torch.equal(loaded(text).logits, got)
    twin = copy.deepcopy(model)
    rnn.restore_router(model)
    assert torch.equal(model(text).logits, wanted)
    assert torch.equal(twin(text).logits, got)  # a copy has its own
    assert {id(s) for s in selections(twin)}.isdisjoint(map(id, selections(loaded)))
    assert selections(twin)[0].summary()["tokens"] > selections(loaded)[0].summary()["tokens"] > 0
    rnn.restore_router(twin)
    assert torch.equal(twin(text).logits, wanted)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in twin.modules())
    with pytest.raises(ValueError, match="without replaced blocks"):
        rnn.restore_router(model)


def test_wrapped_by_peft(text):
    peft = pytest.importorskip("peft")
    model = build()
    blocks = rnn.replace_router(model, gates="own", capacity_factor=0.5)
    wanted = model(text, attention_mask=LEFT).logits
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["o_proj"]))
    assert torch.equal(wrapped(input_ids=text, attention_mask=LEFT).logits, wanted)
    assert torch.equal(blocks[0].kept.real, LEFT > 0)
    rnn.restore_router(wrapped)
    inside = rnn.replace_router(wrapped, gates="own", capacity_factor=0.5)
    assert torch.equal(wrapped(input_ids=text, attention_mask=LEFT).logits, wanted)
    assert torch.equal(inside[0].kept.real, LEFT > 0)


def test_compiled_and_exported(text):
    """In one graph, where the experts themselves have one."""
    model = build()
    rnn.replace_router(model, gates="own", capacity_factor=0.5)
    given = {"input_ids": text, "attention_mask": LEFT, "use_cache": False}
    with torch.no_grad():
        wanted = model(**given).logits
        model.set_experts_implementation("grouped_mm")
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(**given).logits, wanted)
        exported = torch.export.export(model, (), given, strict=False).module()
        torch.testing.assert_close(exported(**given).logits, wanted)


def sharded(model):
    fully_shard = torch.distributed.fsdp.fully_shard
    for layer in model.model.layers:
        fully_shard(layer)
    return fully_shard(model)


def data_parallel(model):
    return torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)


WRAPS = {"data parallel": data_parallel, "sharded": sharded}
GATES = {"own": {"gates": "own"}, "new": {"gates": "linear", "statistics": False}}


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def on_one_rank(rank, folder, text):
    """Each of two ranks takes two of four samples; what it finds is stored for the test to read."""
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    mine, found = slice(2 * rank, 2 * rank + 2), {}
    for kind, wrap in WRAPS.items():
        for gates, options in GATES.items():
            model = build()
            torch.manual_seed(0)
            blocks = rnn.replace_router(model, capacity_factor=0.5, **options)
            wrapped = wrap(model)
            logits = wrapped(input_ids=text[mine], attention_mask=FOUR[mine]).logits
            logits.square().sum().backward()
            grads = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
            summary = blocks[0].summary(reduce=True)
            found[kind, gates] = {"logits": logits.detach(), "grads": grads, "summary": summary}
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


FOUR = (torch.arange(12) >= torch.tensor([[0], [5], [3], [0]])).long()


def test_over_two_processes(tmp_path):
    """DistributedDataParallel and FSDP2, own gates and new ones, give outputs and mean gradients of one process."""
    text = torch.randint(2, 60, (4, 12), generator=torch.Generator().manual_seed(2))
    torch.multiprocessing.spawn(on_one_rank, (str(tmp_path), text), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for gates, options in GATES.items():
        model = build()
        torch.manual_seed(0)
        blocks = rnn.replace_router(model, capacity_factor=0.5, **options)
        logits = model(text, attention_mask=FOUR).logits
        logits.square().sum().div(2).backward()  # the ranks' gradients are averaged
        wanted = blocks[0].summary()
        assert wanted["drop_rate"] > 0
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for kind in WRAPS:
            first, second = ranks[0][kind, gates], ranks[1][kind, gates]
            torch.testing.assert_close(torch.cat([first["logits"], second["logits"]]), logits.detach())
            assert first["summary"] == second["summary"] == wanted
            for name, grad in grads.items():
                torch.testing.assert_close(first["grads"][name], grad, rtol=1e-4, atol=1e-4 * float(grad.abs().max()))


# --- a new gate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", KINDS)
def test_a_new_gate_with_padding(family, text):
    """Every token's experts, weights and cuts are those of a router called by hand with the same tokens."""
    model = build(family)
    own = torch.from_numpy(record_routing(model, [text]).weights[:, 0].sum(-1, dtype=np.float64))
    blocks = rnn.replace_router(model, gates="linear", rule="resonance", capacity=4)
    block, module = blocks[0], find_blocks(model)[0].module
    seen = []
    module.experts.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append((*args, *kwargs.values())), with_kwargs=True
    )
    model(text, attention_mask=LEFT)
    hidden, index, weight = (next(v for v in seen[0] if v.is_floating_point() == f and v.shape[-1] == d)
                             for f, d in ((True, hidden_size(model)), (False, 2), (True, 2)))  # fmt: skip
    logits = hidden.double() @ block.router.gate.weight.double().T
    p, chosen = torch.softmax(logits, -1).topk(2)
    p = p / p.sum(-1, keepdim=True)
    real = LEFT.flatten() > 0
    assert torch.equal(index[real], chosen[real])
    kept = torch.zeros(chosen.shape, dtype=torch.bool)
    score = torch.softmax(logits, -1)
    for sample in range(3):
        rows = [12 * sample + t for t in range(12) if LEFT[sample, t]]
        for e in range(4):
            line = sorted((r for r in rows if e in chosen[r]), key=lambda r, e=e: -score[r, e])
            for r in line[:4]:
                kept[r, chosen[r] == e] = True
    torch.testing.assert_close(weight.double(), torch.where(kept, p * own[:, None], 0.0), rtol=1e-4, atol=1e-6)
    assert block.kept.cut.sum() == (~kept[real]).sum() > 0
    assert block.routing.load_balance().requires_grad


def hidden_size(model):
    return model.config.hidden_size


def test_a_new_gate_trains_alone_and_leaves(text):
    model = build()
    wanted, names = model(text).logits, list(model.state_dict())
    blocks = rnn.replace_router(model, gates="linear", capacity_factor=1.0)
    added = sorted(set(model.state_dict()) - set(names))
    assert [name.rpartition(".experts.")[2] for name in added] == ["resonance_router.gate.weight"] * len(blocks)
    model(text).logits.square().sum().backward()
    for block, found in zip(blocks, find_blocks(model)):
        assert block.router.gate.weight.grad.abs().sum() > 0
        own = [p.grad for p in found.module.gate.parameters() if p.requires_grad]
        assert all(g is None or not g.any() for g in own)  # its decision goes unused
    with pytest.raises(ValueError, match="save_pretrained would lose the new gates"):
        model.save_pretrained("nowhere")
    twin = copy.deepcopy(model)
    twin(text)
    with torch.no_grad():
        selections(twin)[0].router.gate.weight.zero_()
    assert model(text).logits.ne(twin(text).logits).any()  # each has its own
    for each in (model, twin):
        rnn.restore_router(each)
        assert torch.equal(each(text).logits, wanted)
        assert list(each.state_dict()) == names
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in each.modules())
    assert "save_pretrained" not in model.__dict__


def test_the_own_weights_in_a_new_gate_change_nothing(text):
    """A softmax family whose gate is given anew by hand: the same outputs where nothing is dropped."""
    model = tiny_models.build(transformers.OlmoeForCausalLM, "olmoe")
    wanted = model(text).logits
    own = [block.module.gate.weight.detach().clone() for block in find_blocks(model)]
    blocks = rnn.replace_router(model, gates="linear", capacity=12)
    for block, weight in zip(blocks, own):
        block.router.gate.weight.data.copy_(weight)
    torch.testing.assert_close(model(text).logits, wanted)


def test_new_gates_compiled_exported_checkpointed_and_cached(text):
    model = build()
    blocks = rnn.replace_router(model, capacity_factor=0.5, statistics=False)
    given = {"input_ids": text, "attention_mask": LEFT, "use_cache": False}
    with torch.no_grad():
        wanted = model(**given).logits
        model.set_experts_implementation("grouped_mm")
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(**given).logits, wanted)
        exported = torch.export.export(model, (), given, strict=False).module()
        torch.testing.assert_close(exported(**given).logits, wanted)
    blocks[0].reset()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    model(**given).logits.sum().backward()
    assert blocks[0].summary()["tokens"] == int(LEFT.sum())
    rnn.restore_router(model)
    model = build().eval()
    rnn.replace_router(model, capacity_factor=4.0)
    with torch.no_grad():
        first = model(text[:, :-1], use_cache=True)
        step = model(text[:, -1:], past_key_values=first.past_key_values).logits[:, -1]
        torch.testing.assert_close(step, model(text).logits[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "expert_choice"}, "rule = 'expert_choice' needs a weight"),
        ({"top": 9}, "top = 9"),
        ({"gates": "best"}, "gates = 'best'"),
        ({"dropped": "pass"}, "dropped = 'pass' must be 'zero'"),
        ({"gates": torch.nn.Linear(3, 4)}, "Linear"),
    ],
)
def test_wrong_options_of_new_gates(options, words, text):
    model = build()
    wanted, names = model(text).logits, list(model.state_dict())
    with pytest.raises((ValueError, TypeError), match=words):
        rnn.replace_router(model, **options)
    assert torch.equal(model(text).logits, wanted)
    assert list(model.state_dict()) == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_offloaded_weights_are_brought_for_the_trial(text):
    accelerate = pytest.importorskip("accelerate")
    model = build()
    wanted = [record_routing(model, [text]).choices, model(text).logits]
    rnn.replace_router(model, gates="own", capacity_factor=0.5)
    cut = model(text).logits
    rnn.restore_router(model)
    offloaded = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    with torch.no_grad():
        np.testing.assert_array_equal(record_routing(offloaded, [text]).choices, wanted[0])
        rnn.replace_router(offloaded, gates="own", capacity_factor=0.5)
        torch.testing.assert_close(offloaded(text).logits, cut)


# --- odd models -------------------------------------------------------------------------------------------------------


class Quantised(torch.nn.Module):
    """Experts stored in a type in which nothing is computed, with a scale for each row."""

    num_experts = 4

    def __init__(self, experts, dtype):
        super().__init__()
        for name in ("gate_up_proj", "down_proj"):
            weight = getattr(experts, name).detach()
            scale = weight.abs().amax(-1, keepdim=True) / 100
            stored = (weight / scale).round().to(dtype)
            self.register_parameter(name, torch.nn.Parameter(stored, requires_grad=False))
            self.register_buffer(f"{name}_scale", scale)

    def forward(self, x, index, weight):
        up, down = (getattr(self, n).float() * getattr(self, f"{n}_scale") for n in ("gate_up_proj", "down_proj"))
        inner = torch.einsum("nd,nkfd->nkf", x, up[index])
        gate, inner = inner.chunk(2, dim=-1)
        inner = torch.nn.functional.silu(gate) * inner
        return torch.einsum("nk,nkf,nkdf->nd", weight, inner, down[index])


BOTH = [{"gates": "own"}, {"gates": "linear"}]


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("options", BOTH)
def test_quantised_experts(dtype, options, text):
    model = build()
    for layer in model.model.layers:
        layer.mlp.experts = Quantised(layer.mlp.experts, dtype)
    wanted = model(text).logits
    assert record_routing(model, [text]).choices.shape == (36, 2, 2)
    blocks = rnn.replace_router(model, capacity=2, **options)
    assert model(text).logits.ne(wanted).any()
    assert blocks[0].summary()["drop_rate"] > 0.2
    rnn.restore_router(model)
    assert torch.equal(model(text).logits, wanted)


@pytest.mark.parametrize("options", BOTH)
def test_modules_in_two_places(options, text):
    """One block in two layers is one block; experts of two blocks could not be told apart."""
    model = build()
    model.model.layers[1].mlp = model.model.layers[0].mlp
    wanted = model(text).logits
    (block,) = rnn.replace_router(model, capacity=12, **options)
    model(text)
    assert block.summary()["tokens"] == 2 * 36
    rnn.restore_router(model)
    assert torch.equal(model(text).logits, wanted)
    model = build()
    model.model.layers[1].mlp.experts = model.model.layers[0].mlp.experts
    with pytest.raises(ValueError, match=r"layers\.1\.mlp has the experts of model\.layers\.0\.mlp"):
        rnn.replace_router(model, **options)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    mixtral = tiny_models.build(transformers.MixtralForCausalLM, "mixtral")
    mixtral.model.layers[1].mlp = mixtral.model.layers[0].mlp
    wanted = mixtral(text).logits
    (block,) = rnn.replace_router(mixtral, capacity=12, **options)
    mixtral(text)
    assert block.summary()["tokens"] == 2 * 36
    rnn.restore_router(mixtral)
    assert torch.equal(mixtral(text).logits, wanted)


@pytest.mark.parametrize("options", BOTH)
def test_weights_that_are_not_there(options, text):
    with torch.device("meta"):
        model = transformers.DeepseekV3ForCausalLM(
            tiny_models.configuration(transformers.DeepseekV3Config, "deepseek_v3")
        )
    for call in (lambda: rnn.replace_router(model, **options), lambda: record_routing(model, [text])):
        with pytest.raises(ValueError, match=r"meta device.* load (it|the model) whole first"):
            call()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("options", BOTH)
def test_two_models_at_once_in_threads(options, text):
    """Each model, thread and call has its own mask and its own decisions."""
    models = {family: build(family) for family in ("deepseek_v3", "gpt_oss")}
    masks = [(torch.arange(12) >= k).long()[None].expand(3, 12) for k in range(4)]
    with torch.no_grad():
        for model in models.values():
            rnn.replace_router(model, capacity=3, **options)
        wanted = {
            (name, k): model(text, attention_mask=masks[k]).logits for name, model in models.items() for k in range(4)
        }
        wrong = []

        def work(name, k):
            with torch.no_grad():
                for _ in range(3):
                    got = models[name](text, attention_mask=masks[k]).logits
                    if not torch.equal(got[:, k:], wanted[name, k][:, k:]):
                        wrong.append((name, k))
                    if not torch.equal(selections(models[name])[0].kept.expert[..., 0] >= 0, masks[k] > 0):
                        wrong.append((name, k))

        threads = [threading.Thread(target=work, args=key) for key in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    rnn.restore_router(models["gpt_oss"])
    assert len(selections(models["deepseek_v3"])) == 2


@pytest.mark.parametrize("options", BOTH)
def test_frozen_and_with_adapters_in_adapters(options, text):
    peft = pytest.importorskip("peft")
    model = build().requires_grad_(False)
    wanted = model(text).logits
    rnn.replace_router(model, capacity=2, **options)
    new = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all("resonance_router" in name for name in new)
    assert model(text).logits.requires_grad == bool(new) == (options["gates"] != "own")
    rnn.restore_router(model)
    assert torch.equal(model(text).logits, wanted)
    inner = peft.get_peft_model(model, peft.LoraConfig(target_modules=["o_proj"]))
    outer = peft.PeftModel(inner, peft.LoraConfig(target_modules=["q_b_proj"]), "second")
    wanted = outer(input_ids=text).logits
    blocks = rnn.replace_router(outer, capacity=2, **options)
    outer(input_ids=text, attention_mask=LEFT).logits.sum().backward()
    assert blocks[0].summary()["tokens"] == int(LEFT.sum())
    rnn.restore_router(outer)
    assert torch.equal(outer(input_ids=text).logits, wanted)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_own_gates_of_mixtrals_kind_stay(family, dtype, text):
    """Their own logits choose, in the model's own rounding: the same outputs, logits and loss where nothing is dropped."""
    kind = {"mixtral": "Mixtral", "qwen3_moe": "Qwen3Moe", "olmoe": "Olmoe"}[family]
    model = tiny_models.build(getattr(transformers, f"{kind}ForCausalLM"), family).to(dtype)
    given = {"input_ids": text, "labels": text, "output_router_logits": True}
    wanted = model(**given)
    blocks = rnn.replace_router(model, gates="own", rule="resonance", capacity=12)
    assert [type(block) for block in blocks] == [Selection] * 2
    got = model(**given)
    assert torch.equal(got.logits, wanted.logits)
    assert torch.equal(got.loss, wanted.loss)
    assert torch.equal(got.aux_loss, wanted.aux_loss)
    rnn.restore_router(model)
    assert torch.equal(model(**given).logits, wanted.logits)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_expert_choice_does_not_generate_unless_asked(text):
    mixtral = transformers.MixtralForCausalLM
    model = tiny_models.build(mixtral, "mixtral")
    rnn.replace_router(model, gates="own", rule="expert_choice")
    with pytest.raises(ValueError, match=r"those to come.*lookahead = True"):
        model.generate(text, max_new_tokens=1)
    rnn.restore_router(model)
    model.generate(text, max_new_tokens=1, pad_token_id=0)
    rnn.replace_router(model, gates="own", rule="expert_choice", lookahead=True)
    model.generate(text, max_new_tokens=1, pad_token_id=0)
    with pytest.raises(ValueError, match="rule = 'expert_choice' needs a weight of every token for every expert"):
        rnn.replace_router(build(), gates="own", rule="expert_choice")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"capacity": 0}, "capacity = 0"),
        ({"capacity_factor": -1.0}, "capacity_factor = -1"),
        ({"capacity": 2, "capacity_factor": 1.0}, "one at a time"),
        ({"rule": "best"}, "rule = 'best'"),
        ({"rule": "adaptive"}, "rule = 'adaptive' keeps a share"),
        ({"top": 3}, "top = 3 must be left out .* rule, capacity, capacity_factor"),
        ({"dropped": "pass"}, "dropped = 'pass'"),
    ],
)
def test_wrong_options(options, words):
    model = build()
    before = [(name, type(m), len(m._forward_pre_hooks)) for name, m in model.named_modules()]
    with pytest.raises(ValueError, match=words):
        rnn.replace_router(model, gates="own", **options)
    assert before == [(name, type(m), len(m._forward_pre_hooks)) for name, m in model.named_modules()]


def squared(original):
    return lambda x, index, weight: original(x, index, weight**2)


def renormalised(original):
    return lambda x, index, weight: original(x, index, weight / weight.sum(-1, keepdim=True).clamp(min=1e-9))


def even(original):
    return lambda x, index, weight: original(x, index, torch.ones_like(weight))


@pytest.mark.parametrize("change", [renormalised, even])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_that_weigh_otherwise_are_refused_and_left_alone(change, dtype, text):
    model = build().to(dtype)
    block = find_blocks(model)[-1]
    assert misfit(block) is None
    block.module.experts.forward = change(block.module.experts.forward)
    with torch.no_grad():
        wanted = model(text).logits
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"model.layers.1.mlp \(DeepseekV3MoE\) cannot be replaced: it "):
        rnn.replace_router(model, gates="own")
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with torch.no_grad():
        assert torch.equal(model(text).logits, wanted)


def test_noise_is_refused():
    block = find_blocks(build())[0]
    original = block.module.experts.forward
    block.module.experts.forward = lambda *given: original(*given) * (1 + 1e-5 * torch.rand(()))
    assert misfit(block) == "it gives other values where every pair is kept"


def test_any_power_of_the_weight_will_do():
    """What matters is that a pair without weight adds nothing."""
    block = find_blocks(build())[0]
    block.module.experts.forward = squared(block.module.experts.forward)
    assert misfit(block) is None


def test_a_block_that_goes_around_its_experts_is_told(text):
    model = build()
    rnn.replace_router(model, gates="own")
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda x: mlp.shared_experts(x)
    with pytest.raises(RuntimeError, match=r"model.layers.0.mlp ran without handing"):
        model(text)


def test_twice_is_refused(text):
    model = build()
    rnn.replace_router(model, gates="own")
    with pytest.raises(ValueError, match="replaced blocks already"):
        rnn.replace_router(model, gates="own")


# --- the log ----------------------------------------------------------------------------------------------------------


def test_log_of_padded_batches(text):
    model = build().train()
    log = record_routing(model, [{"input_ids": text, "attention_mask": LEFT}, text[:1, :5]])
    assert model.training
    assert log.choices.shape == (41, 2, 2)
    padded = torch.cat([LEFT.flatten() == 0, torch.zeros(5, dtype=torch.bool)]).numpy()
    assert ((log.choices == -1).all((1, 2)) == padded).all()
    assert log.documents.tolist() == [0] * 12 + [1] * 12 + [2] * 12 + [3] * 5
    assert log.layers == ("model.layers.0.mlp", "model.layers.1.mlp")
    assert any("8 of 41 tokens are padding" in note for note in log.notes)
    assert log.loads(41)[0, 0].sum() == 33 * 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_bias_lessens_the_agreement_with_logits(text):
    """A correction bias decides beside the logits: the log holds what was taken, the note how often they agree."""
    model = build()
    said = [note for note in record_routing(model, [text]).notes if "largest logits" in note]
    assert all("100.00 %" in note for note in said)
    with torch.no_grad():
        model.model.layers[0].mlp.gate.e_score_correction_bias[3] = 10.0
    log = record_routing(model, [text])
    assert (log.choices[:, 0] == 3).any(-1).all()
    first, second = (note for note in log.notes if "largest logits" in note)
    assert "100.00 %" not in first
    assert "100.00 %" in second


def test_negative_weights_are_left_out(text):
    """The scale of each expert is learned, and may be below 0."""
    model = tiny_models.build(transformers.Gemma4ForCausalLM, "gemma4")
    assert (record_routing(model, [text]).weights > 0).all()
    with torch.no_grad():
        model.model.layers[0].router.per_expert_scale.neg_()
    log = record_routing(model, [text])
    assert log.weights is None
    assert any("weights below 0" in note for note in log.notes)


def test_refusals_of_the_log(text):
    model = build()
    with pytest.raises(ValueError, match="model is a Linear that has no Mixture-of-Experts blocks"):
        record_routing(torch.nn.Linear(3, 3), [text])
    with pytest.raises(ValueError, match=r"blocks names 'x' but the model's blocks are model\.layers\.0\.mlp"):
        record_routing(model, [text], blocks=["x"])
    with pytest.raises(TypeError, match="batches holds a str"):
        record_routing(model, ["text"])
    with pytest.raises(ValueError, match=r"input_ids has shape \(12,\)"):
        record_routing(model, [text[0]])
    rnn.replace_router(model, gates="own")
    with pytest.raises(ValueError, match=r"replaced blocks.*restore_router"):
        record_routing(model, [text])
    rnn.restore_router(model)
    with pytest.raises(ValueError, match="ran none"):
        record_routing(model, [])
    with pytest.raises(TypeError, match="model is a str"):
        find_blocks("model")


def test_text_and_image_experts_take_their_own_tokens(text):
    """ERNIE 4.5 VL sends text and image tokens to experts of their own, without their samples."""
    kind = next(k for k in tiny_models.models_of(FAMILIES["ernie4_5_vl_moe"]) if k.__name__.endswith("MoeTextModel"))
    model = tiny_models.build(kind, "ernie4_5_vl_moe")
    kinds = torch.zeros_like(text)
    kinds[:, 4:9] = 1
    given = {"input_ids": text, "moe_mm_token_type_ids": kinds}
    names = [block.name for block in find_blocks(model)]
    texts = [name for name in names if name.endswith("text_moe")]
    log = record_routing(model, [given], blocks=texts)
    assert log.choices.shape == (21, len(texts), 2)
    assert log.documents is None
    assert any("other tokens than the batches hold" in note for note in log.notes)
    with pytest.raises(ValueError, match=r"blocks differ .*text_moe: 4 experts, 21 tokens.*vision_moe: 4 experts, 15"):
        record_routing(model, [given])
    wanted = model(**given)[0]
    blocks = rnn.replace_router(model, gates="own", capacity=36)
    with pytest.warns(UserWarning, match="all of a call share its slots"):
        assert torch.equal(model(**given)[0], wanted)
    assert {block.kept.expert.shape[1] for block in blocks} == {21, 15}
