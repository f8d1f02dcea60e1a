"""Planted tokens along a training: measurements by hand, the routers, known laws; networks and checkpoints in small."""

import numpy as np
import pytest

from resonance_theory.evidence.studies.study import settings_of
from resonance_theory.rules import Rates, token_choice
from resonance_theory.tokens.samplers import Dependent
from simulations import _planted, _planted_laws, planted_phases, planted_training
from simulations._planted_laws import binomial, least, observe, predict, repaired
from simulations._rules import RULES, success
from tests.trainings import assert_repeats, of_run, train

# --- the measurements -------------------------------------------------------------------------------------------------


def test_counts_at_the_nodes_by_hand():
    rng = np.random.default_rng(0)
    value, counted = rng.integers(0, 6, (30, 7)).astype(float), rng.random((30, 7)) < 0.6
    nodes = np.array([0.0, 1.0, 2.5, 3.0, 3.0, 5.0, 9.0])
    expected = [[sum(v >= a and c for v, c in zip(row, mine)) for a in nodes] for row, mine in zip(value, counted)]
    number = _planted_laws.reach(value, counted, nodes)
    assert number.tolist() == expected
    p, correlation = _planted_laws.moments(number, 7)
    assert p == pytest.approx(np.mean(expected, axis=0) / 7)
    for column, share, kappa in zip(np.transpose(expected), p, correlation):
        variance = 7 * share * (1 - share) * (1 + 6 * kappa)
        assert kappa == 0 or variance == pytest.approx(column.var(ddof=1))
    found = _planted_laws.distribution(number, 7)
    assert found == pytest.approx([np.mean([n <= c for row in expected for n in row]) for c in range(8)])


@pytest.fixture(scope="module")
def planted_tokens():
    """Affinities for the class directions as gates: 16 tokens, 3 experts; independent and correlated backgrounds."""
    gates = np.eye(8, 3, dtype=np.float32)

    def sample(seed, size, shared):
        x, place, label = _planted.draw(np.random.default_rng(seed), size, 16, 8, 3, 2.0, shared)
        return _planted.cosine(x, gates), place, label

    return sample


def test_ranks_succeed_where_the_routers_do(planted_tokens):
    affinity, place, label = planted_tokens(1, 300, 0.3)
    table, curves = observe(affinity, place, label)
    for capacity in range(1, 17):
        found = planted_training.routed(affinity, place, label, capacity)
        assert {rule: curves[rule][capacity - 1] for rule in RULES} == pytest.approx(found, abs=1e-12)
    routed = affinity[np.arange(300), place].argmax(axis=1)
    assert table[1, 2] == pytest.approx((routed[label == 1] == 2).mean())


def test_predicted_laws_by_hand():
    """Few enough tokens of a class that each is a node: the laws are plain averages over tokens and samples."""
    rng = np.random.default_rng(2)
    samples, tokens, capacity = 40, 5, 2
    affinity, place = rng.normal(size=(samples, tokens, 2)), rng.integers(0, tokens, samples)
    label = np.arange(samples) % 2
    found = predict(affinity, place, label)
    background = [[affinity[b, t] for t in range(tokens) if t != place[b]] for b in range(samples)]
    success = dict.fromkeys(RULES, 0.0)
    for i in range(2):
        own = [affinity[b, place[b]] for b in range(samples) if label[b] == i]
        hit = [a for a in own if a[i] == a.max()]
        assert found.hit[i] == pytest.approx(len(hit) / len(own))
        number = [sum(r.argmax() == i for r in row) for row in background]
        assert found.load[i] == pytest.approx(np.mean(number) / 4)
        success["token_choice"] += 0.5 * found.hit[i] * np.mean([min(1, capacity / (n + 1)) for n in number])
        ahead = [
            [sum(r[i] >= a for r in row) < capacity for row in background]
            for a in _planted_laws.quantiles([a[i] for a in own])
        ]
        success["expert_choice"] += 0.5 * np.mean(ahead)
        nodes = _planted_laws.quantiles([a[i] for a in hit])
        ahead = [[sum(r[i] >= a and r.argmax() == i for r in row) for row in background] for a in nodes]
        success["resonance"] += 0.5 * found.hit[i] * np.mean(np.array(ahead) < capacity)
        assert found.rho[i] == pytest.approx(np.mean(ahead) / 4 / found.load[i])
    assert {rule: found.laws[rule].curve[capacity - 1] for rule in RULES} == pytest.approx(success)


