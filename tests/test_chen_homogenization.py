"""Homogenization in Chen et al.'s mixture: its measurements by hand, its laws of chance by enumeration, tiny trainings."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from resonance_theory import homogenization
from resonance_theory.evidence.sampling import generator
from resonance_theory.evidence.studies.study import settings_of, studies

torch = pytest.importorskip(
    "torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'"
)

from simulations import _chen as chen  # noqa: E402
from simulations import chen_homogenization as study  # noqa: E402
from simulations._rules import WITH_RANDOM  # noqa: E402
from tests.trainings import assert_measured, assert_repeats, of_run, train  # noqa: E402

# --- measurements -----------------------------------------------------------------------------------------------------


def test_the_experts_outputs_make_up_the_networks():
    rng = np.random.default_rng(0)
    router, filters, x = rng.normal(size=(1, 5, 3)), rng.normal(size=(1, 3, 6, 4)), rng.normal(size=(9, 4, 6))
    noise = rng.random((1, 9, 3))
    tensors = [torch.from_numpy(value.astype(np.float32)) for value in (router, filters, x, noise)]
    z, _ = chen.outputs(tensors[:2], *tensors[2:], "token_choice", 9, True, chen.DETAILS["code"])
    out = study.expert_outputs(filters[0], x)
    noisy = x[..., :-1].sum(axis=1) @ router[0] + noise[0]
    expected = [noisy[t, i] * (out[i, t, 1] - out[i, t, 0]) for t, i in enumerate(noisy.argmax(axis=1))]
    assert z[0].numpy() == pytest.approx(np.array(expected), rel=1e-4, abs=1e-3)
    same = np.repeat(filters[0, :1], 3, axis=0)
    assert study.similarity(same, x, homogenization.linear_cka) == pytest.approx(1)
    assert study.similarity(filters[0], x, homogenization.linear_cka) < 0.9


def test_random_keep_is_token_choice_in_another_order():
    rng = np.random.default_rng(1)
    affinity, priority = rng.random((2, 40, 3)), rng.random((2, 40, 1))
    kept = chen.route(affinity, priority, "random_keep", 5)
    for run in range(2):
        for i in range(3):
            mine = [t for t in range(40) if affinity[run, t].argmax() == i]
            first = sorted(mine, key=lambda t: priority[run, t, 0])[:5]
            assert sorted(kept.token[(kept.sample == run) & (kept.expert == i)]) == sorted(first)
    assert np.array_equal(kept.sample * 3 + kept.expert, np.sort(kept.sample * 3 + kept.expert))
    by_position = np.broadcast_to(np.arange(40.0)[:, None], (2, 40, 1))
    same, plain = (chen.route(affinity, by_position, rule, 5) for rule in ("random_keep", "token_choice"))
    assert np.array_equal(same.token, plain.token)


def test_information_and_distance_by_hand():
    rng = np.random.default_rng(2)
    token, expert, cluster = rng.permutation(30)[:20], rng.integers(0, 3, 20), rng.integers(0, 4, 30)
    found = study.specialisation(token, expert, cluster, 5)  # two experts have nothing
    count = np.array(list(Counter(cluster[token]).values())) / 20
    clusters = -(count * np.log(count)).sum()
    assert found["information"] + found["dispatch entropy"] == pytest.approx(clusters)  # chain rule
    seen = rng.normal(size=(30, 4))
    pairs = [
        (s, t)
        for i, j in itertools.combinations(range(20), 2)
        for s, t in [(token[i], token[j])]
        if expert[i] == expert[j]
    ]
    far = [1 - seen[s] @ seen[t] / np.linalg.norm(seen[s]) / np.linalg.norm(seen[t]) for s, t in pairs]
    assert study.token_distance(seen, token, expert, 5) == pytest.approx(np.mean(far))
    assert study.token_distance(seen, token[:1], expert[:1], 5) == 0


# --- a router of noise alone ------------------------------------------------------------------------------------------


def ratio(x, dispatches):
    """(mean between / (groups - 1)) / (mean within / (pairs - groups)) over equally likely dispatches (tokens, experts)."""
    found = []
    for token, expert in dispatches:
        between, within = homogenization.scatter(x[list(token)], np.array(expert))
        groups, pairs = len(set(expert)), len(token)
        found.append((between / (groups - 1), within / (pairs - groups)))
    mean = np.mean(found, axis=0)
    return mean[0] / mean[1]


def test_chance_of_the_index_by_all_dispatches():
    """Every way to send six tokens to three experts that leaves none idle and no within scatter empty; every choice of
    three or two of six by two experts."""
    x = np.random.default_rng(3).normal(size=(6, 3)) ** 3
    parts = [(range(6), expert) for expert in itertools.product(range(3), repeat=6) if len(set(expert)) == 3]
    assert ratio(x, parts) == pytest.approx(
        study.laws("resonance", 6, 6, 3, np.arange(6))["calinski-harabasz, standard"]
    )
    for capacity in (2, 3):
        sets = list(itertools.combinations(range(6), capacity))
        both = [((*a, *b), [0] * capacity + [1] * capacity) for a in sets for b in sets]
        law = study.laws("expert_choice", 6, capacity, 2, np.arange(6))
        assert ratio(x, both) == pytest.approx(law["calinski-harabasz, standard"])
        assert law["calinski-harabasz, standard"] < 0.7
        assert np.mean([len({*a, *b}) for a in sets for b in sets]) / 6 == pytest.approx(law["processed"])


SOURCE = {"data_seed": 0, "examples": 600, "clusters": 4, "dim": 12, "experts": 4}


@pytest.mark.parametrize("rule", WITH_RANDOM)
@pytest.mark.parametrize("capacity", [60, 150])
def test_a_router_of_noise_alone_meets_its_laws(rule, capacity):
    counts = study.chance(generator(0, "t", 0), 2, rule=rule, capacity=capacity, draws=80, **SOURCE)
    v = {name: np.mean([counts[f"{name}/{run}"] for run in range(2)]) / study.PER for name in (
        key.rpartition("/")[0] for key in counts
    )}  # fmt: skip
    # about five sigma of the mean of 160 draws, and the entropy's next order
    bounds = {"processed": 0.007, "calinski-harabasz, standard": 0.16, "dispatch entropy": 0.0025, "load cv": 0.012}
    if rule == "token_choice":  # keeps the first by position in every draw: of one data set, not a random sample
        del bounds["dispatch entropy"]
    for name, bound in bounds.items():
        assert abs(v[name] - v[f"{name} law"]) < bound, name
    if rule == "expert_choice":
        assert v["calinski-harabasz, standard law"] == 1 - capacity / 600


# --- training ---------------------------------------------------------------------------------------------------------

TINY = SOURCE | {"filters": 4, "checkpoints": [0, 3, 25], "draws": 5}


@pytest.fixture(scope="module")
def counts():
    """One tiny run of every arm."""
    arms = study.arms(settings_of("chen_homogenization", full=True) | TINY)
    return arms, {arm.label: train(arm) for arm in arms}


def test_tiny_trainings(counts):
    arms, found = counts
    test = chen.data(0, 600, 4, 12)[1]
    share = np.bincount(test[2]) / 600
    clusters = -(share * np.log(share)).sum()
    for arm in (arm for arm in arms if arm.train is study.follow):
        for run in range(2):
            v = of_run(found[arm.label], study.PER, run)
            for at in ("@0", "@3", "@end"):
                assert v[f"accuracy {at}"] <= v[f"processed {at}"] <= 1
                assert 0.25 <= v[f"heaviest share {at}"] <= 1
                assert v[f"heaviest share {at}"] <= (1 + v[f"load cv {at}"] * math.sqrt(3)) / 4 + 1e-5
                entropy, information = v[f"dispatch entropy {at}"], v[f"information {at}"]
                if arm.parameters["capacity"] == 600:
                    assert v[f"processed {at}"] == 1
                    assert entropy + information == pytest.approx(clusters, abs=1e-5)
                assert entropy + information <= math.log(4) + 1e-5
                k = 4 if v[f"processed {at}"] > 0.75 else None  # no expert is idle then
                pairs = 600 if arm.parameters["rule"] == "expert_choice" else 600 * v[f"processed {at}"]
                if k:
                    assert v[f"calinski-harabasz, standard {at}"] == pytest.approx(
                        v[f"calinski-harabasz {at}"] * (pairs - k) / (k - 1), rel=1e-2, abs=1e-3
                    )
            assert v["load cv @0"] < 0.15
            assert v["information @0"] < 0.03
            assert v["calinski-harabasz, standard @0"] < 3
            assert (v["cka @0"] > 0.9) == arm.parameters["copies"]
            assert v["cka by chance @end"] < 0.02
            assert 0.9 < v["token distance"] < 1.1
            swapped = [name for name in v if name.startswith("calinski-harabasz, ") and "standard" not in name]
            assert len(swapped) == (12 if arm.label == "published" else 0)


def test_a_run_is_a_function_of_its_stream_and_arms_share_what_they_should(counts):
    arms, found = counts
    arm = next(arm for arm in arms if arm.label == "random_keep")
    assert_repeats(arm, found[arm.label])
    for key in ("load cv @0/1", "cka @0/1", "heaviest share @0/0"):  # same weights, same noise
        assert len({found[rule][key] for rule in ("published", *WITH_RANDOM)}) == 1
    for rule in WITH_RANDOM:  # the swapped router of the untrained network is the arm's own
        assert found["published"][f"calinski-harabasz, {rule} @0/1"] == found[rule]["calinski-harabasz @0/1"]
    assert found["published"]["load cv @end/1"] != found["resonance"]["load cv @end/1"]


def test_measuring_leaves_the_training_alone(counts):
    arms, found = counts
    for arm in arms[:1]:
        once = train(arm, checkpoints=[25])
        assert once == {key: found[arm.label][key] for key in once}


def test_a_stopped_run_keeps_its_network(monkeypatch):
    inner, calls = chen.losses, []

    def stop_the_first(z, label, softmaxed):
        calls.append(len(z))
        return inner(z, label, softmaxed) + torch.tensor([1.0, 0.0] if len(calls) == 3 else [0.0] * len(z))

    monkeypatch.setattr(chen, "losses", stop_the_first)
    arm = study.arms(settings_of("chen_homogenization", full=True) | TINY)[0]
    counts = train(arm, checkpoints=[0, 3, 10, 20])
    assert counts["steps/0"] == round(3 / 20 * study.PER)
    assert counts["steps/1"] == study.PER
    names = {key.partition(" @")[0] for key in counts if " @0/" in key}
    for name in names:
        assert counts[f"{name} @3/0"] == counts[f"{name} @10/0"] == counts[f"{name} @end/0"]
    assert counts["cka @3/1"] != counts["cka @10/1"] != counts["cka @end/1"]


def test_what_is_compared_is_measured(counts):
    arms, found = counts
    assert "chen_homogenization" in studies()
    assert len(found) == len(arms)
    assert_measured("chen_homogenization", found)
