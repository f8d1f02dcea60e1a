"""Every Mixture-of-Experts family of the installed transformers, tiny and random: found, logged, another rule over it."""

import collections
import functools
import os
import string
import tempfile
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'peers')")
if int(transformers.__version__.split(".")[0]) < 5:
    pytest.skip("models of transformers before 5 have other blocks", allow_module_level=True)

from resonance_theory import nn as rnn  # noqa: E402
from resonance_theory.audit.model_log import log_model  # noqa: E402
from resonance_theory.nn.families import find_blocks, record_routing  # noqa: E402
from resonance_theory.nn.regate import regate  # noqa: E402
from resonance_theory.nn.selection import select_within  # noqa: E402
from tests import tiny_models  # noqa: E402

transformers.utils.logging.set_verbosity_error()
FAMILIES = tiny_models.families()
LEAST = {"logged": 70, "stored": 70, "replaced": 60, "gated": 60}
LEAST_KINDS = 70


@functools.cache
def cases(family):
    """Models of a family that run, as few as hold all kinds of its blocks; and why the others do not."""
    found, problems, kinds = [], {}, set()
    for kind in tiny_models.models_of(FAMILIES[family]):
        try:
            model = tiny_models.build(kind, family)
            new = {type(block.module) for block in find_blocks(model)} - kinds
            if new:
                given = readable(model)
                found.append((model, given))
                kinds |= new
        except Exception as problem:
            problems[kind.__name__] = f"{type(problem).__name__}: {problem}"
    return found, problems


def readable(model):
    """An input that the model takes: tokens, or vectors where it has no embedding of its own."""
    for embedded in (False, True):
        given = tiny_models.inputs(model, embedded)
        try:
            with torch.no_grad():
                tiny_models.hidden(model, given)
            return given
        except AttributeError:
            if embedded:
                raise
    raise AssertionError


def ran(model, given):
    """The blocks that run on that input."""
    names, handles = set(), []
    for block in find_blocks(model):
        handles += block.intercept(lambda expert, weight, name=block.name: names.add(name))
    with torch.no_grad():
        output = tiny_models.hidden(model, given)
    for handle in handles:
        handle.remove()
    return [block for block in find_blocks(model) if block.name in names], output


# --- what the log must hold, and what a capacity must cut, by other means than hooks -----------------------------------