@pytest.fixture(scope="module")
def exact():
    """Planted isotropic tokens, whose laws are known without samples."""
    return success(16, 3, Rates.planted(2.0, 8, 3))


def rate(made, rule, law, tokens, capacity):
    read, rates = made(rule, law)
    return read.success(tokens, capacity, rates)


def test_independent_background_obeys_all_three_laws(planted_tokens, exact):
    found = predict(*planted_tokens(3, 6000, 0.0))
    assert found.dispersion == pytest.approx(1, abs=0.06)
    assert np.isfinite(found.rho).all()
    for rule, expected in exact.items():
        law = found.laws[rule]
        assert law.weight.sum() == pytest.approx(1)
        for value in (rate(binomial, rule, law, 16, 3), law.curve[2],
                      rate(repaired, rule, law, 16, 3)):  # fmt: skip
            assert value == pytest.approx(expected, abs=0.025)  # four standard deviations of the hit rate and a little


def test_correlated_background_breaks_the_binomial_law_alone(planted_tokens):
    found = predict(*planted_tokens(4, 6000, 0.5))
    curves = observe(*planted_tokens(5, 6000, 0.5))[1]
    assert found.dispersion > 2
    for rule, law in found.laws.items():
        values = [rate(binomial, rule, law, 16, 3), law.curve[2],
                  rate(repaired, rule, law, 16, 3)]  # fmt: skip
        wrong, mixture, beta_binomial = (abs(value - curves[rule][2]) for value in values)
        assert mixture < 0.03
        assert beta_binomial < 0.03
        assert wrong > 0.05 or rule != "token_choice"


def test_beta_binomial_tokens_are_recognised():
    """Counts drawn from the repair's own model: the known correlation is found, and its law comes out."""
    model = Dependent(2.0, 16, 4, correlation=0.2)
    drawn = model.affinity(np.random.default_rng(6), 5000, 24)
    law = predict(drawn.values, drawn.position, drawn.expert).laws
    assert law["token_choice"].correlation == pytest.approx([0.2] * 4, abs=0.03)
    exact = token_choice.success(24, 4, model.rates())
    assert rate(repaired, "token_choice", law["token_choice"], 24, 4) == pytest.approx(exact, abs=0.025)
    assert rate(binomial, "token_choice", law["token_choice"], 24, 4) < exact - 0.03


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("function", [binomial, repaired])
def test_least_capacities_are_least(planted_tokens, rule, function):
    found = predict(*planted_tokens(7, 500, 0.3))
    law, target = found.laws[rule], 0.8 * float(found.share @ found.hit)
    read, rates = function(rule, law)
    c = int(read.least_capacity(target, 16, rates))
    assert rate(function, rule, law, 16, c) >= target
    assert c == 1 or rate(function, rule, law, 16, c - 1) < target
    assert least(np.array([0.1, 0.4, 0.4, 0.5]), 0.4) == 2
    assert least(np.array([0.1, 0.4]), 0.5) == 2


def test_a_class_that_is_never_hit_leaves_no_percentile():
    rng = np.random.default_rng(8)
    affinity, place, label = rng.normal(size=(60, 6, 3)), rng.integers(0, 6, 60), np.arange(60) % 3
    affinity[..., 2] -= 100
    found = predict(affinity, place, label)
    assert np.isnan(found.rho).tolist() == [False, False, True]
    assert (found.hit[2], found.load[2]) == (0, 0)
    for rule, law in found.laws.items():
        for function in (binomial, repaired):
            assert 0 < rate(function, rule, law, 6, 2) < 1
    assert rate(binomial, "resonance", _planted_laws.at_mean(found, found.rho * found.load), 6, 2) > 0
    affinity[np.arange(60), place] = -np.eye(3)[label]  # nobody is ever hit
    assert np.isnan(predict(affinity, place, label).rho).all()


# --- training ---------------------------------------------------------------------------------------------------------


def test_half_way_by_hand():
    step = np.r_[np.zeros(100), np.ones(200)]
    at, rose = planted_phases.half_way(step)
    assert rose
    assert at == pytest.approx(100, abs=1)
    assert planted_phases.half_way(0.3 + 0.05 * step) == (300.0, False)
    assert planted_phases.half_way(np.r_[step, np.zeros(50)])[0] == at  # falling later changes nothing


@pytest.fixture
def needs_torch():
    return pytest.importorskip(
        "torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'"
    )


