"""Drop policies on a router's own choices: kept sets by brute force, and the law on tokens that it was not fitted to."""

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory.audit.policy_law import expected
from resonance_theory.cli import main
from resonance_theory.logs import RoutingLog, kept, policies


def softmax_log(tokens=512, layers=2, experts=8, top=2, seed=0, skew=0.6, documents=None):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((tokens, layers, experts)) + skew * np.linspace(-1, 1, experts)
    if documents is not None:
        logits += 0.7 * np.repeat(rng.standard_normal((documents, layers, experts)), tokens // documents, axis=0)
    scores = np.exp(logits)
    scores /= scores.sum(-1, keepdims=True)
    chosen = np.argsort(-scores, axis=-1)[..., :top]
    name = None if documents is None else np.repeat(np.arange(documents), tokens // documents)
    log = RoutingLog(experts=experts, choices=chosen, weights=np.take_along_axis(scores, chosen, -1), documents=name)
    return log, scores


def brute_force(log, policy, capacity, block):
    result = np.zeros(log.choices.shape, bool)
    for start in range(0, len(log.choices) // block * block, block):
        for layer in range(log.choices.shape[1]):
            for expert in range(log.experts):
                mine = [(t, k) for t in range(start, start + block) for k in range(log.top)
                        if log.choices[t, layer, k] == expert]  # fmt: skip
                if policy == "probs":
                    mine.sort(key=lambda at: (-log.weights[at[0], layer, at[1]], at[0]))
                for t, k in mine[:capacity]:
                    result[t, layer, k] = True
    return result


@pytest.mark.parametrize("policy", ["probs", "position"])
@pytest.mark.parametrize(("factor", "block"), [(0.5, 64), (1.0, 128), (1.3, 100), (9.0, 64)])
def test_kept_sets_are_those_of_brute_force(policy, factor, block):
    log, _ = softmax_log()
    capacity = min(int(np.ceil(factor * 2 * block / 8)), block)
    found = kept(log, policy, factor, block)
    want = brute_force(log, policy, capacity, block)[: 512 // block * block]
    assert np.array_equal(found, want)
    assert found.all() == (factor == 9.0)


@pytest.mark.parametrize("rule", ["resonance", "token_choice"])
def test_policies_are_the_package_s_rules(rule):
    log, scores = softmax_log(tokens=128, layers=1)
    routed = getattr(rt, rule).route(scores[:, 0], 24, top=2)
    pairs = set(zip(routed.token.tolist(), routed.expert.tolist()))
    keep = kept(log, {"resonance": "probs", "token_choice": "position"}[rule], 0.75, 128)
    assert pairs == {(t, int(log.choices[t, 0, k])) for t, _, k in zip(*np.nonzero(keep))}


def test_random_keeps_as_many_and_other_ones():
    log, _ = softmax_log()
    masks = [kept(log, "random", 0.8, 128, seed=s) for s in (0, 0, 1)]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    first = kept(log, "position", 0.8, 128)
    for layer in range(2):  # the same load of every expert
        for mask in masks:
            a, b = (np.bincount(log.choices[:, layer][m[:, layer]], minlength=8) for m in (mask, first))
            assert np.array_equal(a, b)


def test_what_is_kept_is_counted_right():
    log, _ = softmax_log(layers=3)
    for found in policies(log, 0.7, 128).kept[:3]:
        keep = kept(log, found.policy, 0.7, 128)
        lost = [[not any(keep[t, layer]) for layer in range(3)] for t in range(512)]
        hit = [row for row in lost if any(row)]
        assert found.weight == pytest.approx(log.weights[keep].sum() / log.weights.sum(), rel=1e-12)
        assert found.choices == keep.mean()
        assert found.lost == pytest.approx(np.mean(lost), rel=1e-12)
        assert found.lost_anywhere == len(hit) / 512
        assert found.lost_layers == pytest.approx(np.mean([sum(row) for row in hit]), rel=1e-12)
        assert found.depth == pytest.approx(np.mean([row.index(True) for row in hit]), rel=1e-12)
        assert found.whole == np.mean([keep[t].all() for t in range(512)])


def test_bounds_of_expert_choice_hold_what_all_scores_say():
    """With every score known: the weight of chosen pairs that expert choice keeps lies between the bounds."""
    for seed in range(5):
        log, scores = softmax_log(tokens=256, layers=2, seed=seed)
        for factor in (0.5, 1.0, 1.5):
            found = policies(log, factor, 256).kept[-1]
            assert found.policy == "expert_choice"
            capacity = int(np.ceil(factor * 64))
            weight = 0.0
            for layer in range(2):
                best = np.argsort(-scores[:, layer], axis=0)[:capacity]  # (slots, experts)
                taken = np.zeros((256, 8), bool)
                taken[best, np.arange(8)] = True
                chosen = taken[np.arange(256)[:, None], log.choices[:, layer]]
                weight += log.weights[:, layer][chosen].sum()
            share = weight / log.weights.sum()
            assert found.low <= share + 1e-12
            assert share <= found.weight + 1e-12
            assert found.weight < 1 or factor > 1


def test_normalised_weights_say_nothing_of_expert_choice():
    log, _ = softmax_log()
    even = RoutingLog(experts=8, choices=log.choices, weights=log.weights / log.weights.sum(-1, keepdims=True))
    assert [k.policy for k in policies(even, 1.0, 128).kept] == ["probs", "position", "random"]
    bare = RoutingLog(experts=8, choices=log.choices)
    assert [k.policy for k in policies(bare, 1.0, 128).kept] == ["position", "random"]
    with pytest.raises(ValueError, match="needs the gate weights"):
        kept(bare, "probs", 1.0, 128)


def test_the_law_foretells_new_independent_tokens():
    """Fitted to one log and judged on another: within half a point, where uniform loads are points away."""
    log, _ = softmax_log(tokens=8192, layers=2, seed=1)
    other, _ = softmax_log(tokens=8192, layers=2, seed=2)
    for found in policies(other, 1.0, 256).kept[:3]:
        law = expected(log, found.policy, 1.0, 256)
        for name in ("weight", "choices", "lost", "lost_anywhere", "whole"):
            assert getattr(law, name) == pytest.approx(getattr(found, name), abs=0.012), (found.policy, name)
    uniform, _ = softmax_log(tokens=8192, layers=2, seed=1, skew=0.0)
    assert abs(expected(uniform, "probs", 1.0, 256).choices - expected(log, "probs", 1.0, 256).choices) > 0.05
    probs, position = (expected(log, name, 1.0, 256) for name in ("probs", "position"))
    assert probs.weight > position.weight + 0.02
    assert position.lost_anywhere > 3 * probs.lost_anywhere


def test_judged_on_documents_that_were_not_fitted():
    log, _ = softmax_log(tokens=16384, documents=256)
    table = rt.audit.judge_policies(log, factors=[1.0], block=256)
    assert table.documents
    for p in table.policies[:3]:
        assert p.law.weight == pytest.approx(p.measured.weight, abs=0.03)
    assert [p.law for p in table.policies[3:]] == [None]
    assert "expert choice" in table.table()
    assert len(table.rows()) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--factors", "0"], "factors[0] = 0.0"),
        (["--block", "0"], "block = 0"),
        (["--block", "999999"], "block = 999999 must be at most"),
        (["--block", "5000"], "blocks of 5000 tokens but must have 4 or more"),
    ],
)
def test_bad_questions(capsys, options, words):
    assert main(["policies", "example-log", *options]) == 2
    out = capsys.readouterr()
    assert words in out.err
    assert out.out == ""


def test_counts_have_no_policy(tmp_path, capsys):
    np.savez(tmp_path / "counts.npz", counts=np.full((8, 1, 4), 64))
    assert main(["policies", str(tmp_path / "counts.npz")]) == 2
    assert "must hold each token's choices" in capsys.readouterr().err
