"""Thousands of random calls, most of them wrong: an answer in range, or one sentence that names the argument."""

import inspect
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import resonance_theory as rt
from resonance_theory import homogenization, step_time
from resonance_theory.homogenization import cells
from resonance_theory.rules import INDEPENDENT
from resonance_theory.tokens import evolving, gaussian

GOOD = {
    "tokens": st.integers(1, 300),
    "experts": st.integers(1, 40),
    "capacity": st.integers(1, 300),
    "top": st.integers(1, 4),
    "dim": st.integers(2, 300),
    "signal": st.floats(0, 6),
    "affinity": st.floats(-1, 1),
}
RATE = st.floats(0, 1)
JUNK = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(
        [
            None,
            "7",
            "",
            b"x",
            True,
            1j,
            [],
            [[1], [1, 2]],
            {},
            object(),
            np.array(3, dtype=object),
            np.datetime64("now"),
        ]
    ),
    st.lists(st.one_of(st.integers(-3, 9), st.floats(-1, 2)), max_size=4),
)

FIELDS = {
    rt.token_choice: ("experts", "top", "hit", "load"),
    rt.random_keep: ("experts", "top", "hit"),
    rt.expert_choice: ("false_positive",),
    rt.resonance: ("hit", "candidate_tail"),
    rt.Pooled(rt.token_choice, 3): ("experts", "top", "hit", "rival"),
    rt.Pooled(rt.resonance, 3): ("hit", "candidate_tail", "rival"),
}
VERBS = ("success", "log_success", "failure", "log_failure", "bounds", "kept", "drop_rate", "least_capacity")
OPTIONAL = {"top": 1, "hit": 1.0, "load": None}


def asked(rule, verb, fields, counts=INDEPENDENT):
    """A verb as a function of plain arguments: sizes, and the fields of its rates."""
    sizes = ("target", "tokens") if verb == "least_capacity" else ("tokens", "capacity")

    def call(**drawn):
        first = [drawn.pop(name) for name in sizes]
        return getattr(rule, verb)(*first, rt.Rates(**drawn, counts=counts))

    empty, kind = inspect.Parameter.empty, inspect.Parameter.KEYWORD_ONLY
    call.__signature__ = inspect.Signature(
        [inspect.Parameter(name, kind, default=OPTIONAL.get(name, empty)) for name in (*sizes, *fields)]
    )
    call.__name__, call.__module__ = verb, rule.name
    return call


def verbs(rule):
    """Those that the rule has: expert choice drops nothing, resonance alone does not know its load."""
    without = {"drop_rate"} if not rule.tokens_choose else set()
    if "candidate_tail" in FIELDS[rule]:
        without |= {"kept", "drop_rate"}
    return [verb for verb in VERBS if verb not in without and (verb != "bounds" or rule.kinds)]


GEOMETRY = [
    "cap",
    "log_cap",
    "cap_bound",
    "cap_quantile",
    "hit_rate",
    "miss_rate",
    "affinity_tail",
    "false_positive",
    "candidate_tail",
    "log_candidate_tail",
]
MODELS = (rt.Blocks(3), rt.BetaBinomial(0.1), rt.Documents(0.1, 3))
SCATTER = ("token_choice_scatter", "resonance_scatter", "kept_means", "expected_max", "simplex_norm")
TOKEN = gaussian.Gaussian((1.0, 2.0, 0.5), 3.0, 64)
FUNCTIONS = [
    *(asked(rule, verb, fields) for rule, fields in FIELDS.items() for verb in verbs(rule)),
    *(
        asked(rule, verb, ("experts", "top", "percentile"), model)
        for model in MODELS
        for rule in (rt.token_choice, rt.random_keep, rt.resonance)
        for verb in ("success", "drop_rate")
    ),
    *(getattr(rt.tokens, name) for name in GEOMETRY),
    *(getattr(homogenization, name) for name in SCATTER),
    *(getattr(TOKEN, name) for name in ("load", "false_positive", "candidate_tail")),
]
LOGS = {"log_success", "log_failure", "log_cap", "log_candidate_tail"}


