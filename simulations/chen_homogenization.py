"""Training: homogenization of the experts of Chen et al.'s mixture, from a router that knows nothing to its end.

The data, network and training of `_chen` (cubic experts, the published code's details), by rule: the published router,
which drops nobody, and token choice, random keep, expert choice and resonance with a capacity. A rule's tokens are
the test examples, each the sum of its patches (what the router sees) about the training examples' mean. Initial experts:
independent, or near copies of one. At the checkpoints all test examples are routed with one draw of the router's noise, the
same at every checkpoint and in every arm; a run that has stopped early keeps its network.

Before the first step the router is 0, so noise alone chooses: `chance` sets that against closed forms. Each expert's examples are
then a random sample, and the standard index is 1, or 1 - C/N under expert choice, whose experts overlap (ratio of the mean
scatters, claim `calinski_harabasz_chance`). The entropy of the clusters in a sample of m of N is less than that of all by
about (clusters - 1)/2 (1/m - 1/N). Token choice keeps by position: of one data set not a random sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory import homogenization
from resonance_theory.evidence.studies.training import Arm
from resonance_theory.rules import Rates, token_choice
from resonance_theory.rules.select import Assignment
from simulations import _chen
from simulations._metrics import SAME_TOKENS, balance, distances, information, mean_of_pairs, spread
from simulations._rules import WITH_RANDOM
from simulations._training import Counts, at, counts, one_thread, parameters, takes

PACKAGES, PER = _chen.PACKAGES, _chen.PER


def expert_outputs(filters: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What each cubic expert adds to the outputs of the two classes, before its gate: (experts, examples, 2).

    filters: (experts, dim + 1, width); x: (examples, patches, dim + 1).
    """
    response = (x @ filters[:, None]) ** 3
    return response.sum(axis=2).reshape(len(filters), len(x), 2, -1).sum(axis=-1)


def similarity(filters: np.ndarray, x: np.ndarray, measure: Callable[[Any, Any], Any]) -> float:
    """Mean over pairs of experts of a measure of their outputs, such as `homogenization.linear_cka`."""
    return mean_of_pairs(measure, expert_outputs(filters.astype(np.float64), x.astype(np.float64)))


def specialisation(token: np.ndarray, expert: np.ndarray, cluster: np.ndarray, experts: int) -> dict[str, float]:
    """Of the kept pairs: information of expert and cluster, and the entropy published (of the clusters at one expert)."""
    clusters = cluster.max() + 1
    return {
        "information": information(cluster[token], clusters, expert, experts),
        "dispatch entropy": _chen.entropy(cluster[token], expert, clusters),
    }


def pairs_of(kept: Assignment, run: int) -> tuple[np.ndarray, np.ndarray]:
    """Token and expert of every kept pair of a run."""
    mine = kept.sample == run
    return kept.token[mine], kept.expert[mine]


def token_distance(seen: np.ndarray, token: np.ndarray, expert: np.ndarray, experts: int) -> float:
    """Mean 1 - cosine of two of the first `SAME_TOKENS` examples that some expert keeps both of; 0 without any."""
    some = seen[:SAME_TOKENS]
    member = np.zeros((experts, len(seen)), dtype=bool)
    member[expert, token] = True
    everyone = np.broadcast_to(np.arange(len(some)), (1, experts, len(some)))
    far = distances(some[None], everyone, member[None, :, : len(some)])["token distance at one expert"]
    return float(far.mean()) if len(far) else 0.0


@dataclass(frozen=True, kw_only=True)
class Followed(_chen.Mixture):
    """copies: experts start as the first one's weights and the share `jitter` of their own. swapped: a capacity at which
    the trained gates route the test examples by every rule as well; 0 for not at all."""

    swapped: int
    copies: bool
    jitter: float
    checkpoints: list[int]


