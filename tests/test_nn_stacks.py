"""Routers under what training stacks do to modules: checkpointing, casts, meta device, several ranks, export."""

import copy
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory import capacity_factor, losses

torch = pytest.importorskip("torch")
from torch.utils.checkpoint import checkpoint  # noqa: E402


def layer(**options):
    torch.manual_seed(0)
    return rt.nn.ResonanceMoE(rt.nn.ResonanceRouter(16, 4, **options), rt.nn.FeedForwardExperts(16, 8, 4)).train()


def batches(count=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(2, 50, 16, generator=generator) + k).to(dtype) for k in range(count)]


def state(router):
    """All that a forward leaves behind."""
    parts = (router.statistics, router.measured, router.gate)
    return [value for part in parts if part is not None for value in part.accumulators().values()]


MEASURED = {"gates": "grap-centred", "target": 0.9, "discriminative": 0.2}


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_computes_again_is_counted_once(reentrant):
    plain = layer(**MEASURED)
    saved = copy.deepcopy(plain)
    for x in batches():
        plain(x.clone().requires_grad_()).sum().backward()
        checkpoint(saved, x.requires_grad_(), use_reentrant=reentrant).sum().backward()
    assert plain.router.statistics.summary()["tokens"] == 300
    for one, other in zip(state(plain.router), state(saved.router), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_loss_without_a_gradient_is_refused():
    m, kept = layer(gates="linear"), []

    def run(x):
        y, routing = m(x, return_routing=True)
        kept.append(routing)
        return y

    for reentrant in (True, False):
        checkpoint(run, batches()[0].requires_grad_(), use_reentrant=reentrant)
    for loss in ("load_balance", "router_z"):
        with pytest.raises(ValueError, match=r"no gradient.*use_reentrant=False"):
            getattr(kept[0], loss)()
        with torch.no_grad():
            value = getattr(kept[0], loss)()
        assert torch.equal(getattr(kept[1], loss)(), value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_casts_leave_sums_alone(dtype):
    exact = layer(**MEASURED)
    cast = copy.deepcopy(exact).to(dtype)
    for x in batches(40, dtype):
        exact.router(x)
        cast.router(x)
    assert {value.dtype for value in state(cast.router)} == {torch.int64, torch.float64}
    for one, other in zip(state(exact.router), state(cast.router), strict=True):
        assert torch.equal(one, other)
    for router in (cast.router, exact.router):
        router.refresh()
    assert torch.equal(cast.router(x).token, exact.router(x).token)
    twin = layer(**MEASURED)
    rounded = {k: v.to(dtype) if v.is_floating_point() else v for k, v in cast.state_dict().items()}
    twin.load_state_dict(rounded, assign=True)
    assert twin.router.gate.mean.dtype == twin.router.measured.sums.dtype == torch.float64


@pytest.mark.parametrize("assign", [False, True])
def test_from_the_meta_device(assign):
    source = layer(**MEASURED)
    for x in batches():
        source(x)
    with torch.device("meta"):
        m = layer(**MEASURED)
    if not assign:
        m.to_empty(device="cpu")
        assert not any(value.any() for value in state(m.router))
    m.load_state_dict(source.state_dict(), assign=assign)
    m.eval()
    source.eval()
    assert torch.equal(m(x), source(x))
    assert m.router.statistics.summary()["tokens"] == 100
    assert m.router.measured.estimates()["load"].tolist() == source.router.measured.estimates()["load"].tolist()
    with pytest.raises(RuntimeError, match=r"measured.sums has shape \(3, 4\) but must have shape \(3, 2\)"):
        rt.nn.ResonanceRouter(16, 2, target=0.9).load_state_dict(source.router.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*measured.tokens"):
        source.router.load_state_dict({})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_default_dtypes_do_not_matter(dtype):
    x, wanted, m = batches()[0], layer(rule="token_choice"), layer(rule="token_choice")
    y = wanted(x)
    try:
        torch.set_default_dtype(dtype)
        assert torch.equal(m(x), y)
        assert m.router.statistics.summary() == wanted.router.statistics.summary()
    finally:
        torch.set_default_dtype(torch.float32)


def test_no_tokens_keep_every_parameter_in_the_graph():
    for x, mask in ((torch.randn(1, 0, 16), None), (torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool))):
        m = layer(gates="linear")
        m(x.requires_grad_(), mask).sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in m.parameters())


RANKS = """
import os, sys, torch, torch.distributed as dist, resonance_theory as rt
rank = int(sys.argv[1])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
options = {"gates": "grap-centred", "target": 0.9, "discriminative": 0.2}
layer = lambda: rt.nn.ResonanceMoE(rt.nn.ResonanceRouter(16, 4, **options), rt.nn.FeedForwardExperts(16, 8, 4))
m = torch.nn.parallel.DistributedDataParallel(layer())
alone = layer()
for k in range(4):
    x = [torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(2 * k + r)) + 3 * r for r in (0, 1)]
    m(x[rank]).sum().backward()
    alone(x[rank])
mine, own = m.module.router, alone.router
assert mine.statistics.summary() == own.statistics.summary()
total = mine.statistics.reduce()
assert total.summary()["tokens"] == 800 and mine.statistics.summary()["tokens"] == 400
parts = [None, None]
dist.all_gather_object(parts, {k: v for k, v in own.statistics.accumulators().items()})
assert torch.equal(total.kept, parts[0]["kept"] + parts[1]["kept"])
assert torch.equal(total.scores, parts[0]["scores"] + parts[1]["scores"])
# scatter about the common mean, from each rank's own about its origin
raw = lambda p: p["sums"] + p["kept"][:, None] * p["origin"]
square = lambda p: p["square"] + 2 * p["sums"].sum(0) @ p["origin"] + p["kept"].sum() * p["origin"].square().sum()
sums, kept = raw(parts[0]) + raw(parts[1]), total.kept
between = (sums.square().sum(1) / kept).sum() - sums.sum(0).square().sum() / kept.sum()
within = square(parts[0]) + square(parts[1]) - (sums.square().sum(1) / kept).sum()
index = (between / 3) / (within / (kept.sum() - 4))
torch.testing.assert_close(index.new_tensor(total.summary()["calinski_harabasz"]), index, rtol=1e-9, atol=0)
means = [None, None]
dist.all_gather_object(means, mine.gate.mean.clone())
mine.reduce()
torch.testing.assert_close(mine.gate.mean, (means[0] + means[1]) / 2, rtol=1e-14, atol=0)
assert abs(float(mine.measured.tokens) - 100 * (1 - 0.95**4) / 0.05) < 1e-9
empty = torch.nn.parallel.DistributedDataParallel(
    torch.nn.Sequential(torch.nn.Linear(16, 16), layer())
)
for _ in range(2):
    empty(torch.randn(1, 0 if rank else 5, 16)).sum().backward()
dist.destroy_process_group()
print("right")
"""


def test_two_ranks(tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(r), str(tmp_path / "store")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        )
        for r in (0, 1)
    ]  # fmt: skip
    told = [process.communicate(timeout=120) for process in ranks]
    assert [out.strip() for out, _ in told] == ["right", "right"], [problem[-800:] for _, problem in told]


