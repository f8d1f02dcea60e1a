"""The study of Chen et al.'s mixture: its data, its network by hand, its descent, and how its arms differ."""

import math

import numpy as np
import pytest

from resonance_theory.evidence.sampling import generator
from resonance_theory.evidence.studies import study as study_module
from resonance_theory.evidence.studies.study import run_study, settings_of, studies
from simulations import _chen as chen
from simulations import chen_mixture
from simulations._rules import RULES

torch = pytest.importorskip(
    "torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'"
)

CODE, TEXT = chen.DETAILS["code"], chen.DETAILS["text"]


# --- data -------------------------------------------------------------------------------------------------------------


def test_examples_have_the_published_law():
    rng, count, dim = np.random.default_rng(0), 6000, 20
    axes = chen.directions(rng, 4, dim)
    flat = axes.reshape(8, dim)
    assert flat @ flat.T == pytest.approx(np.eye(8), abs=1e-12)
    x, label, cluster = chen.draw(rng, axes, count)
    assert x.dtype == np.float32
    along = x @ flat.T  # (count, patches, directions): four features, four centres
    beyond = np.linalg.norm(x - along @ flat, axis=-1) > 1e-4
    assert (beyond.sum(axis=1) == 1).all()  # one patch is noise
    noise = x[beyond]
    assert noise.var() == pytest.approx(1 / dim, rel=0.03)
    signal = along[~beyond].reshape(count, 3, 8)
    assert ((np.abs(signal) > 1e-4).sum(axis=-1) == 1).all()  # each other patch lies along one direction
    total, rows = signal.sum(axis=1), np.arange(count)
    assert ((np.abs(total) > 1e-4).sum(axis=1) == 3).all()
    feature, centre = total[rows, cluster], total[rows, 4 + cluster]
    others = np.where(np.arange(4) == cluster[:, None], 0, total[:, :4])
    confuser = others.sum(axis=1)
    for size, low, high in ((feature * label, 0.5, 2), (centre, 1, 2), (np.abs(confuser), 0.5, 3)):
        assert low < size.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < size.max() < high + 1e-6
        assert size.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))  # about five sigma
    five = 2.5 / math.sqrt(count)
    assert (label == 1).mean() == pytest.approx(0.5, abs=five)
    assert (confuser * label > 0).mean() == pytest.approx(0.5, abs=five)  # of no use for the label
    pairs = np.bincount(4 * cluster + np.abs(others).argmax(axis=1), minlength=16).reshape(4, 4)
    assert (np.diag(pairs) == 0).all()
    assert pairs[~np.eye(4, dtype=bool)] / count == pytest.approx([1 / 12] * 12, abs=2 * five)
    assert np.bincount(beyond.argmax(axis=1)) / count == pytest.approx([0.25] * 4, abs=five)


def test_all_runs_share_one_data_set():
    training, test = chen.data(3, 50, 4, 16)
    assert all(np.array_equal(a, b) for a, b in zip(training, chen.data(3, 50, 4, 16)[0]))
    assert not np.array_equal(training[0], test[0])
    assert not np.array_equal(training[0], chen.data(4, 50, 4, 16)[0][0])


# --- dispatch entropy -------------------------------------------------------------------------------------------------