@takes(Followed)
def follow(rng: np.random.Generator, runs: int, s: Followed) -> Counts:
    """Train initialisations side by side and measure them at the checkpoints, of which the last ends the training."""
    import torch

    details = _chen.DETAILS["code"]
    training, test = s.draw()
    seen = (test[0].sum(axis=1) - training[0].sum(axis=1).mean(axis=0)).astype(np.float64)
    weight_rng, measure_rng, *noise_rngs = rng.spawn(2 + runs)
    network = _chen.start(weight_rng, runs, s.experts, s.dim, s.filters, s.size)
    if s.copies:
        network[1] = network[1][:, :1] + s.jitter * network[1]
    x, label = _chen.read(test, True, details)
    some = x[:SAME_TOKENS].numpy()
    noise = torch.from_numpy(measure_rng.random((runs, s.examples, s.experts + 1), dtype=np.float32))

    def routed(by: str, room: int) -> tuple[Any, Assignment]:
        with torch.no_grad():
            return _chen.outputs(network, x, noise, by, room, True, details)

    def measure() -> list[dict[str, float]]:
        z, kept = routed(s.rule, s.capacity)
        free = routed("token_choice", s.examples)[1]
        right = (z * label > 0).numpy().mean(axis=1)
        swaps = {by: routed(by, s.swapped)[1] for by in WITH_RANDOM} if s.swapped else {}
        found = []
        for run in range(runs):
            token, expert = pairs_of(kept, run)
            even = balance(free.load[run])
            mine = {
                "accuracy": right[run],
                "processed": len(np.unique(token)) / s.examples,
                **spread(seen[token], expert),
                **specialisation(token, expert, test[2], s.experts),
                **{name: even[name] for name in ("load cv", "heaviest share")},
                "cka": similarity(network[1][run].numpy(), some, homogenization.linear_cka),
                "token distance at one expert": token_distance(seen, token, expert, s.experts),
            }
            for by, other in swaps.items():
                token, expert = pairs_of(other, run)
                mine[f"calinski-harabasz, {by}"] = spread(seen[token], expert)["calinski-harabasz"]
            found.append(mine)
        return found

    found: list[dict[str, float]] = [{} for _ in range(runs)]
    due, last = list(s.checkpoints), s.checkpoints[-1]
    with one_thread():
        for state in _chen.learn(network, noise_rngs, training, s, cubic=True, steps=last, details=details):
            now = due if state.step == last else [step for step in due if step == state.step]
            due = [step for step in due if step not in now]
            measured = measure() if now else []
            for step in now:
                for values, mine in zip(found, measured):
                    values |= at(step, s.checkpoints, mine)
    whole = token_distance(seen, np.arange(s.examples), np.zeros(s.examples, dtype=int), 1)  # as if at one expert
    for run, values in enumerate(found):
        shuffled = similarity(network[1][run].numpy(), some, homogenization.linear_cka_chance)
        values |= {"cka by chance @end": shuffled, "token distance": whole, "steps": state.ended["steps"][run]}
    return counts(found, PER)


def laws(rule: str, examples: int, capacity: int, experts: int, cluster: np.ndarray) -> dict[str, float]:
    """What a router of noise alone gives, for the examples' clusters; see the top of this file."""
    if rule == "expert_choice":
        once, ratio = 1 - (1 - capacity / examples) ** experts, 1 - capacity / examples
        pairs = float(experts * capacity)
    else:
        once = float(token_choice.kept(examples, capacity, Rates(experts=experts))) * experts / examples
        pairs, ratio = once * examples, 1.0
    present = np.bincount(cluster)
    lost = (len(present) - 1) / 2 * (experts / pairs - 1 / examples)
    return {
        "processed": once,
        "calinski-harabasz, standard": ratio,
        "dispatch entropy": float(homogenization.dispatch_entropy(present)) - lost,
        "load cv": float(homogenization.load_cv_rms(examples, np.full(experts, 1 / experts))),
    }


@dataclass(frozen=True, kw_only=True)
class Chance(_chen.Data):
    """draws: of the router's noise."""

    rule: str
    capacity: int
    draws: int
    experts: int


@takes(Chance)
def chance(rng: np.random.Generator, runs: int, s: Chance) -> Counts:
    """The router 0: means over `draws` of the noise (of the load's CV the root mean square), and their laws."""
    _, (x, _, cluster) = s.draw()
    seen = x.sum(axis=1).astype(np.float64)
    law = laws(s.rule, s.examples, s.capacity, s.experts, cluster)
    measured = []
    for _ in range(runs):
        drawn = []
        for _ in range(s.draws):
            noise = rng.random((1, s.examples, s.experts + 1), dtype=np.float32)
            kept = _chen.route(noise[..., : s.experts], noise[..., s.experts :], s.rule, s.capacity)
            load = np.bincount(noise[0, :, : s.experts].argmax(axis=1), minlength=s.experts)
            drawn.append(
                {
                    "processed": len(np.unique(kept.token)) / s.examples,
                    **spread(seen[kept.token], kept.expert),
                    **specialisation(kept.token, kept.expert, cluster, s.experts),
                    "load cv": balance(load)["load cv"] ** 2,
                }
            )
        mean = {name: float(np.mean([found[name] for found in drawn])) for name in law}
        mean["load cv"] **= 0.5
        measured.append({f"{name} law": value for name, value in law.items()} | mean)
    return counts(measured, PER)


def arms(settings: dict[str, Any]) -> list[Arm]:
    capacity = round(settings["capacity_factor"] * settings["examples"] / settings["experts"])
    ruled = {"published": ("token_choice", settings["examples"])} | {rule: (rule, capacity) for rule in WITH_RANDOM}
    result = []
    for copies in (False, True):
        for name, (rule, room) in ruled.items():
            if copies and name in ("random_keep", "token_choice"):
                continue
            swapped = capacity if name == "published" and not copies else 0
            own = parameters(Followed, settings, rule=rule, capacity=room, copies=copies, swapped=swapped)
            result.append(Arm(name + (", copies" if copies else ""), follow, own, PER))
    for name, (rule, room) in ruled.items():
        result.append(Arm(f"{name}, router 0", chance, parameters(Chance, settings, rule=rule, capacity=room), PER))
    return result
