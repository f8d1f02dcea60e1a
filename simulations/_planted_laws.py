"""What single tokens, and counts over whole samples, predict of the three rules; and what the rules then do.

`predict` looks at one set of samples, token by token: for each class the hit rate and the planted affinity's law given a
hit (`NODES` quantiles), and how many of a sample's background tokens reach each of these affinities. The mean of those
counts is the tail h (for expert choice q, for token choice the share π) of the binomial laws. Their variance gives the
beta-binomial repair for dependent tokens (claim: dependent_counts), their whole distribution the exact mixture over
whatever a sample's tokens share, as the planted token is independent of them.

`observe` ranks the planted tokens of another set: a rule succeeds at capacity C where fewer than C go before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resonance_theory.rules import BetaBinomial, Rates, Rule, resonance, token_choice
from simulations._rules import RULES

NODES = 48  # of each class

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


class Law(NamedTuple):
    """The nodes of one rule's law: hit rate, chance that a background token goes before (token choice: is a candidate),
    intra-sample correlation of that event, weight; and success at each capacity 1..s from the measured counts."""

    hit: Floats
    tail: Floats
    correlation: Floats
    weight: Floats
    curve: Floats

    @staticmethod
    def join(parts: list[Law]) -> Law:
        """One law of all classes; `weight` of each part sums to the class's share, `curve` is weighted already."""
        hit, tail, correlation, weight, curve = zip(*parts)
        joined = [np.concatenate(values) for values in (hit, tail, correlation, weight)]
        return Law(joined[0], joined[1], joined[2], joined[3], np.sum(curve, axis=0))


class Prediction(NamedTuple):
    """Laws by rule, and what they are made of by class: hit, load π, means of q and h, and of h/π given a hit (NaN
    without a hit). `percentile`: h/π at the nodes of all classes that have a hit, with weights."""

    laws: dict[str, Law]
    share: Floats
    hit: Floats
    load: Floats
    q: Floats
    h: Floats
    rho: Floats
    percentile: tuple[Floats, Floats]
    dispersion: float


def quantiles(values: Floats) -> Floats:
    """Its `NODES` middle quantiles, each with the same weight."""
    return np.quantile(values, (np.arange(NODES) + 0.5) / NODES, method="inverted_cdf")


def reach(value: Floats, counted: NDArray[np.bool_], nodes: Floats) -> Whole:
    """(samples, nodes): how many counted tokens of each sample have at least the value of each of the rising nodes."""
    samples, size = len(value), len(nodes) + 1
    sample, token = np.nonzero(counted)
    level = np.searchsorted(nodes, value[sample, token], side="right")
    table = np.bincount(sample * size + level, minlength=samples * size).reshape(samples, size)
    return table[:, :0:-1].cumsum(axis=1)[:, ::-1]


def moments(number: Whole, trials: int) -> tuple[Floats, Floats]:
    """(mean share, intra-sample correlation at least 0) of each column of counts of so many trials."""
    p = number.mean(axis=0) / trials
    binomial = trials * p * (1 - p)
    ratio = np.divide(number.var(axis=0, ddof=1), binomial, out=np.ones_like(p), where=binomial > 0)
    return p, np.clip((ratio - 1) / (trials - 1), 0, 1)


def distribution(number: Whole, trials: int) -> Floats:
    """(trials + 1,): share of all counts that are at most 0..trials."""
    return np.bincount(number.ravel(), minlength=trials + 1).cumsum() / number.size


