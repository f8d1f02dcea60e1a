"""Faults of one kind, over every public function where the kind can occur: integer types, scales, wrong objects, huge sizes."""

import dataclasses

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory import homogenization, step_time
from resonance_theory.homogenization import cells
from resonance_theory.tokens import affinity_mass, evolving, gaussian, samplers

RNG = np.random.default_rng
WHOLE = {
    "token choice": lambda i: rt.token_choice.success(i(100), i(20), rt.Rates(experts=i(8), top=i(2))),
    "kept": lambda i: rt.token_choice.kept(i(100), i(20), rt.Rates(experts=i(8), top=i(2))),
    "bounds": lambda i: [
        rt.expert_choice.bounds(i(100), i(20), rt.Rates(false_positive=0.1), kind=k) for k in rt.expert_choice.kinds
    ],
    "least capacity": lambda i: rt.resonance.least_capacity(0.9, i(100), rt.Rates(candidate_tail=0.1)),
    "blocks": lambda i: rt.resonance.success(
        i(100), i(20), rt.Rates(experts=i(8), percentile=0.4, counts=rt.Blocks(i(7)))
    ),
    "documents": lambda i: [
        rt.token_choice.success(i(100), i(20), rt.Rates(experts=i(8), counts=rt.Documents(0.1, i(7)))),
        rt.Documents(0.1, i(7)).variance_ratio(i(100)),
    ],
    "pooled": lambda i: rt.Pooled(rt.token_choice, i(100)).success(i(100), i(20), rt.Rates(experts=i(8))),
    "variance ratio": lambda i: [rt.Blocks(i(50)).variance_ratio(i(100)), rt.BetaBinomial(0.3).variance_ratio(i(100))],
    "cap": lambda i: [rt.tokens.cap(0.2, i(100)), rt.tokens.log_cap(0.2, i(100)), rt.tokens.cap_bound(0.2, i(100))],
    "hit rate": lambda i: [rt.tokens.hit_rate(1.0, i(100), top=i(3)), rt.tokens.miss_rate(1.0, i(100), top=i(3))],
    "affinity": lambda i: [rt.tokens.affinity_tail(0.2, 1.5, i(100)), rt.tokens.false_positive(1.5, i(100))],
    "candidates": lambda i: [rt.tokens.candidate_tail(0.2, i(100), i(50)), rt.tokens.percentile(0.2, i(100), i(50))],
    "waiting tokens": lambda i: [
        rt.tokens.waiting_tokens(0.2, i(100), i(10)),
        rt.tokens.waiting_tokens(0.2, i(100), i(10), target=0.9),
    ],
    "planted": lambda i: rt.Rates.planted(2.0, i(100), i(10), top=i(2), nodes=i(100)).hit_rate,
    "affinity mass": lambda i: affinity_mass.kept_fraction(0.8, i(64), i(8), tokens=i(100)),
    "evolving": lambda i: rt.tokens.Evolving(i(100), i(10), 2.0).rates(1.0).hit_rate,
    "planted tokens": lambda i: rt.tokens.Planted(2.0, i(64), i(8)).affinity(RNG(0), i(3), i(100)).values,
    "dependent tokens": lambda i: rt.tokens.Dependent(2.0, i(64), i(8), length=i(5)).affinity(RNG(0), i(3), 100).values,
    "scatter": lambda i: homogenization.resonance_scatter(i(100), i(10), 0.3),
    "expected maximum": lambda i: homogenization.expected_max(i(100)),
    "loads": lambda i: [
        f(np.array([100, 100, 27], dtype=type(i(1))))
        for f in (homogenization.load_gini, homogenization.dispatch_entropy, homogenization.load_cv)
    ],
    "gates": lambda i: rt.grap_gates(i(100), i(10)),
    "plan": lambda i: rt.plan("token_choice", i(100), 0.9, rt.Rates(experts=i(8))).capacity_factor,
    "devices": lambda i: step_time.Shape(i(8), i(8), i(4)).devices,
    "step time": lambda i: step_time.step_time(
        0.5, step_time.SHAPES[32], model=step_time.Model(dim=i(100), hidden=i(127), key_value_dim=i(90), tokens=i(120))
    ),
}


