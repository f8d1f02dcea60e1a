"""Training: digits among digits (`_digits`) with more patches, two experts a token, fixed gates, and fewer images.

All arms train the same network for the same steps; accuracy is to be read against the tokens actually processed, once for
each expert that does. The dense baseline is one expert as wide as all, which processes every token. GrAP gates are fixed:
nothing teaches them which token bears the label, so no theorem promises anything of an order among the rules there.
"""

from __future__ import annotations

from typing import Any

from resonance_theory.evidence.studies.training import Arm
from simulations._digits import PACKAGES, Training, train
from simulations._rules import RULES
from simulations._training import parameters

__all__ = ["PACKAGES", "arms"]


def arms(settings: dict[str, Any]) -> list[Arm]:
    n, few, many = settings["experts"], settings["patches"], settings["more_patches"]
    result: list[Arm] = []

    def add(label: str, rule: str, patches: int, capacity: int, **own: Any) -> None:
        table = parameters(Training, settings, rule=rule, patches=patches, capacity=capacity, **own)
        result.append(Arm(label, train, table, settings["test_mosaics"]))

    def dense(label: str, patches: int, **own: Any) -> None:
        add(label, "token_choice", patches, patches, experts=1, hidden=n * settings["hidden"], **own)

    capacity = settings["capacity"]
    for share in settings["train_shares"]:
        for rule in RULES:
            add(f"{rule}, {share:g} of images", rule, few, capacity, train_share=share)
        dense(f"dense, {share:g} of images", few, train_share=share)
    for c in settings["more_capacities"]:
        for rule in RULES:
            add(f"{rule}, {many} patches C={c}", rule, many, c)
    dense(f"dense, {many} patches", many)
    for c in settings["top_capacities"]:
        for top in (1, 2):
            for rule in ("token_choice", "resonance"):
                add(f"{rule}, Top-{top} C={c}", rule, few, c, top=top)
    for rule in (*RULES, "random_keep"):
        add(f"{rule}, GrAP", rule, few, capacity, gates="grap")
    for rule in RULES:
        add(f"{rule}, GrAP, {many} patches", rule, many, settings["more_capacities"][0], gates="grap")
    return result
