"""Training: digits hidden among other digits; accuracy against the tokens actually processed, by routing rule.

The mosaics and the network are those of `_digits`, without any loss for balance. The dense baselines are the same network
with a single expert that processes every token: as wide as all experts together (their parameters), or as narrow as the
kept tokens' operations allow.

"random_keep" is resonance with random priorities among an expert's candidates. As the label's place is random, token
choice's priority by position is random too, so these two must come out equal (claim: exchangeability_identity): a check of
the whole chain.
"""

from __future__ import annotations

from typing import Any

from resonance_theory.evidence.studies.training import Arm
from simulations._digits import PACKAGES, Training, train
from simulations._rules import WITH_RANDOM
from simulations._training import parameters

__all__ = ["PACKAGES", "arms"]


def arms(settings: dict[str, Any]) -> list[Arm]:
    n, hidden, patches = settings["experts"], settings["hidden"], settings["patches"]

    def arm(label: str, **own: Any) -> Arm:
        return Arm(label, train, parameters(Training, settings, **own), settings["test_mosaics"])

    def dense(label: str, width: int) -> Arm:
        """One expert that sees every token."""
        return arm(f"dense, {label}", rule="token_choice", experts=1, capacity=patches, hidden=width)

    result = []
    for c in settings["capacities"]:
        result += [arm(f"{rule} C={c}", rule=rule, capacity=c) for rule in WITH_RANDOM]
        result.append(dense(f"operations of C={c}", n * c * hidden // patches))
    return [*result, dense("all parameters", n * hidden)]
