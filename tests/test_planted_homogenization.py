"""Homogenization of planted tokens along a training: its laws against sampling and known cases, every arm in small."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are trained: pip install 'resonance-theory[training]'")

from resonance_theory import homogenization  # noqa: E402
from resonance_theory.evidence.studies.study import settings_of  # noqa: E402
from resonance_theory.homogenization import cells  # noqa: E402
from simulations import _metrics, _planted, planted_homogenization  # noqa: E402
from simulations._rules import WITH_RANDOM, dispatch  # noqa: E402
from tests.trainings import assert_measured, assert_repeats, of_run, train  # noqa: E402


def unit(rng, experts, dim, orthonormal):
    gates = rng.normal(size=(dim, experts))
    return np.linalg.qr(gates)[0].T if orthonormal else (gates / np.linalg.norm(gates, axis=0)).T


@pytest.mark.parametrize("orthonormal", [True, False])
@pytest.mark.parametrize("rule", WITH_RANDOM)
def test_laws_against_samples(rule, orthonormal):
    """Few tokens in few dimensions, where a threshold for all samples or a wrong share would be far off."""
    if rule == "resonance" and not orthonormal:
        return  # no law
    rng = np.random.default_rng(0)
    tokens, dim, experts, capacity = 12, 6, 3, 2
    gates = unit(rng, experts, dim, orthonormal)
    x = rng.normal(size=(8000, tokens, dim))
    affinity = _planted.cosine(x, gates.T)
    token, used = dispatch(affinity, rule, capacity, rng)
    sample, expert, slot = np.nonzero(used)
    measured = _metrics.spread(x[sample, token[sample, expert, slot]], expert)
    law = planted_homogenization.laws(gates, rule, tokens, capacity)
    assert measured["calinski-harabasz"] == pytest.approx(law["calinski-harabasz law"], rel=0.03)
    assert measured["centroid distance"] == pytest.approx(law["centroid distance law"], abs=0.01)
    load = np.bincount(affinity.argmax(axis=-1).ravel(), minlength=experts)
    assert load.max() / load.sum() == pytest.approx(law["heaviest share law"], abs=0.004)
    assert float(homogenization.dispatch_entropy(load)) == pytest.approx(law["entropy law"], abs=0.003)
    if rule in ("token_choice", "random_keep"):
        far = _metrics.distances(x, token, used)["token distance at one expert"]
        assert far.mean() == pytest.approx(law["token distance at one expert law"], abs=0.012)
        assert law["token distance at one expert law"] < 0.85  # and 1 before routing
    if rule == "resonance":  # H3 with one threshold for all samples is another number
        fraction = capacity * experts / tokens
        one = float(homogenization.resonance_scatter(dim, experts, fraction, select="cosine"))
        assert abs(one / law["calinski-harabasz law"] - 1) > 0.04


def test_laws_in_known_cases():
    rng = np.random.default_rng(1)
    frame = unit(rng, 4, 16, True)
    by_cells = float(homogenization.token_choice_scatter(16, 4))
    for rule in ("token_choice", "random_keep"):  # orthonormal gates: at every capacity H1 and H2
        law = planted_homogenization.laws(frame, rule, 20, 3)
        assert law["calinski-harabasz law"] == pytest.approx(by_cells)
        assert law["centroid distance law"] == pytest.approx(4 / 3)
        assert law["entropy law"] == pytest.approx(math.log(4))
    # whoever has room for all keeps what token choice keeps: any gates with no drops (H5)
    assert planted_homogenization.laws(frame, "resonance", 20, 20)["calinski-harabasz law"] == pytest.approx(by_cells)
    free = unit(rng, 4, 16, False)
    law = planted_homogenization.laws(free, "token_choice", 20, 20)
    assert law["calinski-harabasz law"] == pytest.approx(cells.scatter(free).ratio)
    # expert choice: in proportion to the gates' distance
    near = planted_homogenization.centroids(frame, "expert_choice", 20, 3)[0]
    square = float((near[0] ** 2).sum())
    distance = 1 - (free @ free.T)[~np.eye(4, dtype=bool)].mean()
    law = planted_homogenization.laws(free, "expert_choice", 20, 3)
    assert law["calinski-harabasz law"] == pytest.approx(square * 0.75 * distance / (16 - square))
    # and experts that take every token all keep the same
    everyone = planted_homogenization.centroids(free, "expert_choice", 20, 20)[0]
    assert np.abs(everyone).max() < 1e-6
    scatter = [planted_homogenization.laws(frame, "resonance", 20, c)["calinski-harabasz law"] for c in (1, 4, 7, 20)]
    assert scatter == sorted(scatter, reverse=True)  # H3's order survives in finite samples


def test_likeness_of_linear_experts_by_hand():
    rng = np.random.default_rng(2)
    outputs = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
    found = planted_homogenization.likeness(outputs)
    square = np.corrcoef(outputs.T) ** 2
    assert found["cka"] == pytest.approx(square[np.triu_indices(3, 1)].mean())
    assert found["cka chance"] == pytest.approx(1 / 49)  # of single outputs, whatever they are
    assert planted_homogenization.likeness(outputs[:, [0, 0, 0]])["cka"] == pytest.approx(1)


def test_class_information_by_hand():
    """Planted tokens of classes 0, 0, 1, 1; the last is dropped, a background token sits in its place."""
    place, label = np.array([2, 0, 1, 1]), np.array([0, 0, 1, 1])
    token = np.array([[[2], [0]], [[0], [1]], [[0], [1]], [[0], [2]]])
    used = np.ones(token.shape, dtype=bool)
    assert planted_homogenization.class_information(label, place, token, used, 2) == pytest.approx(
        -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    )
    assert planted_homogenization.class_information(label, place, token, ~used, 2) == 0


@pytest.fixture(scope="module")
def counts():
    """One tiny run of every arm, twice."""
    change = {"checkpoints": [0, 3], "batch": 4, "samples": 60, "blank": 40, "tokens": 16, "dim": 8, "capacity": 3}
    arms = planted_homogenization.arms(settings_of("planted_homogenization", full=True) | change)
    return {arm.label: (arm, train(arm)) for arm in arms}


def test_every_arm_in_small(counts):
    starts = {}
    for arm, found in counts.values():
        for run in range(2):
            v = of_run(found, arm.per, run)
            for at in ("@0", "@end"):
                assert 0.25 <= v[f"heaviest share {at}"] <= 1
                assert 0 <= v[f"entropy {at}"] <= math.log(4) + 1e-5
                assert 0 <= v[f"class information {at}"] <= math.log(4) + 1e-5
                assert 0 <= v[f"load gini {at}"] <= v[f"load cv {at}"]
                assert v[f"cka chance {at}"] == pytest.approx(1 / (60 * 16 - 1), abs=1e-5)
                assert v[f"processed {at}"] <= 12
                assert (v[f"processed {at}"] == 12) or arm.parameters["rule"] != "expert_choice"
                orthogonal = arm.parameters["gate"] == "orthogonal"
                assert (abs(v[f"gate distance {at}"] - 1) < 2e-5) == orthogonal
                has_law = f"background calinski-harabasz law {at}" in v
                blank = arm.parameters["blank"] > 0
                assert has_law == (blank and (orthogonal or arm.parameters["rule"] != "resonance"))
            assert (v["cka @0"] > 0.95) == arm.parameters["copies"]
            assert (
                v["accuracy @0"] != v["accuracy @end"] or v["gate distance @0"] != v["gate distance @end"] or orthogonal
            )
            # gates and tokens are the same for every rule at the start
            key = (arm.parameters["gate"], arm.parameters["shared"], arm.parameters["mean"], run)
            dispatch = [v[f"{name} @0"] for name in ("entropy", "load cv", "token distance", "gate distance")]
            assert starts.setdefault(key, dispatch) == dispatch
    # ... and only what an arm changes makes it another one
    pair = [counts[f"free, independent, resonance{change}"][1] for change in ("", ", balance")]
    assert pair[0]["accuracy @0/0"] == pair[1]["accuracy @0/0"]
    assert pair[0]["load cv @end/0"] != pair[1]["load cv @end/0"]


def test_a_run_is_a_function_of_its_stream(counts):
    arm, found = counts["free, skewed, resonance, balance"]
    assert_repeats(arm, found)


def test_what_is_compared_is_measured(counts):
    assert_measured("planted_homogenization", {label: found for label, (_, found) in counts.items()})
