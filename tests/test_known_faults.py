"""Faults of published router implementations, one test each, held against every implementation here.

A test is named after the fault, and where the fault has a short form, that form is written down and shown to differ.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory import kernels, losses

torch = pytest.importorskip("torch")
DIM, EXPERTS = 24, 4


def by_rule(rule, x, capacity, top):
    score = rt.affinity(x.double().numpy(), EXPERTS).astype(np.float32)
    return getattr(rt, rule).route(score, capacity, top=top)


def by_kernel(rule, x, capacity, top):
    return kernels.route(x, EXPERTS, capacity, top=top)


def by_router(rule, x, capacity, top, **options):
    router = rt.nn.ResonanceRouter(DIM, EXPERTS, rule=rule, top=top, capacity=capacity, statistics=False, **options)
    return router(x).assignment()


def by_fused_router(rule, x, capacity, top):
    return by_router(rule, x, capacity, top, normalize=True, fused=True)


WAYS = {
    "rules": by_rule, "numba": by_kernel, "naive": by_kernel, "router": by_router, "fused router": by_fused_router,
}  # fmt: skip


@pytest.fixture(params=WAYS)
def route(request, monkeypatch):
    """(rule, x, capacity, top) -> Assignment, by each implementation; `kernels` know resonance alone."""
    if request.param == "naive":
        monkeypatch.setattr("resonance_theory.kernels.dispatch.usable", lambda _: False)
    elif request.param in ("numba", "fused router"):
        pytest.importorskip("numba")
    return WAYS[request.param]


def rules_of(route):
    return ("resonance",) if route is by_kernel else ("resonance", "token_choice")


def kept(assignment):
    """(expert, token), each once."""
    pairs = list(zip(np.asarray(assignment.expert).tolist(), np.asarray(assignment.token).tolist()))
    assert len(pairs) == len(set(pairs))
    return set(pairs)


def normal(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=torch.float32)


def layer(bias=0.0, **options):
    torch.manual_seed(1)
    experts = rt.nn.FeedForwardExperts(DIM, 8, EXPERTS)
    with torch.no_grad():
        experts.up_bias += bias
        experts.down_bias += bias
    return rt.nn.ResonanceMoE(rt.nn.ResonanceRouter(DIM, EXPERTS, **options), experts)


def test_zero_masks_outrank_negative_affinities(route):
    """Scores of experts not chosen set to 0 before the top-C tokens are taken: candidates of negative affinity lose."""
    x = -1 + 0.1 * normal(40, DIM)
    score = torch.tensor(rt.affinity(x.numpy(), EXPERTS))
    assert (score < 0).all()
    own = torch.nn.functional.one_hot(score.argmax(-1), EXPERTS).bool()
    masked = torch.where(own, score, 0.0).topk(10, dim=0).indices
    faulty = {(e, t) for e in range(EXPERTS) for t in masked[:, e].tolist() if own[t, e]}
    got = kept(route("resonance", x, 10, 1))
    assert got == {
        (e, t)
        for e in range(EXPERTS)
        for t in sorted(own[:, e].nonzero().flatten().tolist(), key=lambda t: (-score[t, e], t))[:10]
    }
    assert faulty < got


def test_ties_are_not_arbitrary(route):
    """Equal scores: the lower expert, then the earlier token, as sorts that are not stable do not promise."""
    for rule in rules_of(route):
        for x in (torch.ones(5000, DIM), torch.zeros(5000, DIM)):
            assert kept(route(rule, x, 700, 2)) == {(e, t) for e in (0, 1) for t in range(700)}


def test_no_draw_and_no_order_of_threads_decides(route):
    x = torch.tensor(np.random.default_rng(3).integers(-1, 2, (3000, DIM)), dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    for rule in rules_of(route):
        try:
            for threads in (1, 2, 2):
                torch.set_num_threads(threads)
                state = torch.manual_seed(threads).get_state()
                results.append(kept(route(rule, x, 400, 2)))
                assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn
        finally:
            torch.set_num_threads(before)
        assert all(result == results[0] for result in results)
        results.clear()


@pytest.mark.parametrize("top", [1, 2])
def test_dropping_by_position_keeps_the_first_tokens(top):
    """Places counted from the end, or over all samples: then the first tokens of a sample can lose theirs."""
    x = normal(3, 40, DIM)
    score = rt.affinity(x.numpy(), EXPERTS)
    best = np.argsort(-score, axis=-1, kind="stable")[..., :top]
    for options in ({}, {"normalize": True, "statistics": False, "fused": True}):
        router = rt.nn.ResonanceRouter(DIM, EXPERTS, rule="token_choice", top=top, capacity=6, **options)
        routing = router(x)
        for b in range(3):
            for e in range(EXPERTS):
                first = [t for t in range(40) if e in best[b, t]][:6]
                assert routing.token[b, e][routing.filled[b, e]].tolist() == first
        assert (routing.copies[:, 0] == top).all()


def test_capacity_is_kept_and_never_above_the_tokens(route):
    """A capacity ignored where loads are unequal. Rules refuse one above the tokens; of routers it is the most."""
    x = 1 + 0.3 * normal(50, DIM)
    x[:, : DIM // EXPERTS] += 1  # most tokens want expert 0
    for rule in rules_of(route):
        for capacity in (1, 7, 50):
            result = route(rule, x, capacity, 1)
            load, count = np.asarray(result.load), np.bincount(np.asarray(result.expert), minlength=EXPERTS)
            assert load.sum() == 50
            assert load[0] > 25
            assert count.tolist() == np.minimum(load, capacity).tolist()
        above = (51,) if route is by_rule or route is by_kernel else ()
        for capacity in (0, *above, -1):
            with pytest.raises(ValueError, match=f"capacity = {capacity} must be"):
                route(rule, x, capacity, 1)
    wide = rt.nn.ResonanceRouter(DIM, EXPERTS, capacity_factor=1e9)(x)  # a factor means all of the tokens at most
    assert wide.token.shape[-1] == 50


@pytest.mark.parametrize("options", [{}, {"normalize": True, "statistics": False, "fused": True}])
@pytest.mark.parametrize("rule", ["resonance", "token_choice"])
def test_padding_takes_no_slot_and_counts_in_no_loss(options, rule):
    x = normal(2, 30, DIM)
    mask = torch.arange(60).reshape(2, 30) % 3 == 0  # in front of real tokens too
    x[mask] = 1e6  # which would win every comparison of logits
    gates = {} if options else {"gates": "linear"}
    torch.manual_seed(2)
    router = rt.nn.ResonanceRouter(DIM, EXPERTS, rule=rule, capacity_factor=0.9, **options, **gates)
    routing = router(x, mask)
    alone = router(x[~mask].reshape(2, 20, DIM))
    assert not (mask.gather(1, routing.token.flatten(1)).reshape(routing.filled.shape) & routing.filled).any()
    assert torch.equal(routing.load, alone.load)
    assert torch.equal(routing.kept, alone.kept)
    if not options:
        torch.testing.assert_close(routing.load_balance(), alone.load_balance())
        local = torch.tensor([True, False, True, False])
        torch.testing.assert_close(routing.locality(local, epsilon=0.1), alone.locality(local, epsilon=0.1))
        assert router.statistics.summary()["tokens"] == 80


@pytest.mark.parametrize("rule", ["resonance", "token_choice", "expert_choice"])
def test_dropped_tokens_get_no_bias_of_an_expert(rule):
    """Experts applied to zeros return their bias, which belongs to nobody."""
    x = normal(2, 40, DIM)
    mask = torch.arange(40).expand(2, 40) >= 35
    y, routing = layer(bias=1e4, rule=rule, capacity_factor=0.4)(x, mask, return_routing=True)
    assert routing.dropped.any()
    assert not y[routing.dropped].any()
    assert not y[mask].any()
    assert (y[routing.copies > 0].abs().amax(-1) > 1).all()


def test_nan_gives_no_expert_twice(route):
    """A NaN compares false with everything, so that a top-2 can name one expert twice; here it is an error."""
    for value in (math.nan, math.inf, -math.inf):
        x = normal(30, DIM)
        x[11, 5] = value
        for rule in rules_of(route):
            with pytest.raises(ValueError, match="NaN or infinite"):
                route(rule, x, 10, 2)
    for x in (torch.zeros(30, DIM), torch.ones(30, DIM), torch.full((30, DIM), 1e38), normal(30, DIM) * 1e-42):
        for rule in rules_of(route):
            result = route(rule, x, 30, 3)
            assert len(kept(result)) == 90  # three experts for each token
        dropping = rt.nn.ResonanceRouter(DIM, EXPERTS, top=3, nonfinite="drop")
        x = x.clone()
        x[4, 0] = math.nan
        assert (dropping(x).expert.sort(-1).values.diff(dim=-1) > 0).all()


def test_auxiliary_losses_are_not_constant_and_do_not_reward_collapse():
    """Loads without gradient, a mean over softmaxed one-hots, or a sign: each makes the loss useless or harmful."""
    balanced = torch.eye(EXPERTS, dtype=torch.float64).repeat(8, 1) * 0.6 + 0.1
    collapsed = balanced[:1].repeat(32, 1)
    even, all_in_one = (float(losses.load_balance(p, p.argmax(-1))) for p in (balanced, collapsed))
    assert all_in_one > 2 * even
    logits = collapsed.log().requires_grad_()
    probability = torch.softmax(logits, -1)
    losses.load_balance(probability, probability.argmax(-1)).backward()
    assert (logits.grad[:, 0] > 0).all()  # descent takes tokens away from the expert that has all of them
    assert (logits.grad[:, 1:] < 0).all()

    m = layer(gates="linear")
    with torch.no_grad():
        m.router.gate.weight[0] += 0.1
    x = 1 + 0.3 * normal(1, 200, DIM)
    start = m.router(x).load.max()
    assert start > 195
    optimizer = torch.optim.SGD(m.router.parameters(), lr=0.02)
    for _ in range(50):
        optimizer.zero_grad()
        m.router(x).load_balance(alpha=1.0).backward()
        optimizer.step()
    assert m.router(x).load.max() < 80

    local = torch.tensor([True, True, False, False])
    target = losses.local_distribution(local, epsilon=0.1)
    one = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert float(losses.locality(one, target)) > 0.5  # one local expert alone is not what the loss asks for
    assert float(losses.locality(target, target)) == 0


def test_drops_loads_and_dead_experts_can_be_seen():
    router = rt.nn.ResonanceRouter(DIM, EXPERTS, capacity=5)
    x = torch.zeros(1, 20, DIM)
    x[..., 0] = 1  # all to expert 0
    router(x)
    seen = router.statistics.summary()
    assert seen["load"] == [1, 0, 0, 0]
    assert seen["drop_rate"] == seen["pair_drop_rate"] == 0.75
    assert seen["dead_experts"] == 3
    assert seen["entropy"] == 0
    x[0, 10:, 0], x[0, 10:, -1] = 0, 1  # ten each to the first and the last
    router.statistics.reset()
    router(x)
    seen = router.statistics.summary()
    assert seen["load"] == seen["load_kept"] == [0.5, 0, 0, 0.5]
    assert seen["drop_rate"] == 0.5
    assert seen["dead_experts"] == 2