def predict(affinity: Floats, place: Whole, label: Whole) -> Prediction:
    samples, tokens, experts = affinity.shape
    everyone = np.ones((samples, tokens), dtype=bool)
    everyone[np.arange(samples), place] = False
    background = affinity[everyone].reshape(samples, tokens - 1, experts)
    planted = affinity[np.arange(samples), place]
    chosen, routed = background.argmax(axis=-1), planted.argmax(axis=-1)
    share = np.bincount(label, minlength=experts) / samples
    loads = np.stack([(chosen == i).sum(axis=1) for i in range(experts)], axis=1)
    load, correlation = moments(loads, tokens - 1)
    parts: dict[str, list[Law]] = {rule: [] for rule in RULES}
    q, h, rho, hit = (np.full(experts, np.nan) for _ in range(4))
    percentile: list[tuple[Floats, Floats]] = []
    for i in range(experts):
        value, found = planted[label == i, i], routed[label == i] == i
        hit[i] = found.mean()
        one, each = np.ones(NODES), np.full(NODES, share[i] / NODES)

        kept = np.minimum(1, np.arange(1, tokens + 1)[:, None] / (loads[:, i] + 1)).mean(axis=1)
        alone = (hit[[i]], load[[i]], correlation[[i]], share[[i]], share[i] * hit[i] * kept)
        parts["token_choice"].append(Law(*alone))

        nodes = quantiles(value)
        number = reach(background[..., i], np.ones_like(chosen, dtype=bool), nodes)
        before = moments(number, tokens - 1)
        parts["expert_choice"].append(Law(one, *before, each, share[i] * distribution(number, tokens - 1)))
        q[i] = before[0].mean()
        h[i] = reach(background[..., i], chosen == i, nodes).mean() / (tokens - 1)

        nodes = quantiles(value[found]) if found.any() else nodes  # never hit: the nodes have no say
        number = reach(background[..., i], chosen == i, nodes)
        before = moments(number, tokens - 1)
        curve = share[i] * hit[i] * distribution(number, tokens - 1)
        parts["resonance"].append(Law(hit[i] * one, *before, each, curve))
        if found.any():
            at = before[0] / load[i] if load[i] else 0 * one
            rho[i] = at.mean()
            percentile.append((at, hit[i] * each))
    laws = {rule: Law.join(mine) for rule, mine in parts.items()}
    values, weights = (np.concatenate(both) for both in zip(*percentile)) if percentile else (np.zeros(0), np.zeros(0))
    return Prediction(laws, share, hit, load, q, h, rho, (values, weights), dispersion(loads, tokens - 1))


def dispersion(loads: Whole, trials: int) -> float:
    """Variance of the loads over samples, in units of the binomial one, over all experts together; 1 if none varies."""
    p = loads.mean(axis=0) / trials
    binomial = (trials * p * (1 - p)).sum()
    return float(loads.var(axis=0, ddof=1).sum() / binomial) if binomial else 1.0


def binomial(rule: str, law: Law) -> tuple[Rule, Rates]:
    """The rule and its rates for independent tokens."""
    tail = {"token_choice": "load", "expert_choice": "false_positive", "resonance": "candidate_tail"}[rule]
    return RULES[rule], Rates(hit=law.hit, weight=law.weight).replace(**{tail: law.tail})


def repaired(rule: str, law: Law) -> tuple[Rule, Rates]:
    """The same where the counts are beta-binomial with the measured correlation (claim: dependent_counts).

    Where affinity decides, only tokens that go before are counted, so resonance reads them as candidates that all do.
    """
    rates = Rates(hit=law.hit, load=law.tail, weight=law.weight, counts=BetaBinomial(law.correlation))
    return (token_choice, rates) if rule == "token_choice" else (resonance, rates.replace(percentile=1.0))


def at_mean(found: Prediction, tail: Floats) -> Law:
    """Resonance's law with one tail for each class in place of its distribution."""
    known = np.where(np.isnan(tail), 0.0, tail)  # a class that is never hit has no say
    return Law(found.hit, known, np.zeros_like(known), found.share, np.zeros(0))


def least(curve: Floats, target: float) -> int:
    """The least capacity at which a curve over 1..s reaches the target; s where it never does."""
    met = curve >= target * (1 - 1e-12)
    return int(met.argmax()) + 1 if met.any() else len(curve)


def observe(affinity: Floats, place: Whole, label: Whole) -> tuple[Floats, dict[str, Floats]]:
    """((classes, experts) how often a class's planted token chooses each expert, success at capacities 1..s by rule)."""
    samples, tokens, experts = affinity.shape
    row, choice = np.arange(samples), affinity.argmax(axis=-1)
    routed = choice[row, place]
    mine = np.take_along_axis(affinity, label[:, None, None], axis=-1)[..., 0]
    ahead, candidate = mine > mine[row, place, None], choice == label[:, None]
    hit = routed == label
    before = {
        "token_choice": (candidate & (np.arange(tokens) < place[:, None])).sum(axis=1)[hit],
        "expert_choice": ahead.sum(axis=1),
        "resonance": (candidate & ahead).sum(axis=1)[hit],
    }
    table = np.bincount(label * experts + routed, minlength=experts**2).reshape(experts, experts)
    curves = {rule: np.bincount(n, minlength=tokens).cumsum() / samples for rule, n in before.items()}
    return table / np.maximum(table.sum(axis=1, keepdims=True), 1), curves