def test_statistics_flat_for_loggers():
    m = layer()
    m(batches()[0])
    flat, summary = m.router.statistics.flat(), m.router.statistics.summary()
    assert all(isinstance(value, (int, float)) for value in flat.values())
    assert [flat[f"load/{i}"] for i in range(4)] == summary["load"]
    assert flat["kept_affinity/0.5"] == summary["kept_affinity"][0.5]
    assert flat["tokens"] == m.router.statistics.reduce().summary()["tokens"] == 100


@pytest.mark.parametrize("rule", ["token_choice", "expert_choice", "resonance"])
def test_a_fixed_capacity_is_capped_at_the_tokens(rule):
    capped = layer(rule=rule, capacity=6)
    for tokens in (1, 4, 6, 9):
        x = torch.randn(2, tokens, 16)
        routing = capped.router(x)
        assert routing.token.shape[-1] == min(6, tokens)
        assert torch.equal(routing.filled, layer(rule=rule, capacity=min(6, tokens)).router(x).filled)


@pytest.mark.parametrize(
    ("factor", "top", "experts", "tokens"), [("1.05", 1, 384, 2560), ("1.05", 2, 60, 200), ("1.2", 6, 160, 4000)]
)
def test_factors_are_the_decimals_that_were_typed(factor, top, experts, tokens):
    exact = -(-Fraction(factor) * top * tokens // experts)
    assert capacity_factor.slots(float(factor), tokens, experts, top=top) == exact
    router = rt.nn.ResonanceRouter(experts, experts, top=top, capacity_factor=float(factor), statistics=False)
    x = torch.randn(2, tokens, experts)
    mask = torch.arange(tokens) >= torch.tensor([[tokens], [tokens - 77]])
    routing = router(x, mask)
    assert routing.token.shape[-1] == exact
    assert routing.kept.max(-1).values[1] <= -(-Fraction(factor) * top * (tokens - 77) // experts)


def test_every_factor_has_one_ceiling():
    rng = np.random.default_rng(0)
    for factor in [1.1, 1 / 3, 0.1 + 0.2, 2e-9, 1e9, *rng.uniform(0, 3, 50), *(10.0 ** rng.uniform(-6, 1, 50))]:
        experts, tokens = int(rng.integers(1, 500)), int(rng.integers(0, 10**9))
        top = int(rng.integers(1, experts + 1))
        wanted = min(tokens, -(-Fraction(repr(float(factor))) * top * tokens // experts))
        assert capacity_factor.slots(factor, tokens, experts, top=top) == wanted
        assert max(capacity_factor.share(float(factor), top, experts)) < 2**31
    with pytest.raises(ValueError, match=r"factor = 0.0 must be a finite number in \(0, inf\)"):
        capacity_factor.slots(0, 5, 4)
    with pytest.raises(ValueError, match="top = 5 must be a whole number between 1 and experts = 4"):
        capacity_factor.slots(1.0, 5, 4, top=5)


def test_exported_with_free_lengths():
    free = torch.export.Dim.DYNAMIC
    m = layer().eval()
    program = torch.export.export(m, (batches()[0],), dynamic_shapes={"x": {0: free, 1: free}}, strict=False)
    program = program.module()
    x = torch.randn(3, 37, 16)
    torch.testing.assert_close(program(x), m(x))
    with pytest.raises(ValueError, match="cannot be exported: use capacity_factor"):
        torch.export.export(layer(target=0.9).eval(), (x,), strict=False)


def test_router_z_loss_of_a_routing():
    m, x = layer(gates="linear", temperature=0.5), batches()[0]
    mask = torch.arange(50) >= torch.tensor([[50], [20]])
    routing = m.router(x, mask)
    logits = m.router.gate(x) / 0.5
    wanted = 0.1 * torch.logsumexp(logits, -1).square()[~mask].mean()
    torch.testing.assert_close(routing.router_z(alpha=0.1), wanted)
    assert m.router(x[:, :0]).router_z().item() == m.router(x, torch.ones_like(mask)).router_z().item() == 0
    alone = float(torch.logsumexp(logits[0], -1).square().mean())
    assert losses.router_z(logits[0].detach().numpy()) == pytest.approx(0.001 * alone, rel=1e-6)
