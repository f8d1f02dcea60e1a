"""MoE++'s laws of unlike experts against counting, and the layer against a loop over tokens."""

import numpy as np
import pytest

from resonance_theory import systems

torch = pytest.importorskip("torch")


def by_hand(layer, x, before=None):
    """Token by token, in double precision: the two best experts, each expert's best candidates, eq. 1, 3-6."""
    x = x.double()
    logits = x @ layer.gate.own.weight.double().T
    if before is not None:
        logits = logits + before.double() @ layer.gate.residual.weight.double().T
    p = logits.softmax(-1)
    chosen = [sorted(range(layer.experts), key=lambda e, t=t: -p[t, e])[: layer.top] for t in range(len(x))]
    y = torch.zeros_like(x)
    kept = 0
    for e in range(layer.experts):
        line = sorted((t for t in range(len(x)) if e in chosen[t]), key=lambda t, e=e: -p[t, e])
        for t in line[: layer.capacity(len(x))[int(e >= layer.ffn)]]:
            kept += 1
            y[t] += p[t, e] * expert_by_hand(layer, e, x[t])
    return y, kept


def expert_by_hand(layer, e, x):
    if e < layer.ffn:
        f = layer.feed_forward
        inner = x @ f.up[e].double() + f.up_bias[e, 0].double()
        return torch.nn.functional.gelu(inner) @ f.down[e].double() + f.down_bias[e, 0].double()
    e -= layer.ffn
    if e < layer.zero:
        return torch.zeros_like(x)
    if e < layer.zero + layer.copy:
        return x
    constant = layer.constants[e - layer.zero - layer.copy]
    mix = (constant.mix.weight.double() @ x).softmax(0)
    return mix[0] * x + mix[1] * constant.vector.double()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("printed", [True, False])
@pytest.mark.parametrize("others", [(1, 1, 2), (0, 2, 0), (3, 0, 0), (0, 0, 0)])
def test_the_layer_is_the_loop(first, printed, others):
    torch.manual_seed(1)
    zero, copy, constant = others
    options = {"zero": zero, "copy": copy, "constant": constant, "printed": printed, "first": first}
    layer = systems.ZeroComputationMoE(8, 12, 3, tau=0.5, **options)
    for constant in layer.constants:
        torch.nn.init.normal_(constant.vector)
    x, before = torch.randn(40, 8), None if first else torch.randn(40, layer.experts)
    y, routing = layer(x, before)
    wanted, kept = by_hand(layer, x, before)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=1e-5)
    assert int(routing.kept.sum()) == kept
    assert routing.drop_rate == pytest.approx(1 - kept / 80)
    assert routing.load.sum() == pytest.approx(2)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_the_loss_by_hand():
    torch.manual_seed(0)
    layer = systems.ZeroComputationMoE(8, 12, 3, tau=0.25)
    _, routing = layer(torch.randn(50, 8))
    share = np.bincount(routing.expert.flatten().numpy(), minlength=7) / 50
    eta = np.array([1, 1, 1] + [0.25] * 4)
    wanted = (eta * share * routing.probability.mean(0).detach().numpy()).sum()
    assert float(routing.load_balance(0.25)) == pytest.approx(wanted, rel=1e-5)
    assert float(routing.ffn_share) == pytest.approx(share[:3].sum() / 2)


def test_at_the_balanced_loads_the_loss_is_least_and_capacities_follow():
    eta = np.array([1.0] * 8 + [0.75] * 4)
    load = systems.balanced_shares(eta, top=2)
    slots = systems.unlike_capacities(120_000, 8, 4)
    np.testing.assert_allclose([slots.ffn, slots.zero], 120_000 * 1.1 * load[[0, -1]], atol=1)
    assert float(systems.ffn_share(0.75, 8, 4)) == pytest.approx(load[:8].sum() / 2)


def test_printed_capacities_turn_away_what_the_claim_says():
    """No loads at all can keep more than γT of KT choices."""
    rng = np.random.default_rng(0)
    slots = systems.unlike_capacities(1000, 8, 4, top=1)
    capacity = np.array([slots.ffn] * 8 + [slots.zero] * 4)
    for _ in range(20):
        load = np.minimum(2 * rng.dirichlet(np.full(12, 3.0)), 1.0)
        drop = systems.unlike_drop_rate(1000, load, capacity)
        assert drop >= 1 - capacity.sum() / (1000 * load.sum())
        assert drop > 0.4


def test_zero_tokens_and_one():
    layer = systems.ZeroComputationMoE(8, 12, 3)
    for tokens in (0, 1):
        y, routing = layer(torch.randn(tokens, 8))
        assert y.shape == (tokens, 8)
        assert routing.kept.all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: systems.balanced_shares([1, 0]), "weights"),
        (lambda: systems.balanced_shares([1.0, 0.01], top=2), "weights give an expert"),
        (lambda: systems.balanced_shares([[1.0]]), "weights has shape"),
        (lambda: systems.ffn_share(0, 8, 4), "tau = 0"),
        (lambda: systems.ffn_share(1.0, 0, 4), "ffn = 0"),
        (lambda: systems.unlike_capacities(0, 8, 4), "tokens = 0"),
        (lambda: systems.unlike_capacities(8, 8, 4, top=13), "top = 13"),
        (lambda: systems.unlike_capacities(8, 8, 4, capacity_factor=float("nan")), "capacity_factor"),
        (lambda: systems.unlike_drop_rate(8, [0.5, 0.5], [1]), "load and capacity have the shapes"),
        (lambda: systems.unlike_drop_rate(8, [0.0], [1]), "load is 0 throughout"),
        (lambda: systems.unlike_drop_rate(8, [1.5], [1]), "load"),
        (lambda: systems.unlike_drop_rate(8, [0.5], [0]), "capacity"),
        (lambda: systems.layer_speedup(0.5, 1.5), "fixed"),
        (lambda: systems.ZeroComputationMoE(8, 12, 0), "ffn = 0"),
        (lambda: systems.ZeroComputationMoE(8, 12, 2, constant=-1), "constant = -1"),
        (lambda: systems.ZeroComputationMoE(8, 12, 2)(torch.zeros(2, 3, 8)), "x has shape"),
        (lambda: systems.ZeroComputationMoE(8, 12, 2, first=False)(torch.zeros(2, 8)), "before must be given"),
        (lambda: systems.GatingResidual(8, 2)(torch.zeros(2, 8), torch.zeros(2, 2)), "before must be left out"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