@pytest.mark.parametrize("kind", ["free", "dense", "orthogonal", "embedding"])
def test_gates_and_logits_by_hand(needs_torch, kind):
    dim, experts, scale = 6, 3, 2.0
    net = _planted.network(kind, dim, experts, scale, seed=3)
    x = np.random.default_rng(9).normal(size=(4, 5, dim)).astype(np.float32)
    for _ in range(2):  # as it starts, and after a step of training
        logits, affinity = planted_phases.forward(net, x, "resonance", 2)
        found = logits.detach().numpy()
        weights = [w.detach().numpy() for w in net.trained]
        blocks = np.repeat(np.eye(experts), dim // experts, axis=0)
        seen = x @ weights[0].T if kind == "embedding" else x
        if kind in ("free", "dense"):
            gates = weights[0].T
        elif kind == "embedding":
            gates = blocks
        else:  # what the map makes of the unit vectors
            basis = net.gate(needs_torch.eye(dim)[None])[1][0].detach().numpy()
            assert basis.T @ basis == pytest.approx(np.eye(experts), abs=1e-5)  # still orthonormal
            gates = basis
        expected = seen @ gates if kind == "dense" else _planted.cosine(seen, gates)
        assert affinity == pytest.approx(expected, abs=1e-5)
        detectors, offset = net.detectors.detach().numpy(), net.offset.detach().numpy()
        factor = 1.0 if kind == "dense" else scale
        for b in range(4):
            for i in range(experts):
                mine = sorted((t for t in range(5) if expected[b, t].argmax() == i), key=lambda t: -expected[b, t, i])[
                    :2
                ]
                total = sum(seen[b, t] @ detectors[:, i] / (1 + np.exp(-factor * expected[b, t, i])) for t in mine)
                assert found[b, i] == pytest.approx(total + offset[i], abs=1e-4)
        optimizer = needs_torch.optim.SGD(net.trained, lr=0.5)
        needs_torch.nn.functional.cross_entropy(logits, needs_torch.arange(4) % experts).backward()
        assert all(w.grad is not None and w.grad.abs().max() > 0 for w in net.trained)
        optimizer.step()


@pytest.fixture(scope="module")
def tiny():
    change = {"checkpoints": [0, 25], "samples": 60, "tokens": 8, "dim": 8, "capacity": 2, "batch": 4}
    return settings_of("planted_phases", full=True) | change


def test_every_arm_in_small(needs_torch, tiny):
    starts = {}
    for arm in planted_phases.arms(tiny):
        counts = train(arm, 1)
        value = of_run(counts, arm.per)
        for at in ("@0", "@25"):
            assert value[f"resonance {at}"] <= value[f"hit {at}"] + 1e-9
            for rule in RULES:
                assert all(1 <= value[f"{rule} C*{kind} {at}"] <= 8 for kind in ("", " law", " N11", " mixture"))
                assert 0 <= value[f"{rule} {at}"] <= 1
        assert value["hit mean"] == pytest.approx((value["hit @0"] + value["hit @25"]) / 2, abs=2e-4)
        routing = {name: v for name, v in value.items() if name.endswith("@0") and not name.startswith("accuracy")}
        key = (arm.parameters["gate"], arm.parameters["shared"], arm.parameters["mean"])
        assert starts.setdefault(key, routing) == routing  # arms that train by another rule start from the same place
        assert (value["resonance @25"], value["hit @25"]) != (value["resonance @0"], value["hit @0"])
    assert_repeats(arm, counts, 1)


@pytest.mark.parametrize("full", [False, True])
def test_comparisons_speak_of_what_is_measured(needs_torch, full):
    settings = settings_of("planted_phases", full=full)
    arms = {arm.label: arm for arm in planted_phases.arms(settings)}
    assert len(arms) == len(settings["arms"])
    short = {"tokens": 8, "dim": 8, "capacity": 2, "batch": 2, "samples": 30}
    checkpoints = settings["checkpoints"]
    counts = train(next(iter(arms.values())), 1, **short, checkpoints=[0, 20])
    names = {name.rpartition("/")[0].replace(" @20", f" @{checkpoints[-1]}") for name in counts}
    for row in settings["comparisons"]:
        assert {row["first"], row["second"]} <= set(arms)
        for name in (row["metric"], row.get("against", row["metric"])):
            base, _, step = name.rpartition(" @")
            assert name in names or (f"{base} @0" in names and int(step) in checkpoints)
