"""Resonance is Megatron-Core's drop policy `probs`: the same kept sets on the same softmax probabilities (extra `peers`)."""

import math
import warnings

import numpy as np
import pytest

import resonance_theory as rt

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of the accelerators that are absent
    moe_utils = pytest.importorskip(
        "megatron.core.transformer.moe.moe_utils", reason="megatron-core is not installed (extra 'peers')"
    )


def settings(count):
    rng = np.random.default_rng(20)
    for seed in range(count):
        tokens, experts = int(rng.integers(8, 300)), int(rng.integers(2, 17))
        top = int(rng.integers(1, min(3, experts) + 1))
        yield seed, tokens, experts, top, float(rng.uniform(0.3, 1.4))


def megatron(logits, top, factor, policy):
    probability, chosen = moe_utils.topk_routing_with_score_function(logits, top, use_pre_softmax=True)
    _, kept = moe_utils.apply_router_token_dropping(probability, chosen, top, factor, drop_policy=policy)
    return chosen, kept


def ours(rule, logits, top, factor):
    tokens, experts = logits.shape
    capacity = math.ceil(tokens * top / experts * factor)
    routed = rule.route(torch.softmax(logits, -1), min(capacity, tokens), top=top)
    kept = torch.zeros(logits.shape, dtype=torch.bool)
    kept[routed.token, routed.expert] = True
    return kept


def test_probs_is_resonance():
    for seed, tokens, experts, top, factor in settings(200):
        logits = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed))
        _, kept = megatron(logits, top, factor, "probs")
        assert torch.equal(kept, ours(rt.resonance, logits, top, factor)), (tokens, experts, top, factor)


def test_position_keeps_as_many_tokens_but_not_the_first():
    """`torch.topk` over an integer mask breaks ties in no order, so that policy does not drop by position."""
    differ = 0
    for seed, tokens, experts, top, factor in settings(60):
        logits = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed))
        chosen, kept = megatron(logits, top, factor, "position")
        first = ours(rt.token_choice, logits, top, factor)
        assert torch.equal(kept.sum(0), first.sum(0))  # the counts that the laws of drops speak of
        assert not (kept & ~chosen).any()
        differ += not torch.equal(kept, first)
    assert differ > 0


def test_policies_of_a_log_keep_what_megatron_keeps():
    """`rt.logs.kept` on the choices and weights that its router logs: the same sets under probs, the same counts at random."""
    for seed, tokens, experts, top, factor in settings(60):
        logits = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed))
        probability = torch.softmax(logits, -1)
        weight, chosen = torch.topk(probability, top)
        log = rt.logs.RoutingLog(experts=experts, choices=chosen[:, None].numpy(), weights=weight[:, None].numpy())
        for policy in ("probs", "position"):
            keep = torch.from_numpy(rt.logs.kept(log, policy, factor, tokens)[:, 0])
            ours_kept = torch.zeros(tokens, experts, dtype=torch.bool).scatter(1, chosen, keep)
            _, kept = megatron(logits, top, factor, policy)
            if policy == "probs":
                assert torch.equal(kept, ours_kept), (tokens, experts, top, factor)
            else:
                assert torch.equal(kept.sum(0), ours_kept.sum(0))
