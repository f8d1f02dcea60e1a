"""The extractor and the router at scale: planted token vectors, against the exact laws of load, drop and success.

Each trial is one sample: s tokens of d features, one of them discriminative, drawn and routed by one array library
(NumPy, torch or CuPy, on its device) in single precision. Counted once a sample, so that counts are binomial:
success of each rule at each capacity, "load": a class-irrelevant token goes to expert 0,
"full": expert 0 has more than C candidates, "dropped": an irrelevant token finds no place under token choice.
The wrong laws to reject are those of `_success.laws`, and loads of top/(experts + 1).
"""

from __future__ import annotations

from typing import Any

from resonance_theory.evidence.studies.study import Case
from resonance_theory.rules import Rates, token_choice
from simulations import _success
from simulations._sampling import BACKENDS
from simulations._success import sample

__all__ = ["BACKENDS", "cases", "sample"]


def cases(settings: dict[str, Any]) -> list[Case]:
    from scipy.special import betainc

    result = []
    for row in settings["grid"]:
        s, d, n, signal, top = row["tokens"], row["dim"], row["experts"], row["signal"], row.get("top", 1)
        capacities = row["capacities"]
        right, mutants = _success.laws(s, d, n, signal, top, capacities)

        def counted(n: int, s: int = s, top: int = top, capacities: list[int] = capacities) -> dict[str, float]:
            rates = {"load": top / n}
            for c in capacities:
                rates[f"full C={c}"] = float(betainc(c + 1, s - c, top / n)) if c < s else 0.0
                if top == 1:
                    rates[f"dropped C={c}"] = float(token_choice.failure(s, c, Rates(experts=n)))
            return rates

        wrong = {name: _success.by_key(rates, capacities) for name, rates in mutants.items()}
        wrong["loads of one expert more"] = counted(n + 1)
        size = {"tokens": s, "dim": d, "experts": n, "signal": signal, "capacities": capacities, "top": top}
        label = _success.label(s, d, n, signal, top)
        result.append(Case(label, sample, size, _success.by_key(right, capacities) | counted(n), wrong))
    return result
