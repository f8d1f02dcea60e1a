"""The extractor and the router at scale: planted token vectors, against the exact laws of load, drop and success.

Each trial is one sample: s tokens of d features, one of them discriminative, drawn and routed by one array library
(NumPy, torch or CuPy, on its device) in single precision. Counted once a sample, so that counts are binomial:
success of each rule at each capacity (N1, section 3, N4, G5), "load": a class-irrelevant token goes to expert 0,
"full": expert 0 has more than C candidates, "dropped": an irrelevant token finds no place under token choice (N3).
The wrong laws to reject are those of `success_rate`, and loads of top/(experts + 1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.study import Case
from resonance_theory.gates import affinity
from resonance_theory.rules import expert_choice, resonance, token_choice
from simulations import success_rate

BACKENDS = ("numpy", "torch", "cupy")
_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 29}  # features drawn at a time


def draw(backend: str, device: str, seed: int) -> tuple[Any, Any, Any]:
    """normal(shape) and integers(high, count) of a library's own generator on the device, and its library."""
    if backend == "torch":
        import torch

        source = torch.Generator(device).manual_seed(seed)
        return (
            lambda shape: torch.randn(shape, generator=source, device=device),
            lambda high, count: torch.randint(high, (count,), generator=source, device=device),
            torch,
        )
    if backend == "cupy":
        import cupy as library
    else:
        library = np
    generator = library.random.default_rng(seed)
    return (
        lambda shape: generator.standard_normal(shape, dtype=np.float32),
        lambda high, count: generator.integers(0, high, size=count),
        library,
    )


def sample(
    rng: np.random.Generator,
    trials: int,
    *,
    tokens_per_sample: int,
    dim: int,
    experts: int,
    signal: float,
    capacities: list[int],
    top: int = 1,
    backend: str = "numpy",
    device: str = "cpu",
) -> dict[str, int]:
    """Counts over `trials` samples; see the module's first lines."""
    normal, integers, xp = draw(backend, device, int(rng.integers(2**63)))
    arange = (lambda n: xp.arange(n, device=device)) if backend == "torch" else xp.arange
    s, width, largest = tokens_per_sample, dim // experts, max(capacities)
    step = max(1, _CHUNK[device] // (s * dim))
    counts: dict[str, int] = {}

    def add(key: str, hits: Any) -> None:
        counts[key] = counts.get(key, 0) + int(xp.count_nonzero(hits))

    for start in range(0, trials, step):
        size = min(step, trials - start)
        x, position, expert = normal((size, s, dim)), integers(s, size), integers(experts, size)
        rows = arange(size)
        x[rows[:, None], position[:, None], expert[:, None] * width + arange(width)] += signal / math.sqrt(width)
        scores = affinity(x, experts)
        other = (position + 1) % s  # a class-irrelevant token at a uniform position
        first = token_choice.route(scores, largest, top=top)
        for rule, routed in (
            ("token_choice", first),
            ("expert_choice", expert_choice.route(scores, largest)),
            ("resonance", resonance.route(scores, largest, top=top)),
        ):
            at = routed.sample
            mine = (routed.token == position[at]) & (routed.expert == expert[at])
            for capacity in capacities:
                # an expert's slots run in its order of preference: a smaller capacity keeps the slots below it
                add(f"{rule} C={capacity}", mine & (routed.slot < capacity))
        chosen = token_choice.route(scores, s, top=top)  # no capacity: every candidate
        add("load", (chosen.token == other[chosen.sample]) & (chosen.expert == 0))
        theirs = chosen.token == other[chosen.sample]
        for capacity in capacities:
            add(f"full C={capacity}", chosen.load[:, 0] > capacity)
            # one of the token's top experts, its first in the order of the assignment, has no place for it
            if top == 1:
                add(f"dropped C={capacity}", theirs & (chosen.slot >= capacity))
    return counts


def cases(settings: dict[str, Any]) -> list[Case]:
    from scipy.special import betainc

    result = []
    for row in settings["grid"]:
        s, d, n, signal, top = row["tokens"], row["dim"], row["experts"], row["signal"], row.get("top", 1)
        capacities = row["capacities"]
        right, mutants = success_rate.laws(s, d, n, signal, top, capacities)

        def counted(n: int, s: int = s, top: int = top, capacities: list[int] = capacities) -> dict[str, float]:
            rates = {"load": top / n}
            for c in capacities:
                rates[f"full C={c}"] = float(betainc(c + 1, s - c, top / n)) if c < s else 0.0
                if top == 1:
                    rates[f"dropped C={c}"] = float(token_choice.failure(s, n, c))
            return rates

        wrong = {name: success_rate.by_key(rates, capacities) for name, rates in mutants.items()}
        wrong["loads of one expert more"] = counted(n + 1)
        parameters = {
            "tokens_per_sample": s,
            "dim": d,
            "experts": n,
            "signal": signal,
            "capacities": capacities,
            "top": top,
        }
        label = f"s={s} n={n} d={d} θ={signal:g}{f' ℓ={top}' if top > 1 else ''}"
        result.append(Case(label, sample, parameters, success_rate.by_key(right, capacities) | counted(n), wrong))
    return result
