"""Expert choice in groups: what is chosen, its laws, what it refuses; the auxiliary router."""

import numpy as np
import pytest

from resonance_theory.systems.modality_groups import (
    choose_in_groups,
    experts_per_token,
    net_speedup,
    untouched_range,
    untouched_share,
)


@pytest.mark.parametrize(("factor", "each"), [(1.0, (3, 6)), (2.0, (6, 12)), (1 / 3, (1, 2))])
def test_every_expert_takes_the_best_of_its_group_and_no_other(factor, each):
    rng = np.random.default_rng(0)
    tokens, experts = rng.permutation(np.repeat([0, 1], 12)), np.array([0, 0, 1, 0, 1, 0])
    scores = rng.normal(size=(24, 6))
    taken = choose_in_groups(scores, tokens, experts, factor)
    for e, group in enumerate(experts):
        mine = np.flatnonzero(tokens == group)
        best = mine[np.argsort(-scores[mine, e])][: each[group]]
        assert set(np.flatnonzero(taken[:, e])) == set(best)


def test_scores_of_the_other_group_are_not_read():
    scores = np.random.default_rng(1).normal(size=(8, 4))
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1])
    taken = choose_in_groups(scores, *groups)
    scores[:4, 2:] = 1e9
    scores[4:, :2] = -1e9
    assert (choose_in_groups(scores, *groups) == taken).all()
    assert not choose_in_groups(scores[:4], groups[0][:4], groups[1])[:, 2:].any()  # no token of the second group


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"token_group": [0, 0, 0, 1]},
            "group 0 has 3 tokens for 2 experts at capacity_factor = 1: 1.5 tokens an expert",
        ),
        ({"token_group": [0, 0, 2, 2]}, "token_group holds the group 2 but expert_group gives it no expert"),
        ({"token_group": [0, 0, 0]}, r"token_group has shape \(3,\) but must have shape \(4,\)"),
        ({"expert_group": [0, 0, -1]}, r"expert_group\[2\] = -1"),
        ({"capacity_factor": 4.0}, "group 0 has 2 tokens for 2 experts at capacity_factor = 4"),
        ({"capacity_factor": 0.0}, "capacity_factor = 0"),
        ({"scores": np.zeros(4)}, r"scores has shape \(4,\)"),
        ({"scores": np.full((4, 3), np.nan)}, r"scores\[0, 0\] = nan"),
    ],
)
def test_wrong_groups_are_named(change, said):
    right = {"scores": np.zeros((4, 3)), "token_group": [0, 0, 1, 1], "expert_group": [0, 0, 1]}
    with pytest.raises(ValueError, match=said):
        choose_in_groups(**(right | change))


def test_laws_agree_with_each_other():
    for experts in (1, 3, 8, 200):
        law = experts_per_token(experts)
        assert law.sum() == pytest.approx(1, abs=1e-12)
        assert law @ np.arange(experts + 1) == pytest.approx(1, abs=1e-11)  # one expert a token on average
        assert law[0] == pytest.approx(float(untouched_share(experts)), rel=1e-12, abs=1e-15)
        low, high = untouched_range(experts)
        assert low <= untouched_share(experts) <= high
    assert untouched_share([2, 4], [[0.5], [1.0]]).tolist() == [[0.25, 0.0625], [0.0, 0.0]]
    assert net_speedup(2.0, [5, 10], 10).tolist() == [1.0, 2.0]
    for call in (lambda: untouched_share(0), lambda: untouched_range(2, 1.5), lambda: net_speedup(1, 0, 1)):
        with pytest.raises(ValueError, match=r"experts = 0|share = 1\.5|throughput = 0"):
            call()


def test_the_auxiliary_router_learns_a_choice_and_sends_no_gradient_to_tokens():
    torch = pytest.importorskip("torch")
    from resonance_theory.systems.causal_router import CausalRouter

    with torch.random.fork_rng():
        torch.manual_seed(0)
        router, x = CausalRouter(6, 3), torch.randn(400, 6, requires_grad=True)
        taken = x[:, :3] > 0.5
        optimizer = torch.optim.Adam(router.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            router.loss(x, taken).backward()
            optimizer.step()
    assert x.grad is None
    wrong = float((router.select(x) != taken).float().mean())
    assert wrong < 0.5 * float(taken.float().mean())  # a constant answer errs that often
    with pytest.raises(ValueError, match=r"taken has shape \(400,\)"):
        router.loss(x, taken[:, 0])
    with pytest.raises(ValueError, match="threshold = 1"):
        CausalRouter(6, 3, threshold=1.0)