def label(function):
    return f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}"


def arguments(function):
    """Random arguments of a function: each is sensible, or, one time in six, anything at all."""
    parameters = inspect.signature(function).parameters
    drawn = {}
    for name, parameter in parameters.items():
        sensible = GOOD.get(name, RATE)
        if name in ("kind", "nodes", "select", "sphere"):
            continue
        if parameter.default is not inspect.Parameter.empty:
            sensible = st.one_of(st.just(parameter.default), sensible if name != "weight" else st.just(None))
        drawn[name] = st.integers(0, 5).flatmap(lambda k, s=sensible: JUNK if k == 0 else s)
    return st.fixed_dictionaries(drawn)


def in_range(function, value):
    for part in value if isinstance(value, tuple) else (value,):
        number = np.asarray(part)
        assert not np.isnan(number).any()
        name = function.__name__
        if name in LOGS:
            assert (number <= 1e-15).all()
        elif name == "kept_means":
            assert (np.abs(number) < 40).all()  # of standard normals
        elif name in ("bounds", "kept", "least_capacity", *SCATTER):
            assert (number > -1e-15).all()
        elif name == "cap_quantile":
            assert (np.abs(number) <= 1).all()
        else:
            assert ((number >= 0) & (number <= 1)).all()


def fuzz(function, examples, check):
    """Random calls, each answered as `check` wants or refused in one sentence that names an argument."""
    outcomes = {"answer": 0, "refusal": 0}

    @settings(max_examples=examples, deadline=None)
    @given(arguments(function))
    def attempt(drawn):
        try:
            value = function(**drawn)
        except (TypeError, ValueError) as problem:
            text = str(problem)
            outcomes["refusal"] += 1
            assert "\n" not in text
            assert any(name in text for name in drawn), text
        else:
            outcomes["answer"] += 1
            check(function, value)

    attempt()
    assert min(outcomes.values()) > 0, f"the generator is one-sided: {outcomes}"


@pytest.mark.parametrize("function", FUNCTIONS, ids=label)
def test_an_answer_or_one_sentence(function):
    fuzz(function, 200, in_range)


FLOW = evolving.Evolving(dim=32, experts=3, signal=2.0, background=[[1.0, 0.0, -1.0, 0.5]])
MASS = (
    rt.tokens.affinity_mass.threshold,
    rt.tokens.affinity_mass.kept_fraction,
    rt.tokens.affinity_mass.success,
    FLOW.adaptive,
)
FEW = {
    "experts": st.integers(1, 6),
    "dim": st.integers(2, 40),
    "tokens": st.integers(1, 12),
    "time": st.sampled_from([0.0, 4.0]),
}


