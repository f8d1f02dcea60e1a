"""Success rates of planted tokens: a sampler for any array library and device, the exact laws, and wrong ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from resonance_theory.gates import affinity
from resonance_theory.rules import Rates, expert_choice, resonance, token_choice
from resonance_theory.tokens import samplers
from simulations._rules import RULES, route, success
from simulations._sampling import chunks, draw

_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 29}  # features drawn at a time


def label(s: int, d: int, n: int, signal: float, top: int = 1) -> str:
    """Name of a setting."""
    return f"s={s} n={n} d={d} θ={signal:g}{f' ℓ={top}' if top > 1 else ''}"


def laws(
    s: int, d: int, n: int, signal: float, top: int, capacities: list[int]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Success rate of each rule over the capacities, {rule: array}, and the wrong laws, {name: {rule: array}}."""
    rates = samplers.Planted(signal, d, n).rates(top=top, capacity=max(capacities))
    h, q = (float(rates.mean(rate)) for rate in (rates.tail, rates.rate("false_positive")))
    mean = Rates(experts=n, top=top, hit=rates.hit_rate, candidate_tail=h, false_positive=q)
    c = np.asarray(capacities)
    independent = rates.hit_rate * resonance.success(s, c, rates.replace(hit=1.0))
    wrong = {
        "token choice with one slot more": {"token_choice": token_choice.success(s, np.minimum(c + 1, s), mean)},
        "token choice without misses": {"token_choice": token_choice.success(s, c, mean.replace(hit=1.0))},
        "expert choice at the mean false-positive rate": {"expert_choice": expert_choice.success(s, c, mean)},
        "resonance at the mean candidate tail": {"resonance": resonance.success(s, c, mean)},
        "resonance with hit and affinity independent": {"resonance": independent},
    }
    return success(s, c, rates), wrong


def by_key(rates: dict[str, Any], capacities: list[int]) -> dict[str, float]:
    """Rates of arrays over the capacities, one key each as the samplers count them."""
    return {f"{rule} C={c}": float(rate) for rule, array in rates.items() for c, rate in zip(capacities, array)}


def sample(
    rng: np.random.Generator,
    trials: int,
    *,
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    capacities: list[int],
    top: int = 1,
    backend: str = "numpy",
    device: str = "cpu",
) -> dict[str, int]:
    """Counts over `trials` samples of planted token vectors, drawn and routed by one array library on its device."""
    normal, integers, xp = draw(backend, device, int(rng.integers(2**63)))
    arange = (lambda n: xp.arange(n, device=device)) if backend == "torch" else xp.arange
    s, width, largest = tokens, dim // experts, max(capacities)
    counts: dict[str, int] = {}

    def add(key: str, hits: Any) -> None:
        counts[key] = counts.get(key, 0) + int(xp.count_nonzero(hits))

    for size in chunks(trials, s * dim, _CHUNK[device]):
        x, position, expert = normal((size, s, dim)), integers(s, size), integers(experts, size)
        rows = arange(size)
        x[rows[:, None], position[:, None], expert[:, None] * width + arange(width)] += signal / math.sqrt(width)
        scores = affinity(x, experts)
        other = (position + 1) % s  # a class-irrelevant token at a uniform position
        first = route("token_choice", scores, largest, top=top)
        for rule in RULES:
            routed = first if rule == "token_choice" else route(rule, scores, largest, top=top)
            at = routed.sample
            mine = (routed.token == position[at]) & (routed.expert == expert[at])
            for capacity in capacities:
                # an expert's slots run in its order of preference: a smaller capacity keeps the slots below it
                add(f"{rule} C={capacity}", mine & (routed.slot < capacity))
        chosen = route("token_choice", scores, s, top=top)  # no capacity: every candidate
        add("load", (chosen.token == other[chosen.sample]) & (chosen.expert == 0))
        theirs = chosen.token == other[chosen.sample]
        for capacity in capacities:
            add(f"full C={capacity}", chosen.load[:, 0] > capacity)
            # one of the token's top experts, its first in the order of the assignment, has no place for it
            if top == 1:
                add(f"dropped C={capacity}", theirs & (chosen.slot >= capacity))
    return counts
