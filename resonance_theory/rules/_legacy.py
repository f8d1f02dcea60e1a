"""The heads of before `Rates`, while call sites are converted; to be deleted."""

from __future__ import annotations

from typing import Any

from resonance_theory.rules.dependence import Counts
from resonance_theory.rules.rates import Rates
from resonance_theory.rules.rule import Rule

ORDER = {
    "token_choice": ("tokens", "experts", "capacity"),
    "resonance": ("tokens", "capacity"),
    "expert_choice": ("tokens", "capacity"),
}


def wrap(rule: Rule) -> None:
    for verb in ("success", "failure", "log_success", "log_failure", "kept", "bounds", "least_capacity"):
        new = getattr(rule, verb)

        def old(*args: Any, new: Any = new, verb: str = verb, **given: Any) -> Any:
            if any(isinstance(v, Rates) for v in (*args, *given.values())):
                return new(*args, **given)
            order = ORDER[rule.name]
            if verb == "kept" and rule.name == "resonance":
                order = ("tokens", "experts", "capacity")
            if verb == "least_capacity":
                order = ("target", *(n for n in order if n != "capacity"))
            given.update(zip(order, args))
            rest = {"kind": given.pop("kind")} if "kind" in given else {}
            if verb == "least_capacity":
                sizes = (given.pop("target"), given.pop("tokens"))
            else:
                sizes = (given.pop("tokens"), given.pop("capacity"))
            return new(*sizes, Rates(**given), **rest)

        object.__setattr__(rule, verb, old)


def attach(rules: dict[str, Rule]) -> None:
    def verb(name: str) -> Any:
        def old(self: Counts, *args: Any, **given: Any) -> Any:
            order = ("target", "tokens", "experts") if name == "least_capacity" else ("tokens", "experts", "capacity")
            given.update(zip(order, args))
            rule = rules["resonance" if given.get("percentile") is not None else "token_choice"]
            sizes = [given.pop(n) for n in ("target", "tokens", "capacity") if n in given]
            new = getattr(rule, {"drop": "drop_rate"}.get(name, name))
            return new(*sizes, Rates(counts=self, **given))

        return old

    for name in ("success", "failure", "kept", "drop", "least_capacity"):
        setattr(Counts, name, verb(name))