@pytest.mark.parametrize("function", MASS, ids=label)
def test_affinity_mass_answers_or_refuses(function, monkeypatch):
    for name, sensible in FEW.items():  # laws that take longer than a closed form
        monkeypatch.setitem(GOOD, name, sensible)

    def probabilities(_, value):
        for part in value if isinstance(value, tuple) else (value,):
            assert ((np.asarray(part) >= 0) & (np.asarray(part) <= 1 + 1e-12)).all()

    fuzz(function, 30, probabilities)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: rt.tokens.affinity_mass.threshold([0.1, 0.2], 8, [2, 3, 4]), "mass (2,), experts (3,)"),
        (lambda: rt.tokens.affinity_mass.success(0.5, [1.0, 2.0], [8, 9, 10], 2, tokens=4), "signal (2,), dim (3,)"),
        (lambda: rt.token_choice.success([10, 20], 3, rt.Rates(experts=[2, 4, 8])), "tokens (2,), experts (3,)"),
        (
            lambda: rt.Pooled(rt.token_choice, [1, 2]).success(9, 3, rt.Rates(experts=[2, 4, 8])),
            "samples (2,), experts (3,)",
        ),
        (lambda: rt.tokens.cap([], [2, 2]), "affinity (0,), dim (2,)"),
        (
            lambda: rt.token_choice.success([10, 20, 30], 3, rt.Rates(experts=8, counts=rt.Blocks([1, 2]))),
            "tokens (3,), length (2,)",
        ),
        (lambda: rt.Blocks([1, 2]).variance_ratio([10, 20, 30]), "tokens (3,), length (2,)"),
        (lambda: rt.resonance.kept([10, 20, 30], 3, rt.Rates(experts=[2, 4])), "tokens (3,), experts (2,)"),
        (
            lambda: rt.resonance.failure(9, [3, 4], rt.Rates(experts=8, percentile=[0.1, 0.2, 0.3])),
            "capacity (2,), percentile (3,)",
        ),
        (
            lambda: rt.token_choice.least_capacity(
                0.9, [10, 20, 30], rt.Rates(experts=8, counts=rt.BetaBinomial([0.1, 0.2]))
            ),
            "tokens (3,), correlation (2,)",
        ),
        (lambda: homogenization.token_choice_scatter([2, 3], [2, 2, 2]), "dim (2,), experts (3,)"),
        (lambda: homogenization.resonance_scatter([2, 3], 2, [0.1, 0.2, 0.3]), "dim (2,), kept (3,)"),
        (lambda: homogenization.kept_means(9, [2, 3], [0.1, 0.2, 0.3]), "experts (2,), kept (3,)"),
        (lambda: homogenization.load_cv_rms([1, 2, 3], [[0.5, 0.5]] * 2), "tokens (3,), share (2, 2)"),
        (lambda: evolving.moments([1, 2], [1, 2, 3], 1), "time (2,), rate (3,)"),
        (lambda: step_time.required_cut([0.1, 0.2], [0.1, 0.2, 0.3]), "reduction (2,), share (3,)"),
    ],
)
def test_shapes_that_do_not_broadcast_are_named(call, named):
    with pytest.raises(ValueError, match=f"^{re.escape(f'the shapes of {named} must broadcast together')}$"):
        call()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: TOKEN.load(top=[1, 2]), "top"),
        (lambda: TOKEN.candidate_tail(0.1, [0, 1]), "expert"),
        (lambda: gaussian.rates([TOKEN], [TOKEN], nodes=[64, 128]), "nodes"),
        (
            lambda: gaussian.sampled_rates(0.1, np.ones(40), np.eye(2, 40), np.random.default_rng(0), draws=[9, 9]),
            "draws",
        ),
        (lambda: cells.cells(np.eye(6), rng=np.random.default_rng(0), draws=[999, 999]), "draws"),
    ],
)
def test_single_numbers_are_single(call, name):
    with pytest.raises(ValueError, match=rf"^{name} = .* must be one whole number$"):
        call()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.floats(0, 1), st.data())
def test_rates_and_their_complements(tokens, experts, rate, data):
    """For every sensible setting: success + failure = 1, logarithms agree, and each rule's bounds contain its rate."""
    capacity = data.draw(st.integers(1, tokens))
    for rule, rates in (
        (rt.token_choice, rt.Rates(experts=experts, hit=rate)),
        (rt.expert_choice, rt.Rates(false_positive=rate)),
        (rt.resonance, rt.Rates(hit=0.75, candidate_tail=rate)),
    ):
        good = float(rule.success(tokens, capacity, rates))
        bad = float(rule.failure(tokens, capacity, rates))
        assert good + bad == pytest.approx(1, abs=1e-13)
        for value, log in ((good, rule.log_success), (bad, rule.log_failure)):
            exponent = float(log(tokens, capacity, rates))
            assert math.exp(exponent) == pytest.approx(value, rel=1e-13)