def test_dispatch_entropy():
    cluster = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert chen.entropy(cluster, cluster + 2, 4) == 0  # each expert has one cluster
    assert chen.entropy(cluster, cluster // 2, 4) == pytest.approx(math.log(2))
    assert chen.entropy(cluster, np.zeros(8, dtype=int), 4) == pytest.approx(math.log(4))
    half = np.array([0, 0, 0, 1, 1, 1, 1, 1])  # shares 2/3, 1/3 of three and 1/5, 2/5, 2/5 of five
    three, five = -(2 / 3 * math.log(2 / 3) + math.log(1 / 3) / 3), -(math.log(1 / 5) + 4 * math.log(2 / 5)) / 5
    assert chen.entropy(cluster, half, 4) == pytest.approx((3 * three + 5 * five) / 8)


def test_dispatch_entropy_has_bounds_and_ignores_names():
    rng = np.random.default_rng(1)
    for _ in range(50):
        cluster, expert = rng.integers(0, 4, 40), rng.integers(0, 8, 40)
        value, order = chen.entropy(cluster, expert, 4), rng.permutation(40)
        assert 0 <= value <= math.log(4)
        renamed = chen.entropy(rng.permutation(4)[cluster[order]], rng.permutation(8)[expert[order]], 4)
        assert renamed == pytest.approx(value, abs=1e-12)


# --- the network ------------------------------------------------------------------------------------------------------


def some(seed=2, runs=2, count=12, dim=5, experts=3, width=4):
    """A random network, with examples and the router's noise, as tensors."""
    rng = np.random.default_rng(seed)
    shapes = [(runs, dim, experts), (runs, experts, dim + 1, width), (count, 4, dim + 1)]
    router, filters, x = (torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in shapes)
    x[..., -1] = 1.0
    return [router, filters], x, torch.from_numpy(rng.random((runs, count, experts), dtype=np.float32))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("details", [CODE, TEXT], ids=["code", "text"])
@pytest.mark.parametrize("cubic", [True, False], ids=["cubic", "linear"])
def test_the_network_by_hand(rule, details, cubic):
    """Example by example, run by run, over all experts, with the slots counted by hand."""
    (router, filters), x, noise = some()
    capacity = 3
    found, kept = chen.outputs([router, filters], x, noise, rule, capacity, cubic, details)
    for r in range(2):
        logits = x[:, :, :-1].numpy().sum(axis=1) @ router[r].numpy()
        noisy = logits + noise[r].numpy()
        choice = noisy.argmax(axis=1)
        z, pairs = np.zeros(12), set()
        for i in range(3):
            pool = list(range(12)) if rule == "expert_choice" else [b for b in range(12) if choice[b] == i]
            for b in (pool if rule == "token_choice" else sorted(pool, key=lambda b: -noisy[b, i]))[:capacity]:
                pairs.add((b, i))
                inside = x[b].numpy() @ filters[r, i].numpy()
                inside = inside**3 if cubic else inside
                sign = np.array([-1, -1, 1, 1]) if details["two_outputs"] else np.ones(4)
                share = np.exp(logits[b]) / np.exp(logits[b]).sum()
                z[b] += (inside @ sign).sum() * (noisy[b, i] if details["logit_gate"] else share[i])
        mine = kept.sample == r
        assert set(zip(kept.token[mine].tolist(), kept.expert[mine].tolist())) == pairs
        assert found[r].numpy() == pytest.approx(z, rel=1e-4, abs=1e-3)


def test_a_linear_expert_sees_the_sum_of_the_patches():
    network, x, noise = some()
    whole, _ = chen.outputs(network, x, noise, "resonance", 3, False, CODE)
    summed, _ = chen.outputs(network, x.sum(dim=1, keepdim=True), noise, "resonance", 3, False, CODE)
    assert summed.numpy() == pytest.approx(whole.numpy(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_experts_and_of_examples_does_not_matter(rule):
    (router, filters), x, noise = some()
    capacity = 12 if rule == "token_choice" else 3  # token choice with a full expert does look at positions
    z = chen.outputs([router, filters], x, noise, rule, capacity, True, CODE)[0]
    swap = [2, 0, 1]
    renamed = chen.outputs([router[:, :, swap], filters[:, swap]], x, noise[:, :, swap], rule, capacity, True, CODE)[0]
    assert renamed.numpy() == pytest.approx(z.numpy(), rel=1e-4, abs=1e-3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    moved = chen.outputs([router, filters], x[order], noise[:, order], rule, capacity, True, CODE)[0]
    assert moved.numpy() == pytest.approx(z[:, order].numpy(), rel=1e-4, abs=1e-3)


def test_the_loss_is_cross_entropy_as_published():
    """The code's: of softmaxed outputs, whose floor is log(1 + 1/e). The text's: logistic."""
    z, label = torch.linspace(-6, 6, 24).reshape(2, 12), torch.tensor([-1.0, 1.0] * 6)
    target = (label > 0).long()
    logits = torch.stack([torch.full_like(z, 0.7), z + 0.7], dim=-1)  # two outputs that differ by z
    cross = [torch.nn.functional.cross_entropy(torch.softmax(logits[r], dim=-1), target) for r in range(2)]
    assert chen.losses(z, label, True).tolist() == pytest.approx([float(c) for c in cross], rel=1e-6)
    logistic = torch.log1p(torch.exp(-label * z)).mean(dim=-1)
    assert chen.losses(z, label, False).tolist() == pytest.approx(logistic.tolist(), rel=1e-6)
    assert float(chen.losses(100 * label[None], label, True)) == pytest.approx(math.log1p(math.exp(-1)))
    assert float(chen.losses(100 * label[None], label, False)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_flow_through_kept_pairs_alone(rule):
    network, x, noise = some(runs=1)
    noise[..., 2] = -100.0 if rule != "expert_choice" else noise[..., 2]  # nobody chooses expert 2
    inputs = [*network, x]
    for tensor in inputs:
        tensor.requires_grad_()
    z, kept = chen.outputs(network, x, noise, rule, 2, True, CODE)
    router, filters, by_example = torch.autograd.grad((z * torch.linspace(1, 2, 12)).sum(), inputs)
    served = {int(e) for e in kept.expert}
    assert served == ({0, 1, 2} if rule == "expert_choice" else {0, 1})
    for i in range(3):
        assert bool(filters[0, i].abs().sum() > 0) == (i in served)
        assert bool(router[0, :, i].abs().sum() > 0) == (i in served)
    taught = by_example.abs().sum(dim=(1, 2)) > 0
    assert set(np.flatnonzero(taught.numpy())) == {int(t) for t in kept.token}
    assert not bool(taught.all())
    # the text's gate is a softmax: every expert's logit has a share in it
    shared = torch.autograd.grad(chen.outputs(network, x, noise, rule, 2, True, TEXT)[0].sum(), network[0])[0]
    assert bool((shared.abs().sum(dim=1) > 0).all())


def test_a_step_has_one_length_for_each_expert():
    network, rng = some()[0], np.random.default_rng(4)
    gradient = [torch.from_numpy(rng.normal(size=p.shape).astype(np.float32)) for p in network]
    gradient[1][1, 2] = 0.0  # an expert that received nothing
    router, filters = chen.descend(network, gradient, 0.01, 0.5)
    assert (network[0] - router).numpy() == pytest.approx(0.5 * gradient[0].numpy(), abs=1e-6)
    step = (network[1] - filters).numpy()
    lengths = np.sqrt((step[:, :, :-1] ** 2).sum(axis=(2, 3))) + np.sqrt((step[:, :, -1] ** 2).sum(axis=2))
    assert lengths == pytest.approx(np.array([[0.01, 0.01, 0.01], [0.01, 0.01, 0.0]]), abs=1e-5)
    direction = gradient[1] / gradient[1].flatten(2).norm(dim=-1)[..., None, None].clamp(min=1e-9)
    unit = step / np.maximum(np.sqrt((step**2).sum(axis=(2, 3), keepdims=True)), 1e-9)
    assert unit == pytest.approx(direction.numpy(), abs=1e-3)


# --- training ---------------------------------------------------------------------------------------------------------

TINY = {
    "data_seed": 0, "examples": 240, "clusters": 4, "dim": 12, "experts": 4, "filters": 4, "steps": 4,
    "expert_rate": 0.001, "router_rate": 0.1, "size": 0.001,
}  # fmt: skip


def trained(details=CODE, runs=2, seed=0, **change):
    parameters = TINY | {"rule": "token_choice", "capacity": 240, "cubic": True} | details | change
    return chen_mixture.train(generator(seed, "t", 0), runs, **parameters)


def by_name(counts):
    names = dict.fromkeys(key.rpartition("/")[0] for key in counts)
    return {name: [v / chen.PER for key, v in counts.items() if key.rpartition("/")[0] == name] for name in names}


def test_noise_is_uniform_and_drawn_anew_each_time(monkeypatch):
    seen, inner = [], chen.outputs

    def spy(network, x, noise, *rest):
        seen.append(noise.numpy().copy())
        return inner(network, x, noise, *rest)

    monkeypatch.setattr(chen, "outputs", spy)
    trained(steps=5)
    *training, test, quiet, free = seen
    assert len(training) == 5
    assert not quiet.any()
    assert np.array_equal(test, free)
    drawn = np.stack([*training, test])
    assert 0 <= drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    assert np.histogram(drawn, bins=10, range=(0, 1))[0] / drawn.size == pytest.approx([0.1] * 10, abs=0.01)
    parts = drawn.reshape(-1, 240 * 4)  # steps and runs
    assert np.abs(np.corrcoef(parts) - np.eye(len(parts))).max() < 0.2  # six sigma


def test_runs_end_as_published(monkeypatch):
    """Beyond the least loss so far by .02, or at .314 and not a new minimum; without gradients nothing moves."""
    script = iter([[0.60, 0.50], [0.615, 0.313], [0.59, 0.3135], [0.6101], [0.5], [0.5]])
    monkeypatch.setattr(chen, "losses", lambda z, *_: (z * 0).sum(dim=1) + torch.tensor(next(script)))
    measured = by_name(trained(steps=8))
    assert measured["steps"] == pytest.approx([4 / 8, 3 / 8])
    assert measured["loss"] == pytest.approx([0.6101, 0.3135])
    assert next(script) == [0.5]
    script = iter([[0.6], [0.7], [0.3], [0.31]])
    assert by_name(trained(details=TEXT, runs=1))["steps"] == [1.0]


def test_a_run_does_not_depend_on_the_others(monkeypatch):
    """Nor on when they end: run 1 goes on to the end while run 0 stops at the third step, or does not."""
    together = by_name(trained(steps=12))
    alone = by_name(trained(runs=1, steps=12))
    for name, values in together.items():
        assert values[0] == pytest.approx(alone[name][0], abs=1e-5), name
    inner, calls = chen.losses, []

    def stop_the_first(z, label, softmaxed):
        calls.append(len(z))
        return inner(z, label, softmaxed) + torch.tensor([1.0, 0.0] if len(calls) == 3 else [0.0] * len(z))

    monkeypatch.setattr(chen, "losses", stop_the_first)
    parted = by_name(trained(steps=12))
    assert calls == [2] * 3 + [1] * 9
    assert parted["steps"] == pytest.approx([3 / 12, 1])
    assert {name: values[1] for name, values in parted.items()} == {
        name: values[1] for name, values in together.items()
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("capacity", [20, 60, 240])
def test_counts_of_a_short_training(rule, capacity):
    counts = trained(rule=rule, capacity=capacity)
    assert counts == trained(rule=rule, capacity=capacity)
    assert counts != trained(rule=rule, capacity=capacity, seed=1)
    measured = by_name(counts)
    slots = 4 * capacity / 240
    for run in range(2):
        processed, dispatches = measured["processed"][run], measured["dispatches"][run]
        assert measured["accuracy"][run] <= processed <= min(1, dispatches)
        if rule == "expert_choice":
            assert dispatches == pytest.approx(slots, abs=1e-6)
        else:
            assert dispatches == processed <= min(1, slots)
            assert (processed == 1) == (capacity == 240)
        if capacity == 20 and rule != "expert_choice":
            assert measured["accuracy without capacity"][run] > processed  # 80 slots, and half of 240 by chance
        for name in ("entropy", "training entropy"):
            assert 0 <= measured[name][run] <= math.log(4)
    if capacity == 240 and rule != "expert_choice":
        assert measured["accuracy"] == measured["accuracy without capacity"]
        assert counts == pytest.approx(trained(), abs=10)  # with room for all, resonance is token choice


def test_each_detail_matters():
    base = trained(steps=30)
    assert base != trained(details=TEXT, steps=30)
    for detail in set(CODE) - {"early_stop"}:  # that one is tested above
        assert trained(details=CODE | {detail: TEXT[detail]}, steps=30) != base, detail
    assert trained(cubic=False, steps=30) != base


def test_training_finds_the_clusters():
    change = {"examples": 1000, "capacity": 1000, "dim": 24, "experts": 6, "filters": 8}
    before, after = (by_name(trained(steps=steps, **change)) for steps in (1, 200))
    assert min(before["training entropy"]) > 1.3  # nothing is learned at log 4 = 1.386
    assert max(after["training entropy"]) < 1.0
    assert min(after["accuracy"]) > 0.8


# --- the study --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
def test_the_arms_are_those_of_the_comparisons(full):
    settings = settings_of("chen_mixture", full=full)
    arms = {arm.label: arm.parameters for arm in chen_mixture.arms(settings)}
    assert all(row[side] in arms for row in settings["comparisons"] for side in ("first", "second") if side in row)
    assert arms["resonance, capacity 1"]["capacity"] * settings["experts"] == settings["examples"]
    for kind in ("cubic", "linear"):
        code, text = (arms[f"{kind}, as in the {source}"] for source in ("code", "text"))
        assert {key for key in code if code[key] != text[key]} == set(CODE)
        assert code["capacity"] == code["examples"]  # nobody is dropped


def test_the_study_is_found_and_runs(monkeypatch):
    assert "chen_mixture" in studies()
    tiny = settings_of("chen_mixture", full=True) | TINY | {"blocks": 1, "block_size": 2}
    monkeypatch.setattr(study_module, "settings_of", lambda *_, **__: tiny)
    result = run_study("chen_mixture", progress=None)
    assert "torch" in result.provenance
    assert [row["arm"] for row in result.rows if "arm" in row] == [arm.label for arm in chen_mixture.arms(tiny)]
    assert "(published)" in result.table()
