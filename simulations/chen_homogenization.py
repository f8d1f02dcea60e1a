"""Training: homogenization of the experts of Chen et al.'s mixture, from a router that knows nothing to its end.

The data, network and training of `chen_mixture` (cubic experts, the published code's details), by rule: the published router,
which turns nobody away, and token choice, random keep, expert choice and resonance with a capacity. A rule's tokens are
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
from typing import Any

import numpy as np

from resonance_theory import homogenization
from resonance_theory.evidence.studies.training import Arm
from resonance_theory.rules import token_choice
from resonance_theory.rules.select import Assignment
from simulations import chen_mixture
from simulations.digits_mosaics import one_thread
from simulations.homogenization_training import distances, spread

PACKAGES = ("torch",)
PER = 1_000_000  # every measurement is stored as a whole number of these parts
RULES = ("token_choice", "random_keep", "expert_choice", "resonance")
SAME = 1000  # examples on which the experts' outputs, and pairs of examples, are compared


def expert_outputs(filters: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What each cubic expert adds to the outputs of the two classes, before its gate: (experts, examples, 2).

    filters: (experts, dim + 1, width); x: (examples, patches, dim + 1).
    """
    response = (x @ filters[:, None]) ** 3
    return response.sum(axis=2).reshape(len(filters), len(x), 2, -1).sum(axis=-1)


def similarity(filters: np.ndarray, x: np.ndarray, measure: Callable[[Any, Any], Any]) -> float:
    """Mean over pairs of experts of a measure of their outputs, such as `homogenization.linear_cka`."""
    out = expert_outputs(filters.astype(np.float64), x.astype(np.float64))
    return float(np.mean([float(measure(out[i], out[j])) for i, j in zip(*np.triu_indices(len(out), 1))]))


def specialisation(token: np.ndarray, expert: np.ndarray, cluster: np.ndarray, experts: int) -> dict[str, float]:
    """Of the kept pairs: information of expert and cluster, and the entropy published (of the clusters at one expert)."""
    table = np.zeros((cluster.max() + 1, experts))
    np.add.at(table, (cluster[token], expert), 1)
    return {
        "information": homogenization.dispatch_information(table),
        "dispatch entropy": chen_mixture.entropy(cluster[token], expert, len(table)),
    }


def loads(load: np.ndarray) -> dict[str, float]:
    return {"load cv": float(homogenization.load_cv(load)), "heaviest share": load.max() / load.sum()}


def pairs_of(kept: Assignment, run: int) -> tuple[np.ndarray, np.ndarray]:
    """Token and expert of every kept pair of a run."""
    mine = kept.sample == run
    return kept.token[mine], kept.expert[mine]


def token_distance(seen: np.ndarray, token: np.ndarray, expert: np.ndarray, experts: int) -> float:
    """Mean 1 - cosine of two of the first `SAME` examples that some expert keeps both of; 0 without any."""
    some = seen[:SAME]
    member = np.zeros((experts, len(seen)), dtype=bool)
    member[expert, token] = True
    everyone = np.broadcast_to(np.arange(len(some)), (1, experts, len(some)))
    far = distances(some[None], everyone, member[None, :, : len(some)])["token distance at one expert"]
    return float(far.mean()) if len(far) else 0.0


def follow(
    rng: np.random.Generator,
    trials: int,
    *,
    rule: str,
    capacity: int,
    swapped: int,
    copies: bool,
    jitter: float,
    checkpoints: list[int],
    data_seed: int,
    examples: int,
    clusters: int,
    dim: int,
    experts: int,
    filters: int,
    expert_rate: float,
    router_rate: float,
    size: float,
) -> dict[str, int]:
    """Train `trials` initialisations side by side and measure them at the checkpoints, of which the last ends the training.

    swapped: a capacity at which the trained gates route the test examples by each of `RULES` as well; 0 for not at all.
    """
    import torch

    details = chen_mixture.DETAILS["code"]
    training, test = chen_mixture.data(data_seed, examples, clusters, dim)
    seen = (test[0].sum(axis=1) - training[0].sum(axis=1).mean(axis=0)).astype(np.float64)
    weight_rng, measure_rng, *noise_rngs = rng.spawn(2 + trials)
    network = chen_mixture.start(weight_rng, trials, experts, dim, filters, size)
    if copies:
        network[1] = network[1][:, :1] + jitter * network[1]
    x, label = chen_mixture.read(test, True, details)
    noise = torch.from_numpy(measure_rng.random((trials, examples, experts + 1), dtype=np.float32))

    def routed(by: str, room: int) -> tuple[Any, Assignment]:
        with torch.no_grad():
            return chen_mixture.outputs(network, x, noise, by, room, True, details)

    def measure() -> list[dict[str, float]]:
        z, kept = routed(rule, capacity)
        free = routed("token_choice", examples)[1]
        right = (z * label > 0).numpy().mean(axis=1)
        swaps = {by: routed(by, swapped)[1] for by in RULES} if swapped else {}
        found = []
        for run in range(trials):
            token, expert = pairs_of(kept, run)
            mine = {
                "accuracy": right[run],
                "processed": len(np.unique(token)) / examples,
                **spread(seen[token], expert),
                **specialisation(token, expert, test[2], experts),
                **loads(free.load[run]),
                "cka": similarity(network[1][run].numpy(), x[:SAME].numpy(), homogenization.linear_cka),
                "token distance at one expert": token_distance(seen, token, expert, experts),
            }
            for by, other in swaps.items():
                token, expert = pairs_of(other, run)
                mine[f"calinski-harabasz, {by}"] = spread(seen[token], expert)["calinski-harabasz"]
            found.append(mine)
        return found

    counts: dict[str, int] = {}
    due = list(checkpoints)
    with one_thread():
        for state in chen_mixture.learn(
            network, noise_rngs, training, cubic=True, rule=rule, capacity=capacity, clusters=clusters,
            steps=checkpoints[-1], expert_rate=expert_rate, router_rate=router_rate, details=details,
        ):  # fmt: skip
            now = due if state.step == checkpoints[-1] else [step for step in due if step == state.step]
            due = [step for step in due if step not in now]
            measured = measure() if now else []
            for step in now:
                at = "end" if step == checkpoints[-1] else step
                for run, found in enumerate(measured):
                    counts |= {f"{name} @{at}/{run}": round(float(value) * PER) for name, value in found.items()}
    whole = token_distance(seen, np.arange(examples), np.zeros(examples, dtype=int), 1)  # as if at one expert
    for run, steps in enumerate(state.ended["steps"]):
        shuffled = similarity(network[1][run].numpy(), x[:SAME].numpy(), homogenization.linear_cka_chance)
        for name, value in (("cka by chance @end", shuffled), ("token distance", whole), ("steps", steps)):
            counts[f"{name}/{run}"] = round(value * PER)
    return counts