def flat(value):
    if dataclasses.is_dataclass(value):
        value = dataclasses.astuple(value)
    if isinstance(value, tuple | list):
        return np.concatenate([flat(part) for part in value])
    return np.ravel(np.asarray(value, dtype=float))


@pytest.mark.parametrize("name", WHOLE)
def test_results_do_not_depend_on_the_integer_type(name):
    wanted = flat(WHOLE[name](int))
    for kind in (np.int8, np.uint8, np.int16, np.int32, np.int64):
        np.testing.assert_array_equal(flat(WHOLE[name](kind)), wanted, kind.__name__)


@pytest.mark.parametrize("scale", [1e-300, 1e-90, 1e90, 1e300])
def test_measures_of_ratios_are_free_of_scale(scale):
    load, table = np.array([3.0, 2.0, 1.0]), np.array([[3.0, 1.0], [1.0, 2.0]])
    for measure in (homogenization.load_cv, homogenization.load_gini, homogenization.dispatch_entropy):
        assert measure(load * scale) == pytest.approx(float(measure(load)), rel=1e-14)
    information = homogenization.dispatch_information(table)
    assert homogenization.dispatch_information(table * scale) == pytest.approx(information, rel=1e-13)
    a, b, labels = RNG(0).normal(size=(20, 3)), RNG(1).normal(size=(20, 4)), np.arange(20) % 3
    assert homogenization.linear_cka(a * scale, b) == pytest.approx(homogenization.linear_cka(a, b), rel=1e-12)
    cosines = homogenization.centroid_cosines(a * scale, labels)
    np.testing.assert_allclose(cosines, homogenization.centroid_cosines(a, labels), atol=1e-12)
    assert cells.orthant(np.array([[1.0, 0.0], [1.0, 1.0]]) * scale) == pytest.approx(0.375, abs=1e-14)


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no")


ODD = [
    (lambda: rt.token_choice.success(Unshowable(), 3, rt.Rates(experts=2)), TypeError, "tokens = a Unshowable that"),
    (lambda: rt.token_choice.success(10**5000, 3, rt.Rates(experts=2)), ValueError, "tokens = a int that cannot be"),
    (lambda: rt.token_choice.success(np.ma.masked_array([9], [True]), 1, rt.Rates(experts=2)), TypeError, "masked"),
    (lambda: rt.token_choice.success(9, 3, {"experts": 2}), TypeError, "rates is a dict but must be Rates"),
    (lambda: rt.Rates(experts=2, hit=None), TypeError, "hit = None must be a finite number"),
    (lambda: rt.Rates(experts=2, counts=3), TypeError, "counts is a int but must be Blocks"),
    (lambda: rt.Rates(candidate_tail=0.1, percentile=0.1), ValueError, "give one of them"),
    (lambda: rt.resonance.success(9, 3, rt.Rates(experts=2)), ValueError, "rates.candidate_tail is not known"),
    (lambda: rt.token_choice.success(9, 3, rt.Rates()), ValueError, "rates.experts or rates.load must be given"),
    (lambda: rt.expert_choice.drop_rate(9, 3, rt.Rates(false_positive=0.1)), ValueError, "has no drop rate"),
    (lambda: rt.adaptive.success(9, 0.8, rt.Rates(experts=2)), ValueError, "rates.candidates is not known"),
    (lambda: rt.random_keep.route(np.ones((4, 2)), 1), TypeError, "rng is a NoneType"),
    (lambda: rt.Pooled(rt.expert_choice, 2), ValueError, "must be token_choice or resonance"),
    (lambda: rt.grap_gates(2**61 - 1, 2), ValueError, "is not divisible by experts = 2"),
    (lambda: rt.grap_gates(8, 2, xp=3), TypeError, "xp is a int but must be an array library"),
    (lambda: rt.tokens.Evolving(64, 8, [2.0, 3.0]), ValueError, "signal = .* must be one number"),
    (lambda: rt.tokens.rival(0.2, [2.0, 3.0], 64, 8), ValueError, "signal = .* must be one number"),
    (lambda: rt.tokens.hit_rate(np.longdouble("1e4000"), 3), ValueError, "signal = inf must be a finite number"),
    (lambda: gaussian.rates(1, 1), TypeError, "discriminative and background must be sequences"),
    (lambda: evolving.transition(None, np.ones(3), np.zeros(3), 1.0, rate=1, noise=1), TypeError, "rng is a NoneType"),
    (lambda: homogenization.linear_cka([[1.0]], [[2.0]]), TypeError, "a is a list but must be an array of numbers"),
    (lambda: homogenization.calinski_harabasz(object(), [0]), TypeError, "x is a object but must be an array"),
    (lambda: samplers.isotropic(RNG(0), 2**40, 2**40, 2), ValueError, "must ask for at most 2"),
    (
        lambda: rt.token_choice.success(2**52, 5, rt.Rates(experts=2, counts=rt.BetaBinomial(0.1))),
        ValueError,
        "too many",
    ),
    (
        lambda: rt.resonance.success(2**52, 5, rt.Rates(experts=2, percentile=0.5, counts=rt.Blocks(3))),
        ValueError,
        "too many",
    ),
    (
        lambda: rt.plan("resonance", 10**7, 0.5, rt.Rates(experts=8, percentile=0.4, counts=rt.BetaBinomial(0.1))),
        ValueError,
        "tokens = 10000000 is too many .* give at most about 131072",
    ),
    (
        lambda: rt.plan("resonance", 10**9, 0.5, rt.Rates.planted(2.5, 64, 8).replace(counts=rt.Blocks(10))),
        ValueError,
        "on the nodes of an affinity: the answer would take minutes",
    ),
]