def naive(expert, weight, capacity, samples):
    """Which pairs stay: each expert's heaviest of each sample, one after the other; expert, weight: (N, k)."""
    n, k = expert.shape
    keep = np.ones((n, k), bool)
    for sample in range(samples):
        rows = range(sample * n // samples, (sample + 1) * n // samples)
        for e in set(expert.flatten().tolist()) - {-1}:
            pairs = [(t, j) for t in rows for j in range(k) if expert[t, j] == e]
            pairs.sort(key=lambda pair: -weight[pair])
            for pair in pairs[capacity:]:
                keep[pair] = False
    return keep


class Patched:
    """A model whose blocks are changed where their parts' own `forward` stands."""

    def __init__(self, blocks, capacity, samples):
        self.seen, self.capacity, self.samples = {}, capacity, samples
        self.undo = []
        for block in blocks:
            make = MAKERS.get(type(block.module).__name__, experts_forward)
            part, forward = make(self, block)
            self.undo.append((part, part.__dict__.get("forward")))
            part.forward = forward

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for part, before in self.undo:
            if before is None:
                del part.forward
            else:
                part.forward = before

    def keep(self, block, expert, weight):
        expert, weight = expert.detach().cpu().numpy(), weight.detach().float().cpu().numpy()
        self.seen[block.name] = (expert, weight)
        if self.capacity is None:
            return torch.ones(expert.shape, dtype=torch.bool)
        return torch.from_numpy(naive(expert, weight, self.capacity, self.samples))


def experts_forward(patched, block):
    experts = block.module.experts
    original, real = experts.forward, block.experts

    def forward(x, index, weight):
        empty = (index >= real) | ((weight == 0) if "Zaya" in type(block.module).__name__ else (index < 0))
        keep = patched.keep(block, index.masked_fill(empty, -1), weight)
        return original(x, index, weight * keep)

    return experts, forward


def llama4_forward(patched, block):
    router = block.module.router

    def forward(x):
        logits = x @ router.weight.T
        value, index = logits.topk(router.top_k, dim=1)
        score = torch.sigmoid(value.float()).to(x.dtype)
        keep = patched.keep(block, index, score)
        return torch.zeros_like(logits).scatter(1, index, score * keep), logits

    return router, forward


def switch_forward(patched, block):
    router = block.module.router

    def forward(x):
        logits = x @ router.classifier.weight.T
        value, index = torch.softmax(logits, -1).max(-1, keepdim=True)
        keep = patched.keep(block, index.flatten(0, 1), value.flatten(0, 1)).reshape(index.shape)
        return torch.zeros_like(logits).scatter(-1, index, 1.0).long() * keep, value, logits

    return router, forward


def nllb_forward(patched, block):
    router = block.module.router

    def forward(x, padding_mask=None):
        logits = x @ router.classifier.weight.T
        value, index = torch.softmax(logits, -1).topk(2, dim=-1)
        value = value / value.sum(-1, keepdim=True)
        keep = patched.keep(block, index, value)
        first = torch.nn.functional.one_hot(index[:, 0], logits.shape[-1])
        return first, torch.zeros_like(logits).scatter(1, index, value * keep), logits

    return router, forward


def jetmoe_forward(patched, block):
    router = block.module.router

    def forward(x):
        logits = x @ router.layer.weight.T
        value, index = logits.topk(router.top_k, dim=1)
        weight = torch.softmax(value, dim=1)
        weight = weight * patched.keep(block, index, weight)
        order = index.flatten().sort(stable=True).indices
        size = torch.bincount(index.flatten(), minlength=router.num_experts).tolist()
        return order, order // router.top_k, weight.flatten()[order], size, logits

    return router, forward


def doge_forward(patched, block):
    moe = block.module

    def forward(x, **_):
        flat = x.flatten(0, 1)
        logits = (flat @ moe.router_gate.weight.T).reshape(2, len(flat), -1)
        pairs = logits[0][:, :, None] + logits[1][:, None, :]
        value, index = pairs.flatten(1).topk(moe.top_k, dim=-1)
        weight = torch.softmax(value, -1)
        keep = patched.keep(block, index, weight)
        inner = moe.act_fn(torch.einsum("nkd,nd->nk", moe.down_embed.weight[index], flat)) * weight * keep
        routed = torch.einsum("nk,nkd->nd", inner, moe.up_embed.weight[index]).reshape(x.shape)
        return moe.down_proj(moe.act_fn(moe.gate_proj(x)) * moe.up_proj(x)) + routed, logits

    return moe, forward


MAKERS = {
    "Llama4TextMoe": llama4_forward,
    "SwitchTransformersSparseMLP": switch_forward,
    "NllbMoeSparseMLP": nllb_forward,
    "JetMoeMoE": jetmoe_forward,
    "JetMoeMoA": jetmoe_forward,
    "DogeCDMoE": doge_forward,
}


# --- the matrix -------------------------------------------------------------------------------------------------------

Row = collections.namedtuple(
    "Row", "family block layout logged stored replaced gated why", defaults=(False, False, False, False, "")
)


def logged(model, given, blocks, wanted):
    """The log, held against what the parts were given."""
    samples = 1 if "pixel_values" in given else 2
    log = record_routing(model, [given], blocks=[block.name for block in blocks])
    with torch.no_grad(), Patched(blocks, None, samples) as patched:
        torch.testing.assert_close(tiny_models.hidden(model, given), wanted)
    for layer, block in enumerate(blocks):
        assert log.layers[layer] == block.name
        expert, weight = patched.seen[block.name]
        order, mine = np.argsort(expert, axis=1, kind="stable"), log.choices[:, layer]
        found = np.argsort(mine, axis=1, kind="stable")
        np.testing.assert_array_equal(np.take_along_axis(mine, found, 1), np.take_along_axis(expert, order, 1))
        there = np.take_along_axis(expert, order, 1) >= 0
        np.testing.assert_allclose(
            np.take_along_axis(log.weights[:, layer], found, 1)[there],
            np.take_along_axis(weight, order, 1)[there],
            rtol=1e-4,
        )
    return log


def replaced(model, given, blocks, wanted):
    """The same outputs without drops; with drops those of the parts changed by hand; and the model back as it was."""
    samples = 1 if "pixel_values" in given else 2
    names = list(model.state_dict())
    select_within(model, find_blocks(model), rule="resonance", capacity=16)
    with torch.no_grad():
        assert torch.equal(tiny_models.hidden(model, given), wanted)
    rnn.restore_router(model)
    selections = select_within(model, find_blocks(model), rule="resonance", capacity=2)
    with torch.no_grad():
        got = tiny_models.hidden(model, given)
    assert list(model.state_dict()) == names
    used = {selection.name: selection for selection in selections if selection.pairs}
    assert set(used) == {block.name for block in blocks}
    assert all(selection.kept.cut.any() for selection in used.values())
    model.train()
    given = {**given, "use_cache": False} if "decoder_input_ids" not in given else given
    loss = tiny_models.hidden(model, given).float().square().mean()
    loss.backward()
    model.eval()
    for block in blocks:
        grads = [p.grad for p in block.module.parameters() if p.grad is not None]
        assert grads
        assert all(g.isfinite().all() for g in grads)
        assert any(g.any() for g in grads)
    model.zero_grad()
    rnn.restore_router(model)
    with torch.no_grad():
        assert torch.equal(tiny_models.hidden(model, given), wanted)
        with Patched(blocks, 2, samples):
            reference = tiny_models.hidden(model, given)
    effect = float((reference - wanted).abs().max())
    assert effect > 0
    assert float((got - reference).abs().max()) <= 1e-3 * effect
    in_bfloat16(model, given)


def gated(model, given, blocks, _):
    """A new gate: the outputs of experts that are given another decision by hand; and the model back as it was."""
    samples = 1 if "pixel_values" in given else 2
    with torch.no_grad():
        wanted = tiny_models.hidden(model, given)  # the weights were rounded since
    torch.manual_seed(0)
    new = regate(model, find_blocks(model), "linear", rule="resonance", capacity=2, top=2)
    with torch.no_grad():
        got = tiny_models.hidden(model, given)
    assert {each.name for each in new if each.pairs} == {block.name for block in blocks}
    assert all(each.kept.cut.any() for each in new if each.pairs)
    by_name = {each.name: each for each in new}
    rnn.restore_router(model)
    with torch.no_grad():
        undo = [decide(block, by_name[block.name], samples) for block in blocks]
        reference = tiny_models.hidden(model, given)
        for part in undo:
            del part.forward
        assert torch.equal(tiny_models.hidden(model, given), wanted)
    effect = float((reference - wanted).abs().max())
    assert effect > 0
    assert float((got - reference).abs().max()) <= 1e-3 * effect


def decide(block, new, samples):
    """Change the experts' own `forward`: a softmax of the new gate's logits, its two largest, two tokens an expert, and
    the sum of weights that the model gave the token."""
    experts, gate = block.module.experts, new.router.gate.weight
    original = experts.forward

    def forward(x, index, weight):
        value, chosen = torch.softmax(x.flatten(0, -2) @ gate.T, -1).topk(2)
        keep = torch.from_numpy(naive(chosen.numpy(), value.numpy(), 2, samples))
        return original(x, chosen, value * keep * (weight.sum(-1) / value.sum(-1))[:, None])

    experts.forward = forward
    return experts


def in_bfloat16(model, given):
    """The same outputs, bit for bit, where nothing is dropped."""
    given = {k: v.bfloat16() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in given.items()}
    model.to(torch.bfloat16)
    try:
        with torch.no_grad():
            tiny_models.hidden(model, given)
    except RuntimeError:  # some weights stay in float32 where the model is loaded
        for name, p in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith(tuple(model._keep_in_fp32_modules_strict or ())):
                p.data = p.data.float()
    assert any(p.dtype == torch.bfloat16 for p in model.parameters())
    with torch.no_grad():
        wanted = tiny_models.hidden(model, given)
        select_within(model, find_blocks(model), rule="resonance", capacity=16)
        assert torch.equal(tiny_models.hidden(model, given), wanted)
    rnn.restore_router(model)
    model.float()


def save_tokenizer(folder):
    """Letters as tokens: whatever class the configuration asks for reads them alike."""
    from tokenizers import Tokenizer, models

    letters = {letter: place for place, letter in enumerate(string.ascii_letters)}
    tokenizer = Tokenizer(models.BPE(letters, []))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


@functools.cache
def stored(family):
    """Kinds of blocks whose choices `resonance audit --model` logs from a stored model; and why not those of others."""
    kinds, problems = set(), {}
    ids = torch.randint(0, 52, (2, 12), generator=torch.Generator().manual_seed(3))
    for kind in tiny_models.models_of(FAMILIES[family]):
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = tiny_models.build(kind, family)
                if not {type(block.module) for block in find_blocks(model)} - kinds:
                    continue
                model.save_pretrained(folder)
                save_tokenizer(folder)
                text = Path(folder) / "text.txt"
                text.write_text("".join(string.ascii_letters[i] for i in ids.flatten()), encoding="utf-8")
                log = log_model(folder, text, length=12)
                if family == "zaya":  # transformers sets a bias of its routers anew in loading
                    model = kind.from_pretrained(folder).eval()
                names = ["input_ids", *(["decoder_input_ids"] if model.config.is_encoder_decoder else [])]
                given = [dict.fromkeys(names, row[None]) for row in ids]
                blocks = [b for b in find_blocks(model) if b.name.endswith(log.layers)]
                wanted = record_routing(model, given, blocks=[block.name for block in blocks])
                np.testing.assert_array_equal(log.choices, wanted.choices)
                np.testing.assert_allclose(log.weights, wanted.weights, rtol=1e-3)
                kinds |= {type(block.module) for block in blocks}
            except Exception as problem:
                problems[kind.__name__] = " ".join(str(problem).replace(repr(folder), "the folder").split())
    return {kind.__name__ for kind in kinds}, problems


@functools.cache
def rows(family):
    """A row for each kind of block: what holds of it, and why not the rest."""
    table = {}
    found, problems = cases(family)
    in_folders, unread = stored(family)
    for model, given in found:
        blocks, wanted = ran(model, given)
        said = {}
        for name, check in (("logged", logged), ("replaced", replaced), ("gated", gated)):
            try:
                check(model, given, blocks, wanted)
            except Exception as problem:
                said[name] = f"{type(problem).__name__}: {problem}"
        for block in blocks:
            name = type(block.module).__name__
            kept = {n: n not in said for n in ("logged", "replaced", "gated")}
            why = [*said.values(), *([] if name in in_folders else list(unread.values())[:1])]
            row = Row(family, name, block.layout.name, stored=name in in_folders, **kept, why="; ".join(why))
            table.setdefault(name, row)
    for model, _ in found:
        for block in find_blocks(model):
            row = Row(family, type(block.module).__name__, block.layout.name, why="no input of these tests runs it")
            table.setdefault(row.block, row)
    if not table:
        why = "; ".join(f"{kind}: {said}" for kind, said in problems.items()) or "no model of it has blocks"
        table[""] = Row(family, "", "", why=why)
    return tuple(table.values())


PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
MARK = "<!-- from here on written by: python -m tests.test_families -->"
HEAD = "| family | block | layout | audit | --model | replace | new gate | why not |"


def lines(family):
    """Of the page's table."""
    for row in rows(family):
        yes = ["yes" if value else "no" for value in (getattr(row, name) for name in LEAST)]
        yield "| " + " | ".join([row.family, row.block, row.layout, *yes, row.why.replace("|", " ")]) + " |"


def page():
    table = [line for family in FAMILIES for line in lines(family)]
    audit, folder, replace, gate = counted(table)
    said = (
        f"{len(FAMILIES)} families, {len(table)} kinds of blocks of transformers {transformers.__version__}: "
        f"{audit} audit, {folder} of them by `audit --model`, {replace} replace, {gate} take a new gate."
    )
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return "\n".join([before + MARK, "", said, "", HEAD, "|---" * HEAD.count(" |") + "|", *table]) + "\n"


def counted(table):
    """Kinds of blocks with a yes, by column."""
    cells = [line.split(" | ") for line in table]
    return [sum(row[3 + column] == "yes" for row in cells) for column in range(len(LEAST))]


def written():
    """The page's table, where it is of this transformers."""
    text = PAGE.read_text(encoding="utf-8")
    if f"of transformers {transformers.__version__}:" not in text:
        pytest.skip("the page is of another version of transformers")
    return text.partition(HEAD)[2].splitlines()[2:]


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family):
    for row in rows(family):
        assert row.logged, row.why
        assert row.replaced, row.why
        assert row.gated or "takes no new gate" in row.why, row.why
    assert any(row.stored for row in rows(family)), stored(family)[1]
    assert list(lines(family)) == [line for line in written() if line.startswith(f"| {family} |")]


def test_count_of_all_kinds():
    """By the page's table, whose every line is held against the matrix above."""
    table = written()
    assert {line.split(" | ")[0].removeprefix("| ") for line in table} == set(FAMILIES)
    assert len(table) >= LEAST_KINDS
    for count, least in zip(counted(table), LEAST.values()):
        assert count >= least
    audit, folder, replace, gate = counted(table)
    said = f"{len(table)} kinds of blocks of transformers {transformers.__version__}: {audit} audit, {folder} of them"
    text = PAGE.read_text(encoding="utf-8")
    assert f"{len(FAMILIES)} families, {said} by `audit --model`, {replace} replace, {gate} take" in text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
