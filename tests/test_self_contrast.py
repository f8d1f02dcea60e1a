"""Self-contrast: NumPy and torch alike, its switch, masks, odd logits, and generation."""

import numpy as np
import pytest

from resonance_theory.systems.self_contrast import SelfContrast, contrast_logits, switching_strength


def test_torch_and_numpy_agree():
    torch = pytest.importorskip("torch")
    strong, weak = np.random.default_rng(0).normal(size=(2, 5, 9))
    for function in (contrast_logits, switching_strength):
        told = function(torch.from_numpy(strong), torch.from_numpy(weak))
        assert isinstance(told, torch.Tensor)
        assert np.allclose(told.numpy(), function(strong, weak), rtol=1e-14)


def test_the_argmax_changes_at_the_strength_and_not_before():
    strong, weak = np.random.default_rng(1).normal(size=(2, 200, 12))
    strength = switching_strength(strong, weak)
    assert np.isinf(strength).any()
    assert np.isfinite(strength).any()
    for row in range(200):
        first = strong[row].argmax()
        for beta in (0.0, 0.5, 3.0):
            moved = contrast_logits(strong[row], weak[row], beta).argmax() != first
            assert moved == (beta > strength[row])


def test_alpha_masks_and_strength_zero_keeps_the_rest():
    strong, weak = np.array([0.0, np.log(0.5), np.log(0.05), -np.inf]), np.array([1.0, 2.0, 3.0, -np.inf])
    assert np.isfinite(contrast_logits(strong, weak, alpha=0.1)).tolist() == [True, True, False, False]
    kept = contrast_logits(strong, weak, 0.0, 1e-3)
    assert kept[:3].tolist() == strong[:3].tolist()
    assert contrast_logits(strong, weak, 5.0, 1.0).tolist()[0] == -5.0  # only the best is allowed


def test_a_processor_is_called_as_generation_calls_it():
    calls = []

    def weak(ids):
        calls.append(ids.shape)
        return np.array([[2.0, 0.5], [0.0, 0.0]])

    told = SelfContrast(weak, beta=1.0)(np.zeros((2, 7), dtype=int), np.array([[2.0, 1.5], [1.0, 0.0]]))
    assert calls == [(2, 7)]
    assert told.argmax(axis=-1).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (([1.0, 2.0], np.ones(2)), TypeError, "strong is a list but must be an array of logits"),
        ((np.ones(2), np.ones(3)), ValueError, r"strong has shape \(2,\) and weak \(3,\)"),
        ((np.ones(0), np.ones(0)), ValueError, "must have one shape"),
        ((np.ones(2, int), np.ones(2, int)), TypeError, "strong has dtype int64"),
        ((np.array([np.nan, 1]), np.ones(2)), ValueError, r"strong holds NaN or \+inf"),
        ((np.ones(2), np.array([np.inf, 1])), ValueError, r"weak holds NaN or \+inf"),
        ((np.ones(2), np.array([-np.inf, 1.0])), ValueError, "weak holds -inf"),
        ((np.ones(2), np.ones(2), -0.1), ValueError, "beta = -0.1"),
        ((np.ones(2), np.ones(2), 0.5, 0.0), ValueError, "alpha = 0"),
    ],
)
def test_wrong_logits_are_named(arguments, error, said):
    with pytest.raises(error, match=said):
        contrast_logits(*arguments)


def test_rows_that_rule_out_everything_and_single_tokens():
    nothing = np.full((2, 3), -np.inf)
    assert np.isneginf(contrast_logits(nothing, np.zeros((2, 3)))).all()
    assert np.isinf(switching_strength(nothing, np.zeros((2, 3)))).all()
    assert switching_strength(np.zeros((4, 1)), np.ones((4, 1))).tolist() == [np.inf] * 4
    assert contrast_logits(np.float32([3e38, 0]), np.float32([0, 0]), 0.1).dtype == np.float32
    with pytest.raises(ValueError, match="weak holds -inf"):
        contrast_logits(np.ones(2), np.array([-np.inf, 1.0]), 0.0)


def test_what_cannot_be_called_is_named():
    with pytest.raises(TypeError, match="weak is a int but must be callable"):
        SelfContrast(3)
