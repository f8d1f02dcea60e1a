"""Pruning of second experts by hand, and refusals."""

import numpy as np
import pytest

from resonance_theory import systems


def weights(count, seed=0):
    logits = -np.sort(-np.random.default_rng(seed).normal(size=(count, 8)), axis=1)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return p[:, 0], p[:, 1]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("tokens", [1, 2, 7, 1000])
def test_a_threshold_prunes_its_share(share, tokens):
    first, second = weights(tokens)
    mu = systems.pruning_threshold(first, second, share)
    assert systems.prune_second(first, second, mu).sum() == int(share * tokens)


def test_protected_tokens_keep_both():
    first, second = weights(200)
    importance = np.arange(200.0)
    safe = systems.protected_tokens(importance, 0.02)
    assert np.flatnonzero(safe).tolist() == [196, 197, 198, 199]
    pruned = systems.prune_second(first, second, 10.0, safe)
    assert pruned.sum() == 196
    assert not pruned[safe].any()


def test_importance_by_a_loop():
    rng = np.random.default_rng(1)
    attention = np.tril(rng.random((9, 9)))
    attention /= attention.sum(axis=1, keepdims=True)
    norms = rng.random(9)
    wanted = [norms[j] * sum(attention[i, j] for i in range(j, 9)) / (9 - j) for j in range(9)]
    np.testing.assert_allclose(systems.token_importance(norms, attention), wanted, rtol=1e-12)


def test_protection_with_ties_and_ends():
    assert systems.protected_tokens([1.0, 1.0, 1.0], 1 / 3).tolist() == [True, False, False]
    assert systems.protected_tokens([1.0, 2.0], 0.0).sum() == 0
    assert systems.protected_tokens([1.0, 2.0], 1.0).all()
    assert systems.protected_tokens(np.arange(100), 0.07).sum() == 7  # 0.07 * 100 is above 7 in floating point


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: systems.prune_second([0.5], [0.6], 0.5), "second exceeds first"),
        (lambda: systems.prune_second([0.0], [0.0], 0.5), "first"),
        (lambda: systems.prune_second([0.5], [0.4, 0.1], 0.5), "shapes"),
        (lambda: systems.prune_second([0.5], [0.4], np.nan), "threshold"),
        (lambda: systems.prune_second([0.5], [0.4], 0.5, [1]), "protected is of int64"),
        (lambda: systems.pruning_threshold([], []), "shapes"),
        (lambda: systems.pruning_threshold([0.5], [0.4], 1.5), "share = 1.5"),
        (lambda: systems.token_importance([1.0], [[1.0, 0.0]]), "shapes"),
        (lambda: systems.token_importance([-1.0], [[1.0]]), "norms"),
        (lambda: systems.protected_tokens([[1.0]]), "importance has shape"),
        (lambda: systems.protected_tokens([np.nan]), "importance"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