def laws(rule: str, examples: int, capacity: int, experts: int, cluster: np.ndarray) -> dict[str, float]:
    """What a router of noise alone gives, for the examples' clusters; see the top of this file."""
    if rule == "expert_choice":
        once, ratio = 1 - (1 - capacity / examples) ** experts, 1 - capacity / examples
        pairs = float(experts * capacity)
    else:
        once = float(token_choice.kept(examples, experts, capacity)) * experts / examples
        pairs, ratio = once * examples, 1.0
    present = np.bincount(cluster)
    lost = (len(present) - 1) / 2 * (experts / pairs - 1 / examples)
    return {
        "processed": once,
        "calinski-harabasz, standard": ratio,
        "dispatch entropy": float(homogenization.dispatch_entropy(present)) - lost,
        "load cv": float(homogenization.load_cv_rms(examples, np.full(experts, 1 / experts))),
    }


def chance(
    rng: np.random.Generator,
    trials: int,
    *,
    rule: str,
    capacity: int,
    draws: int,
    data_seed: int,
    examples: int,
    clusters: int,
    dim: int,
    experts: int,
) -> dict[str, int]:
    """The router 0: means over `draws` of the noise (of the load's CV the root mean square), and their laws."""
    _, (x, _, cluster) = chen_mixture.data(data_seed, examples, clusters, dim)
    seen = x.sum(axis=1).astype(np.float64)
    law = laws(rule, examples, capacity, experts, cluster)
    counts = {f"{name} law/{run}": round(value * PER) for run in range(trials) for name, value in law.items()}
    for run in range(trials):
        drawn = []
        for _ in range(draws):
            noise = rng.random((1, examples, experts + 1), dtype=np.float32)
            kept = chen_mixture.route(noise[..., :experts], noise[..., experts:], rule, capacity)
            load = np.bincount(noise[0, :, :experts].argmax(axis=1), minlength=experts)
            drawn.append(
                {
                    "processed": len(np.unique(kept.token)) / examples,
                    **spread(seen[kept.token], kept.expert),
                    **specialisation(kept.token, kept.expert, cluster, experts),
                    "load cv": loads(load)["load cv"] ** 2,
                }
            )
        for name in law:
            mean = float(np.mean([found[name] for found in drawn]))
            counts[f"{name}/{run}"] = round((mean**0.5 if name == "load cv" else mean) * PER)
    return counts


def arms(settings: dict[str, Any]) -> list[Arm]:
    source = {key: settings[key] for key in ("data_seed", "examples", "clusters", "dim", "experts")}
    keys = ("jitter", "checkpoints", "filters", "expert_rate", "router_rate", "size")
    model = source | {key: settings[key] for key in keys}
    capacity = round(settings["capacity_factor"] * settings["examples"] / settings["experts"])
    published = {"rule": "token_choice", "capacity": settings["examples"]}
    ruled = {"published": published} | {rule: {"rule": rule, "capacity": capacity} for rule in RULES}
    result = []
    for copies in (False, True):
        for name, change in ruled.items():
            if copies and name in ("random_keep", "token_choice"):
                continue
            more = {"copies": copies, "swapped": capacity if name == "published" and not copies else 0}
            result.append(Arm(name + (", copies" if copies else ""), follow, model | change | more, PER))
    for name, change in ruled.items():
        result.append(Arm(f"{name}, router 0", chance, source | change | {"draws": settings["draws"]}, PER))
    return result
