"""Homogenization at scale: token vectors of up to 8192 features, routed among up to 256 experts on any device.

A trial is one token, through the real gates, by its cosine with the gate of its own expert ("winning") or with all
others together ("losing"), 0 unless that cosine is among the top fraction f; or two tokens of one expert by their cosine
("pair"), whose mean is the squared norm of the expert's centroid. Each number becomes a coin. In `homogenization`
tokens of that size are affinities drawn by their law; here the features themselves are drawn and read.

Wrong laws that the same numbers must reject: √d in place of E R; kept at random; no common direction; centroids without
their losing components.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import array_api_compat
import numpy as np

from resonance_theory import homogenization
from resonance_theory.evidence.studies.study import Case
from resonance_theory.gates import affinity
from resonance_theory.rules import token_choice
from simulations import _coins
from simulations._sampling import BACKENDS, chunks, draw

__all__ = ["BACKENDS", "cases", "pairs", "tokens"]

_CHUNK = {"cpu": 1 << 23, "cuda": 1 << 29}  # features drawn at a time
DEVIATIONS = 6  # of a cosine; what that clips is rarer than 1e-6 even for 256 gates
_heads = partial(_coins.heads, deviations=DEVIATIONS)


def _toss(integers: Any, cosine: Any, dim: int) -> int:
    """Heads among coins of probability (1 + cosine/scale)/2, to 2^-24."""
    xp = array_api_compat.array_namespace(cosine)
    uniform = xp.astype(integers(1 << 24, cosine.shape[0]), cosine.dtype) * 2.0**-23 - 1
    return int(xp.count_nonzero(uniform < xp.clip(cosine / _coins.scale(dim, DEVIATIONS), -1.0, 1.0)))


def _routed(normal: Any, count: int, dim: int, experts: int) -> tuple[Any, Any, Any]:
    """Isotropic tokens, their affinities, and the assignment that keeps all, by expert."""
    x = normal((count, dim))
    scores = affinity(x, experts)
    return x, scores, token_choice.route(scores, count)


def tokens(
    rng: np.random.Generator,
    trials: int,
    *,
    dim: int,
    experts: int,
    thresholds: dict[str, float],
    backend: str = "numpy",
    device: str = "cpu",
) -> dict[str, int]:
    """Winning and losing cosines of independent tokens, 0 below each threshold of the winning one."""
    normal, integers, _ = draw(backend, device, int(rng.integers(2**63)))
    counts = Counter[str]()
    for count in chunks(trials, dim, _CHUNK[device]):
        _, scores, routed = _routed(normal, count, dim, experts)
        counts.update(
            _coins.winning_and_losing(scores, routed, thresholds, lambda cosine: _toss(integers, cosine, dim))
        )
    return dict(counts)


def pairs(
    rng: np.random.Generator,
    trials: int,
    *,
    dim: int,
    experts: int,
    pairs_per_sample: int,
    backend: str = "numpy",
    device: str = "cpu",
) -> dict[str, int]:
    """Cosines of neighbours in the order by expert, 0 where the neighbours have different experts."""
    if trials % pairs_per_sample:
        raise ValueError(f"{trials} pairs in a block must be a multiple of pairs_per_sample = {pairs_per_sample}")
    normal, integers, _ = draw(backend, device, int(rng.integers(2**63)))
    count = 0
    for _ in range(trials // pairs_per_sample):
        x, _, routed = _routed(normal, 2 * pairs_per_sample, dim, experts)
        xp = array_api_compat.array_namespace(x)
        first, second = x[routed.token[0::2], :], x[routed.token[1::2], :]
        length = xp.sqrt(xp.sum(first * first, axis=1) * xp.sum(second * second, axis=1))
        cosine = xp.sum(first * second, axis=1) / length
        same = routed.expert[0::2] == routed.expert[1::2]
        count += _toss(integers, xp.where(same, cosine, xp.zeros_like(cosine)), dim)
    return {"pair": count}


def _split(count: int, experts: int) -> float:
    """Share of the pairs of neighbours, of `count` tokens in the order by expert, that two experts share.

    The first i experts have a binomial number of tokens, and split a pair where it is odd; experts without tokens, which
    would split one pair twice, are rarer than 1e-5.
    """
    below = np.arange(1, experts) / experts
    return float(((1 - (1 - 2 * below) ** count) / 2).sum() / (count / 2))


def _token_case(d: int, n: int, fractions: list[float]) -> Case:
    thresholds, right = _coins.laws(d, n, fractions, DEVIATIONS)
    mean = float(homogenization.kept_means(d, n, 1.0, select="cosine")[0])
    by_root = float(homogenization.expected_max(n)) / math.sqrt(d)
    wrong = {
        "√d in place of E R": {f"winning f={f:g}": _heads(by_root, d) for f in fractions if f == 1},
        "kept at random": {f"winning f={f:g}": _heads(f * mean, d) for f in fractions if f < 1},
    }
    return Case(f"n={n} d={d}", tokens, {"dim": d, "experts": n, "thresholds": thresholds}, right, wrong)


def _pair_case(d: int, n: int, pairs_per_sample: int) -> Case:
    winner = float(homogenization.kept_means(d, n, 1.0, select="cosine")[0])
    whole = 1 - _split(2 * pairs_per_sample, n)
    wrong = {
        "no common direction": {"pair": 0.5},
        "centroids without losing components": {"pair": _heads(whole * winner**2, d)},
    }
    parameters = {"dim": d, "experts": n, "pairs_per_sample": pairs_per_sample}
    right = {"pair": _heads(whole * winner**2 * n / (n - 1), d)}  # B/(E R)²
    return Case(f"n={n} d={d} pairs", pairs, parameters, right, wrong)


def cases(settings: dict[str, Any]) -> list[Case]:
    result = []
    for row in settings["grid"]:
        result.append(_token_case(row["dim"], row["experts"], row["kept"]))
        result.append(_pair_case(row["dim"], row["experts"], settings["pairs_per_sample"]))
    return result
