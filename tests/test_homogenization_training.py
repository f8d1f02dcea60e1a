"""The study of homogenization in training: its measurements by hand, its losses and laws against formulas, tiny runs."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are trained: pip install 'resonance-theory[training]'")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install 'resonance-theory[training]'")

from resonance_theory import affinity, homogenization  # noqa: E402
from resonance_theory.evidence.studies.study import settings_of  # noqa: E402
from simulations import _digits, _metrics  # noqa: E402
from simulations import homogenization_training as study  # noqa: E402
from simulations._rules import dispatch  # noqa: E402
from tests.trainings import assert_measured, assert_repeats, of_run, train  # noqa: E402


@pytest.fixture
def routed():
    """Six samples of five tokens at three experts with two slots, by resonance."""
    rng = np.random.default_rng(0)
    x, score = rng.normal(size=(6, 5, 4)), rng.normal(size=(6, 5, 3)).astype(np.float32)
    token, used = dispatch(score, "resonance", 2, rng)
    pairs = [(b, token[b, i, c], i) for b, i, c in np.argwhere(used)]
    return x, rng.integers(0, 10, (6, 5)), score.argmax(axis=-1), token, used, pairs


def test_measurements_of_routing_by_hand(routed):
    x, digit, choice, token, used, pairs = routed
    found = _metrics.routing(x, digit, 10, choice, token, used)
    assert found["processed"] == pytest.approx(len(pairs) / 6)
    # nodes: experts 0, 1 and places 0, 1, 2 on the first
    assert study.off_node(token, used, 5) == pytest.approx(np.mean([(i >= 2) != (t >= 3) for _, t, i in pairs]))
    assert found["heaviest share"] == pytest.approx(max((choice == i).sum() for i in range(3)) / 30)
    kept = [np.array([x[b, t] for b, t, j in pairs if j == i]) for i in range(3)]
    mean = np.concatenate(kept).mean(axis=0)
    centre = [k.mean(axis=0) - mean for k in kept]
    between = sum(len(k) * c @ c for k, c in zip(kept, centre))
    within = sum(((k - k.mean(axis=0)) ** 2).sum() for k in kept)
    assert found["calinski-harabasz"] == pytest.approx(between / within)
    assert found["calinski-harabasz, standard"] == pytest.approx(between / within * (len(pairs) - 3) / 2)
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(centre, [centre[1], centre[2], centre[0]])]
    assert found["centroid distance"] == pytest.approx(1 - np.mean(cosine))
    seen = [(digit[b, t], i) for b, t, i in pairs]
    information = 0.0
    for d, i in set(seen):
        joint = seen.count((d, i)) / len(seen)
        first, second = (sum(s[k] == v for s in seen) / len(seen) for k, v in ((0, d), (1, i)))
        information += joint * math.log(joint / first / second)
    assert found["information"] == pytest.approx(information)


def test_pairs_of_tokens_by_hand(routed):
    x, _, _, token, used, pairs = routed
    found = _metrics.distances(x, token, used)
    everyone, together = [], []
    for b in range(6):
        for s in range(5):
            for t in range(s):
                far = 1 - x[b, s] @ x[b, t] / np.linalg.norm(x[b, s]) / np.linalg.norm(x[b, t])
                everyone.append(far)
                if any((b, s, i) in pairs and (b, t, i) in pairs for i in range(3)):
                    together.append(far)
    assert 0 < len(together) < len(everyone)
    assert sorted(found["token distance"]) == pytest.approx(sorted(everyone))
    assert sorted(found["token distance at one expert"]) == pytest.approx(sorted(together))


def test_distributions_by_hand(routed):
    x, _, choice, token, used, _ = routed
    found = study.distributions(choice, 3, _metrics.distances(x, token, used))
    loads = [[(row == i).sum() for i in range(3)] for row in choice]
    total = np.sort(np.sum(loads, axis=0))
    assert [found[f"load share {i}"] for i in (1, 2, 3)] == pytest.approx(total / 30)
    assert [found[f"load at most {k}"] for k in range(5)] == pytest.approx(
        [np.mean(np.array(loads) <= k) for k in range(5)]
    )
    deciles = [found[f"token distance, decile {k}"] for k in range(1, 10)]
    assert deciles == sorted(deciles)


def test_one_expert_with_every_token_is_homogenized():
    rng = np.random.default_rng(1)
    found = _metrics.spread(rng.normal(size=(20, 4)), np.zeros(20, dtype=int))
    assert set(found.values()) == {0.0}


def test_experts_of_equal_weights_are_equal():
    network = _digits.start(np.random.default_rng(2), 2, 3, 8)
    x = torch.randn(50, 64)
    with torch.no_grad():
        assert study.expert_similarity(network, x, 1) < 0.7
        for layer in (network[1], network[3]):
            layer[1] = layer[1, :1]  # of this run; the other run is another network
        assert study.expert_similarity(network, x, 1) == pytest.approx(1, abs=1e-5)
        assert study.expert_similarity(network, x, 0) < 0.7


def test_losses_by_hand():
    rng = np.random.default_rng(3)
    score = rng.normal(size=(2, 6, 8, 4)) / 3  # runs, samples, places, experts
    tensor = torch.from_numpy(score).requires_grad_()
    probability = np.exp(5 * score) / np.exp(5 * score).sum(axis=-1, keepdims=True)
    balance = locality = 0.0
    for p in probability:
        share = np.bincount(p.argmax(axis=-1).ravel(), minlength=4) / 48
        balance += 0.3 * 4 * share @ p.mean(axis=(0, 1))
        for places, target in ((p[:, :4], [0.45, 0.45, 0.05, 0.05]), (p[:, 4:], [0.05, 0.05, 0.45, 0.45])):
            current = places.mean(axis=(0, 1))
            locality += 0.2 * (current * np.log(current / target)).sum() / 2
    assert float(study.auxiliary(tensor.detach(), 5.0, 0.3, 0.0, 0.1)) == pytest.approx(balance, rel=1e-9)
    assert float(study.auxiliary(tensor.detach(), 5.0, 0.0, 0.2, 0.1)) == pytest.approx(locality, rel=1e-9)
    both = study.auxiliary(tensor, 5.0, 0.3, 0.2, 0.1)
    assert both.item() == pytest.approx(balance + locality, rel=1e-9)
    both.backward()
    assert (tensor.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("size", [1e-4, 1.0])
def test_gates(size):
    weights = size * torch.randn(2, 64, 4, dtype=torch.float64)
    assert _digits.gates_of(weights, "free") is weights
    frame = _digits.gates_of(weights, "orthogonal")
    assert torch.allclose(frame.mT @ frame, torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    assert torch.allclose(frame[:, :, 0], weights[:, :, 0] / weights[:, :, 0].norm(dim=1, keepdim=True))
    near = _digits.gates_of(weights * (1 + 1e-9 * torch.randn_like(weights)), "orthogonal")
    assert torch.allclose(near, frame, atol=1e-7)
    x = torch.randn(2, 3, 5, 64, dtype=torch.float64)
    grap = _digits.affinities(_digits.gates_of(weights, "grap"), x)
    assert grap.numpy() == pytest.approx(affinity(x.numpy(), 4))


def test_laws_for_two_gates_and_for_isotropic_tokens():
    rng = np.random.default_rng(4)
    root = rng.normal(size=(5, 5))
    covariance = root @ root.T
    gates = rng.normal(size=(2, 5))
    gates /= np.linalg.norm(gates, axis=1, keepdims=True)
    across = gates[0] - gates[1]
    centre = covariance @ across / np.sqrt(across @ covariance @ across) * math.sqrt(2 / math.pi)  # half-normal mean
    found = _metrics.laws(gates, covariance)
    between = centre @ centre
    assert found["calinski-harabasz law"] == pytest.approx(between / (np.trace(covariance) - between))
    assert found["centroid distance law"] == pytest.approx(2)
    assert found["heaviest share law"] == pytest.approx(0.5)
    assert found["winning projection law"] == pytest.approx(across @ centre / 2)
    frame = np.linalg.qr(rng.normal(size=(16, 4)))[0].T
    found = _metrics.laws(frame, np.eye(16))
    assert found["calinski-harabasz law"] == pytest.approx(float(homogenization.token_choice_scatter(16, 4)))
    assert found["centroid distance law"] == pytest.approx(4 / 3)
    assert found["winning projection law"] == pytest.approx(1.0293753730039641)


@pytest.fixture(scope="module")
def counts():
    """One tiny run of every arm."""
    change = {"checkpoints": [0, 2], "batch": 4, "test_mosaics": 30, "hidden": 4, "count": 2000}
    arms = study.arms(settings_of("homogenization_training", full=True) | change)
    return arms, {arm.label: train(arm) for arm in arms}


def test_tiny_runs(counts):
    arms, found = counts
    for arm in arms:
        mine = found[arm.label]
        if arm.label.startswith("untrained"):
            continue
        assert mine.keys() == found[arms[0].label].keys()
        for run in range(2):
            v = of_run(mine, arm.per, run)
            for step in ("@0", "@end"):
                assert 0 <= v[f"off node {step}"] <= 1
                assert 0.25 <= v[f"heaviest share {step}"] <= 1
                assert 0 <= v[f"information {step}"] <= v[f"entropy {step}"] + math.log(4)
                assert v[f"processed {step}"] <= 8
                if arm.parameters["rule"] == "expert_choice":
                    assert v[f"processed {step}"] == 8
            assert v["load at most 15 @end"] <= 1
            assert sum(v[f"load share {i} @end"] for i in range(1, 5)) == pytest.approx(1, abs=1e-4)
            # fixed gates choose alike at every step; others have moved
            same = [v["load cv @0"], v["token distance @0"]] == [v["load cv @end"], v["token distance @end"]]
            assert same or arm.parameters["gates"] != "grap"
            assert (v["cka @0"] > 0.9) == arm.parameters["copies"]


def test_a_run_is_a_function_of_its_stream_and_arms_share_what_they_should(counts):
    arms, found = counts
    arm = next(arm for arm in arms if arm.label == "resonance, free, placed, both")
    assert_repeats(arm, found[arm.label])
    for key in (
        "load cv @0/1",
        "cka @0/1",
        "token distance @0/1",
    ):  # same mosaics and weights, whatever the rule or loss
        assert found["resonance, free"][key] == found["token_choice, free"][key] == found["random_keep, free"][key]
        assert found["resonance, free, placed, none"][key] == found[arm.label][key]
    assert found["resonance, free, placed, none"]["load cv @end/1"] != found[arm.label]["load cv @end/1"]


def test_what_is_compared_is_measured(counts):
    arms, found = counts
    assert len(found) == len(arms)
    assert_measured("homogenization_training", found)


def test_untrained_gates_meet_the_closed_forms(counts):
    """2,000 tokens: the ratio's excess is near 3/2000, its standard deviation near .001."""
    arms, found = counts
    for arm in arms:
        if arm.label.startswith("untrained isotropic") and arm.parameters["kept"] == 1:
            for run in range(2):
                v = of_run(found[arm.label], arm.per, run)
                assert abs(v["calinski-harabasz"] - v["calinski-harabasz law"] - 0.0015) < 0.006
