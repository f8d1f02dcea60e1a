"""Menus of contracts and weights of late updates: what they promise, and what they refuse; the study in small."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonance_theory.systems.asynchronous_aggregation import admission_weight, staleness_weight, trust
from resonance_theory.systems.screening_contract import best_contract, full_information_effort, virtual_cost

steps = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12)


@settings(deadline=None, max_examples=100)
@given(steps, st.lists(st.floats(1e-3, 1.0), min_size=12, max_size=12), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_no_type_prefers_another_item_or_none(gaps, weights, cost, worth):
    types, shares = np.cumsum(gaps), np.array(weights[: len(gaps)])
    menu = best_contract(types, shares / shares.sum(), cost, worth)
    utility = menu.utility()
    own, scale = np.diagonal(utility), 1 + np.abs(utility).max()
    assert (own[:, None] - utility).min() > -1e-12 * scale
    assert own.min() > -1e-12 * scale
    assert abs(own[0]) < 1e-12 * scale  # the least type is left nothing
    assert (np.diff(menu.effort) >= -1e-12 * (1 + menu.effort.max())).all()
    assert (menu.effort <= full_information_effort(types, cost, worth) * (1 + 1e-12) + 1e-12).all()


def test_no_menu_near_it_earns_more():
    """Perturbed efforts, with the least rewards that hold them, earn less: a check of optimality without a solver."""
    rng = np.random.default_rng(0)
    types, shares = np.array([1.0, 1.2, 3.0, 3.1, 6.0]), np.array([0.3, 0.1, 0.3, 0.05, 0.25])
    menu = best_contract(types, shares, worth=6.0)
    assert len(np.unique(menu.effort.round(9))) < 5  # some types are pooled
    for _ in range(500):
        effort = np.maximum.accumulate(np.maximum(menu.effort + rng.normal(scale=0.1, size=5), 0))
        reward = np.cumsum(np.diff(effort, prepend=0) / types)
        assert shares @ (6 * np.log1p(effort) - reward) <= menu.profit()


def test_types_too_small_to_pay_for_and_huge_ones():
    menu = best_contract([5e-324, 1.0, 1e300], [0.2, 0.3, 0.5], worth=3.0)
    assert menu.effort[0] == menu.reward[0] == 0
    assert np.isfinite(menu.reward).all()
    assert menu.effort[2] == pytest.approx(3e300)


def test_one_type_gets_the_full_information_effort_and_no_rent():
    menu = best_contract([2.0], [1.0], worth=5.0)
    assert menu.effort.tolist() == full_information_effort([2.0], worth=5.0).tolist() == [9.0]
    assert menu.rent() == 0


@pytest.mark.parametrize(
    ("types", "shares", "error", "said"),
    [
        ([1, 1, 2], [0.2, 0.3, 0.5], ValueError, r"types\[1\] = 1 must exceed types\[0\] = 1: types rise strictly"),
        ([2, 1], [0.5, 0.5], ValueError, r"types\[1\] = 1 must exceed"),
        ([1, 2], [0.5, 0.6], ValueError, "shares sums to 1.1 over its last axis but must sum to 1"),
        ([1, 2], [1.0, 0.0], ValueError, r"shares\[1\] = 0.0 must be a finite number in \(0, inf\)"),
        ([0, 2], [0.5, 0.5], ValueError, r"types\[0\] = 0.0 must be"),
        ([1, 2, 3], [0.5, 0.5], ValueError, r"types has shape \(3,\) and shares \(2,\)"),
        ("ab", [1.0], TypeError, "types"),
    ],
)
def test_wrong_types_and_shares_are_named(types, shares, error, said):
    for function in (virtual_cost, best_contract):
        with pytest.raises(error, match=said):
            function(types, shares)


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="worth = 0"):
        best_contract([1, 2], [0.5, 0.5], worth=0)
    with pytest.raises(ValueError, match="cost = -1"):
        full_information_effort([1, 2], cost=-1)


def test_weights_of_late_and_doubtful_updates():
    assert staleness_weight([0, 3], [[0.0], [1.0]]).tolist() == [[1.0, 1.0], [1.0, 0.25]]
    assert trust([[2.0, 0.0], [0.0, 0.0], [-1.0, 0.0]], [5.0, 0.0]).tolist() == [1.0, 0.0, 0.0]
    assert admission_weight(3, 0.5, rate=0.8) == pytest.approx(0.2)
    assert admission_weight(0, 0.2, least=0.2) == 0
    assert trust([1e200, 1e200], [3e-200, 0.0]) == pytest.approx(0.5**0.5)
    assert trust(np.zeros((0, 3)), np.zeros(3)).shape == (0,)
    for call, said in (
        (lambda: staleness_weight(-1), "staleness = -1"),
        (lambda: admission_weight(0, 1.5), "quality = 1.5"),
        (lambda: admission_weight(0, 0.5, rate=2), "rate = 2"),
        (lambda: trust([1.0, 2.0], [1.0]), r"update has shape \(2,\) and reference \(1,\)"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_the_gradient_of_the_study_is_that_of_its_loss():
    pytest.importorskip("sklearn")
    from simulations import asynchronous_federated as study

    rng = np.random.default_rng(1)
    w = rng.normal(scale=0.3, size=64 * 5 + 5 + 5 * 10 + 10)
    x, y = rng.normal(size=(7, 64)), rng.integers(0, 10, 7)

    def loss(v):
        logits = study.scores(v, x, 5)[1]
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(7), y]))

    found = study.gradient(w, x, y, 5)
    for i in rng.integers(0, len(w), 40):
        step = np.zeros_like(w)
        step[i] = 1e-6
        assert found[i] == pytest.approx((loss(w + step) - loss(w - step)) / 2e-6, abs=1e-6)


def test_poisoned_clients_are_left_out_by_an_ideal_server_only():
    pytest.importorskip("sklearn")
    from resonance_theory.evidence.studies.study import settings_of
    from simulations import asynchronous_federated as study

    arms = {arm.label: arm for arm in study.arms(settings_of("asynchronous_federated", full=False))}
    members = {}
    for label in ("trust, 6 poisoned", "honest, 6 poisoned"):
        f = study.Federation(np.random.default_rng(2), study.Training(**arms[label].parameters))
        members[label] = set(f.members()) & f.bad
    assert len(members["trust, 6 poisoned"]) >= 5  # a client may own no image
    assert not members["honest, 6 poisoned"]
    few = {**arms["trust, 6 poisoned"].parameters, "updates": 10}
    first = arms["trust, 6 poisoned"].train(np.random.default_rng(3), 1, **few)
    assert first == arms["trust, 6 poisoned"].train(np.random.default_rng(3), 1, **few)
