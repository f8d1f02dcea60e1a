"""Rank-one experts: the sum over experts, the start, the prior, and a model around them."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from resonance_theory.systems.rank_one_experts import RankOneExperts, add_rank_one_experts, cluster_prior, priors  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def filled(d=5, e=4, r1=2, r2=3, **kinds):
    layer = RankOneExperts(nn.Linear(d, e), r1, r2, **kinds).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.01 if parameter.numel() == 1 else 1.0)
    return layer


def test_the_update_is_the_sum_over_experts():
    layer, x = filled(), torch.randn(7, 5, dtype=torch.float64)
    layer.prior = torch.tensor([0.1, 0.2, 0.05, 0.05, 0.5, 0.1]).double()
    weight = layer.weights(x)
    omega = torch.sigmoid(100 * layer.balance)
    told = 6 * (omega * torch.softmax(x @ layer.router.weight.T, -1) + (1 - omega) * layer.prior)
    assert torch.allclose(weight.flatten(1), told)
    y = layer.base(x)
    for i in range(2):
        for j in range(3):
            expert = torch.outer(layer.b[j], layer.a[i])
            y = y + torch.sigmoid(100 * layer.gate) * weight[:, i, j, None] * (x @ expert.T)
    assert torch.allclose(layer(x), y)


def test_without_a_router_and_with_a_constant_prior_it_is_lora():
    layer, x = filled(router=False), torch.randn(3, 6, 5, dtype=torch.float64)
    for prior in (None, torch.full((6,), 1 / 6).double()):
        layer.prior = prior
        update = torch.sigmoid(100 * layer.gate) * torch.ones(6, dtype=torch.float64).reshape(2, 3)
        matrix = layer.base.weight + layer.b.T @ update.T @ layer.a
        assert torch.allclose(layer(x), x @ matrix.T + layer.base.bias)
        assert torch.linalg.matrix_rank(layer.b.T @ update.T @ layer.a) == 1  # equal weights: one expert


def test_a_sample_s_prior_is_that_of_all_its_tokens():
    layer, x = filled(), torch.randn(3, 3, 5, dtype=torch.float64)  # as many samples as tokens, where mistakes hide
    prior = torch.softmax(torch.randn(3, 6), -1).double()
    layer.prior = prior
    told = layer(x)
    for i in range(3):
        layer.prior = prior[i]
        assert torch.allclose(told[i], layer(x[i]))
    layer.prior = prior[:2]
    with pytest.raises(ValueError, match=r"prior has shape \(2, 6\) but must fit tokens of shape \(3, 3, 5\)"):
        layer(x)


def test_a_model_starts_as_it_was_and_trains_only_the_experts():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(16, 5)
    before = model(x)
    frozen = {name: p.clone() for name, p in model.named_parameters()}
    assert add_rank_one_experts(model, ["0", "2"], 2, 4) is model
    prior = torch.softmax(torch.randn(16, 8), -1)
    assert len(list(priors(model, prior))) == 2
    assert torch.equal(model(x), before)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    for name, value in frozen.items():
        place, _, kind = name.rpartition(".")
        assert torch.equal(getattr(model.get_submodule(place).base, kind), value)


def test_a_prior_of_clusters_sums_to_one():
    prior = cluster_prior(torch.randn(3, 4, 5), torch.randn(6, 5))
    assert prior.shape == (3, 4, 6)
    assert torch.allclose(prior.sum(-1), torch.ones(3, 4))


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        (torch.full((6,), 0.25), "prior sums to 1.5, its least weight is 0.25, but weights must"),
        (torch.tensor([1.5, -0.5, 0, 0, 0, 0]), "its least weight is -0.5"),
        (torch.full((5,), 0.2), r"prior has shape \(5,\) but must be a tensor \(..., 6\)"),
        ([1 / 6] * 6, "prior has shape list"),
        (torch.full((6,), float("nan")), "prior sums to nan"),
    ],
)
def test_a_wrong_prior_is_named(prior, said):
    layer = filled()
    with pytest.raises(ValueError, match=said):
        layer.prior = prior
    assert layer.prior is None


def test_wrong_arguments_are_named_and_the_model_is_left_alone():
    model = nn.Sequential(nn.Linear(5, 8))
    with pytest.raises(ValueError, match="names holds 'q_proj' but must hold last parts of linear layers: 0"):
        add_rank_one_experts(model, ["0", "q_proj"])
    assert type(model[0]) is nn.Linear
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(TypeError, match="base is a ReLU"):
        RankOneExperts(nn.ReLU())
    with pytest.raises(ValueError, match="inputs = 0"):
        RankOneExperts(nn.Linear(2, 2), 0)
    with pytest.raises(ValueError, match="x has shape"):
        cluster_prior(torch.ones(3), torch.ones(2, 4))
