"""Homogenization: how far routing pulls the experts' tokens apart, through the real router, against the closed forms.

A trial is one token of a sample, seen through a bounded number that becomes a coin (`proofs._isotropic`): its cosine with
the gate of the expert that kept it ("winning") or with others ("losing"), 0 if it was dropped; or the cosine of
two tokens at one expert ("pair", whose mean is the centroid's squared norm over n). Laws: for token choice the closed
form times the share that a capacity keeps; for resonance E[δ 1(kept)] over the exact law of a candidate's affinity.
At scale, up to d = 8192 and 256 experts, the tokens are affinities drawn at a cost free of d, and the top fraction f of
candidates is kept by a threshold.

Wrong laws that the same numbers must reject: losing gates at -e/n; √d in place of E R; kept at random; a fixed threshold
in place of a finite sample's best; centroids without their losing components; selection by inner product.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from proofs._isotropic import coin
from resonance_theory import homogenization
from resonance_theory.evidence.studies.study import Case
from resonance_theory.gates import affinity
from resonance_theory.rules import resonance, token_choice
from resonance_theory.rules.select import Assignment
from resonance_theory.tokens import Rates, samplers
from simulations import _coins
from simulations._sampling import chunks

_CHUNK = 1 << 20  # numbers drawn at a time
DEVIATIONS = 8  # of a cosine; what that clips is rarer than 1e-11 even for 256 gates
_heads = partial(_coins.heads, deviations=DEVIATIONS)


def _toss(rng: np.random.Generator, cosine: np.ndarray, dim: int) -> int:
    return coin(rng, np.clip(cosine / _coins.scale(dim, DEVIATIONS), -1, 1))


def _kept(routed: Assignment, position: np.ndarray, experts: int) -> np.ndarray:
    """Expert that kept the token at each sample's position, or `experts` if none did."""
    found = np.full(len(position), experts)
    assert routed.sample is not None  # scores come as samples
    mine = routed.token == position[routed.sample]
    found[routed.sample[mine]] = routed.expert[mine]
    return found


def routed(
    rng: np.random.Generator, trials: int, *, sampler: str, tokens: int, dim: int, experts: int, capacities: list[int]
) -> dict[str, int]:
    """One token of each sample, at a random position, by rule and capacity; pairs only where there are vectors."""
    s, counts = tokens, dict[str, int]()

    def add(key: str, cosine: np.ndarray) -> None:
        counts[key] = counts.get(key, 0) + _toss(rng, cosine, dim)

    for count in chunks(trials, s * (dim if sampler == "vectors" else experts), _CHUNK):
        if sampler == "vectors":
            x = samplers.isotropic(rng, count, s, dim)
            scores = affinity(x, experts)
        else:
            scores = samplers.isotropic_affinity(rng, count, s, dim, experts)
        rows = np.arange(count)
        position = rng.integers(s, size=count)
        mine = np.concatenate([scores[rows, position], np.zeros((count, 1))], axis=1)  # no expert: cosine 0
        for capacity in capacities:
            for rule, of in (("token choice", token_choice), ("resonance", resonance)):
                expert = _kept(of.route(scores, capacity), position, experts)
                add(f"{rule} C={capacity} winning", mine[rows, expert])
                if rule == "token choice":
                    other = np.where(expert < experts, (expert + rng.integers(1, experts, count)) % experts, experts)
                    add(f"{rule} C={capacity} losing", mine[rows, other])
        if sampler == "vectors":
            unit = x[:, :2] / np.linalg.norm(x[:, :2], axis=-1, keepdims=True)
            whole = token_choice.route(scores, s)
            first, second = (_kept(whole, np.full(count, k), experts) for k in (0, 1))
            cosine = np.vecdot(unit[:, 0], unit[:, 1])
            counts["pair"] = counts.get("pair", 0) + coin(rng, np.where(first == second, cosine, 0.0))
    return counts


def scaled(
    rng: np.random.Generator, trials: int, *, dim: int, experts: int, thresholds: dict[str, float]
) -> dict[str, int]:
    """Independent tokens: all of them, and the candidates above each threshold of affinity."""
    counts = Counter[str]()
    for count in chunks(trials, experts, _CHUNK):
        scores = samplers.isotropic_affinity(rng, 1, count, dim, experts)[0]
        routed = token_choice.route(scores, count)
        counts.update(_coins.winning_and_losing(scores, routed, thresholds, lambda cosine: _toss(rng, cosine, dim)))
    return dict(counts)


def _routed_laws(s: int, d: int, n: int, capacities: list[int], vectors: bool) -> tuple[dict, dict]:
    e = float(homogenization.expected_max(n))
    radius = e / float(homogenization.kept_means(d, n, 1.0, select="cosine")[0])
    winner = e / radius
    background = Rates.planted(0.0, d, n)  # a token that bears no class
    right: dict[str, float] = {}
    wrong: dict[str, dict[str, float]] = {
        name: {}
        for name in ("losing gates at -e/n", "√d in place of E R", "resonance keeps at random", "a fixed threshold")
    }
    for c in capacities:
        kept = float(token_choice.success(s, c, Rates(experts=n)))
        place = resonance.success(s, c, Rates(candidate_tail=background.tail))
        best = n * float(background.mean(background.rate("affinity") * background.rate("hit") * place))
        fraction = min(1.0, c * n / s)
        fixed = fraction * float(homogenization.kept_means(d, n, fraction, select="cosine")[0])
        winning, losing, resonant = (
            f"token choice C={c} winning",
            f"token choice C={c} losing",
            f"resonance C={c} winning",
        )
        right |= {
            winning: _heads(kept * winner, d),
            losing: _heads(-kept * winner / (n - 1), d),
            resonant: _heads(best, d),
        }
        wrong["losing gates at -e/n"][losing] = _heads(-kept * winner / n, d)
        wrong["√d in place of E R"][winning] = _heads(kept * e / math.sqrt(d), d)
        wrong["resonance keeps at random"][resonant] = _heads(kept * winner, d)
        wrong["a fixed threshold"][resonant] = _heads(fixed, d)
    if vectors:
        right["pair"] = (1 + winner**2 / (n - 1)) / 2  # B/(E R)²/n
        wrong["centroids without losing components"] = {"pair": (1 + winner**2 / n) / 2}
    return right, wrong


def cases(settings: dict[str, Any]) -> list[Case]:
    result = []
    for row in settings.get("grid", []):
        s, d, n, capacities = row["tokens"], row["dim"], row["experts"], row["capacities"]
        for sampler in row["samplers"]:
            parameters = {"sampler": sampler, "tokens": s, "dim": d, "experts": n, "capacities": capacities}
            right, wrong = _routed_laws(s, d, n, capacities, sampler == "vectors")
            result.append(Case(f"s={s} n={n} d={d} {sampler}", routed, parameters, right, wrong))
    for row in settings.get("scale", []):
        d, n = row["dim"], row["experts"]
        thresholds, right = _coins.laws(d, n, row["kept"], DEVIATIONS)
        inner = {f: float(homogenization.kept_means(d, n, f, select="inner")[0]) / math.sqrt(d) for f in row["kept"]}
        wrong = {f"winning f={f:g}": _heads(f * mean, d) for f, mean in inner.items() if f < 1}
        parameters = {"dim": d, "experts": n, "thresholds": thresholds}
        label = f"n={n} d={d} scale"
        result.append(Case(label, scaled, parameters, right, {"selection by inner product": wrong}))
    return result
