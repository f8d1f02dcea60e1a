"""Losses against their definitions in plain Python, and their gradients against autodiff."""

import math

import numpy as np
import pytest
import torch

from resonance_theory import losses

RNG = np.random.default_rng(3)
LOGITS = RNG.standard_normal((40, 6))
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
TOP = np.argsort(-P, axis=1)[:, :2]


@pytest.mark.parametrize("expert", [TOP[:, 0], TOP])
@pytest.mark.parametrize("mask", [None, RNG.random(40) < 0.7])
def test_load_balance_by_its_definition(expert, mask):
    keep = [t for t in range(40) if mask is None or mask[t]]
    chosen = [int(e) for t in keep for e in np.atleast_1d(expert[t])]
    f = [chosen.count(i) / len(chosen) for i in range(6)]
    mean = [sum(P[t, i] for t in keep) / len(keep) for i in range(6)]
    expected = 0.01 * 6 * sum(a * b for a, b in zip(f, mean))
    assert losses.load_balance(P, expert, mask=mask) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("mask", [None, RNG.random(40) < 0.7])
def test_load_balance_gradient_is_autodiff(mask):
    logits = torch.tensor(LOGITS, requires_grad=True)
    m = None if mask is None else torch.tensor(mask)
    losses.load_balance(torch.softmax(logits, dim=1), torch.tensor(TOP), alpha=0.3, mask=m).backward()
    ours = losses.load_balance_gradient(P, TOP, alpha=0.3, mask=mask)
    assert np.allclose(ours, logits.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_load_balance_stationary_points():
    balanced = np.arange(40) % 5  # uniform shares over five experts
    five = P[:, :5] / P[:, :5].sum(axis=1, keepdims=True)
    assert np.abs(losses.load_balance_gradient(five, balanced)).max() < 1e-17
    assert losses.load_balance(five, balanced) == pytest.approx(0.01)
    collapsed = np.zeros((40, 6))
    collapsed[:, 2] = 1.0
    assert np.abs(losses.load_balance_gradient(collapsed, np.full(40, 2))).max() == 0
    assert losses.load_balance(collapsed, np.full(40, 2)) == pytest.approx(0.06)  # yet six times the balanced value
    assert np.abs(losses.load_balance_gradient(P, np.full(40, 2))).max() > 1e-5


def test_locality():
    target = losses.local_distribution(np.array([True, True, False, False, False, False]), epsilon=0.1)
    assert target == pytest.approx([0.45, 0.45, 0.025, 0.025, 0.025, 0.025])
    current = P[0]
    expected = sum(a * math.log(a / b) for a, b in zip(current, target))
    assert losses.locality(current, target, mu=2.0) == pytest.approx(2 * expected, rel=1e-13)
    assert losses.locality(target, target) == 0
    on_node = np.array([0.5, 0.5, 0, 0, 0, 0])
    assert losses.locality(on_node, target) == pytest.approx(-math.log(0.9))  # the price of ε, not 0
    assert losses.local_distribution(np.ones(4, dtype=bool), epsilon=0.1) == pytest.approx([0.25] * 4)


def test_locality_gradient_is_autodiff():
    target = losses.local_distribution(np.array([True, True, False, False, False, False]), epsilon=0.05)
    logits = torch.tensor(LOGITS[0], requires_grad=True)
    losses.locality(torch.softmax(logits, dim=0), torch.tensor(target), mu=0.7).backward()
    assert np.allclose(losses.locality_gradient(P[0], target, mu=0.7), logits.grad.numpy(), rtol=1e-11, atol=1e-15)
    assert np.abs(losses.locality_gradient(target, target)).max() < 1e-16


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: losses.load_balance(P[0], TOP), ValueError, "probability has shape"),
        (lambda: losses.load_balance(P.astype(int), TOP), TypeError, "probability has dtype int64"),
        (lambda: losses.load_balance(P, TOP[:5]), ValueError, "expert has shape"),
        (lambda: losses.load_balance(P, TOP + 5), ValueError, "outside 0..5"),
        (lambda: losses.load_balance(P, TOP, mask=np.zeros(40, dtype=bool)), ValueError, "excludes every token"),
        (lambda: losses.load_balance(P, TOP, alpha=-1), ValueError, "alpha = -1"),
        (lambda: losses.local_distribution(np.array([True, False]), epsilon=0), ValueError, "epsilon = 0"),
        (lambda: losses.local_distribution(np.array([False, False]), epsilon=0.1), ValueError, "names no expert"),
        (lambda: losses.local_distribution(np.array([1, 0]), epsilon=0.1), TypeError, "booleans"),
        (lambda: losses.locality(np.array([0.5, 0.5]), np.array([1.0, 0.0])), ValueError, "divergence is infinite"),
        (
            lambda: losses.locality(np.array([0.5, 0.4]), np.array([0.5, 0.5])),
            ValueError,
            "current must be a distribution",
        ),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_on_another_device_load_balance_looks_at_no_value():
    """Torch's meta device has none to look at, and its tensors do not mix with the CPU's."""
    p, expert = torch.softmax(torch.tensor(LOGITS), dim=1).to("meta"), torch.tensor(TOP).to("meta")
    for mask in (None, torch.ones(40, dtype=torch.bool, device="meta")):
        assert losses.load_balance(p, expert, mask=mask).device.type == "meta"