@pytest.mark.parametrize(("call", "kind", "words"), ODD)
def test_what_cannot_be_answered_is_one_sentence(call, kind, words):
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_extreme_values_warn_of_nothing():
    """RuntimeWarnings are errors in these tests."""
    assert rt.token_choice.success(10, 3, rt.Rates(experts=2, counts=rt.BetaBinomial(5e-324))) > 0
    assert rt.token_choice.success(10, 3, rt.Rates(experts=2, hit=np.longdouble("1e-4000"))) == 0
    assert step_time.required_share(0.5, 5e-324) == np.inf
    assert rt.resonance.log_failure(5, 1, rt.Rates(hit=1 - 2**-53, candidate_tail=1.0)) <= 0


@pytest.mark.parametrize("rule", ["resonance", "adaptive"])
def test_plans_show_draw_and_tabulate_themselves(rule):
    pytest.importorskip("matplotlib")
    answer = rt.plan(rule, 64, 0.6, rt.Rates.planted(2.5, 64, 8))
    assert len(repr(answer)) < 100
    assert str(answer) == answer.table()
    assert answer.table().splitlines()[0] in answer._repr_html_()
    assert answer.plot().get_xlabel()
    assert answer.rows()[0]["target"] == 0.6
    assert set(answer.to_json()) == {"format", "provenance", *answer.fields()}


def test_losses_refuse_what_is_no_distribution():
    torch = pytest.importorskip("torch")
    from resonance_theory import losses

    half, chosen = torch.full((4, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    for current, target in (
        ([float("nan"), 1.0], [0.5, 0.5]),
        ([0.5, 0.5], [float("nan"), 1.0]),
        ([2.0, -1.0], [0.5, 0.5]),
    ):
        with pytest.raises(ValueError, match="must be a distribution over the experts"):
            losses.locality(torch.tensor(current), torch.tensor(target))
    for bad in (float("nan"), -1.0):
        with pytest.raises(ValueError, match="probability holds a negative number or NaN"):
            losses.load_balance(torch.tensor([[bad, 1.0]]), chosen[:1])
    with pytest.raises(ValueError, match="mask must hold booleans"):
        losses.load_balance(half, chosen, mask=torch.tensor([5, -1, 0, 0]))
    with pytest.raises(TypeError, match="must be an array"):
        losses.load_balance(object(), chosen)
