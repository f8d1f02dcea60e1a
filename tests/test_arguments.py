"""Argument checks: the right kind of error, one sentence that names argument, value and range."""

import numpy as np
import pytest

from resonance_theory import _arguments as arguments


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: arguments.integer("tokens", 0, 1), ValueError, "tokens = 0 must be a whole number of at least 1"),
        (lambda: arguments.integer("tokens", 2.5, 1), TypeError, "tokens = 2.5 must be a whole number"),
        (lambda: arguments.integer("tokens", True, 1), TypeError, "tokens = True must be"),
        (lambda: arguments.integer("tokens", "8", 1), TypeError, "tokens = '8' must be"),
        (lambda: arguments.integer("tokens", [1, [2]], 1), TypeError, "tokens = [1, [2]] must be"),
        (lambda: arguments.integer("tokens", None, 1), TypeError, "tokens = None must be"),
        (lambda: arguments.integer("tokens", np.uint64(2**63 + 5), 1), ValueError, "below 2^63"),
        (lambda: arguments.integer("capacity", 9, 1, 8, "tokens"), ValueError, "between 1 and tokens = 8"),
        (lambda: arguments.integer("capacity", [3, 9], 1, [8, 8], "tokens"), ValueError, "capacity[1] = 9"),
        (lambda: arguments.probability("hit", -0.1), ValueError, "hit = -0.1 must be a finite number in [0, 1]"),
        (lambda: arguments.probability("hit", np.nan), ValueError, "hit = nan must be"),
        (lambda: arguments.probability("hit", [[0.5], [1.5]]), ValueError, "hit[1, 0] = 1.5"),
        (lambda: arguments.probability("hit", np.array([object()])), TypeError, "must be a finite number"),
        (lambda: arguments.real("alpha", 0.0, 0, 1, open_low=True), ValueError, "in (0, 1]"),
        (lambda: arguments.real("alpha", 1.0, 0, 1, open_high=True), ValueError, "in [0, 1)"),
        (lambda: arguments.real("alpha", np.inf), ValueError, "in (-inf, inf)"),
        (lambda: arguments.distribution("weight", 1.0), ValueError, "at least one axis"),
        (lambda: arguments.distribution("weight", [0.5, 0.4]), ValueError, "sums to 0.9"),
        (lambda: arguments.distribution("weight", []), ValueError, "must sum to 1"),
        (lambda: arguments.distribution("weight", [1.5, -0.5]), ValueError, "weight[1] = -0.5"),
        (lambda: arguments.choice("rule", "x", ("a", "b")), ValueError, "rule = 'x' must be one of a, b"),
        (lambda: arguments.choice("rule", 3, ("a", "b")), TypeError, "rule = 3 must be one of a, b"),
    ],
)
def test_message(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_pass_through():
    assert arguments.integer("n", np.uint8([1, 2]), 1).dtype == np.int64
    assert arguments.integer("n", 3, 1, [3, 4]).tolist() == 3
    assert arguments.real("x", [1, 2]).tolist() == [1.0, 2.0]
    assert arguments.distribution("w", [[0.25, 0.75], [1, 0]]).shape == (2, 2)
    assert arguments.choice("rule", "a", ("a",)) == "a"
