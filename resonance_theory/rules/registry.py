"""All rules by name: the files of this folder, entry points of other packages, and rules registered at run time."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from importlib import metadata
from pathlib import Path

from resonance_theory.rules.rule import Rule

__all__ = ["register", "rule", "rules"]

GROUP = "resonance_theory.rules"
_REGISTERED: dict[str, Rule] = {}


@functools.cache
def _found() -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith("_"):
            continue
        loaded = importlib.import_module(f"{__package__}.{module.name}")
        value = getattr(loaded, module.name, None)
        if isinstance(value, Rule):
            found[value.name] = value
    for entry in metadata.entry_points(group=GROUP):
        value = entry.load()
        if not isinstance(value, Rule):
            raise TypeError(f"entry point {entry.name!r} of {GROUP} is a {type(value).__name__} but must be a Rule")
        found.setdefault(value.name, value)
    return found


def rules() -> dict[str, Rule]:
    """Every known rule by its name.

    >>> from resonance_theory.rules import rules
    >>> print(*rules())
    adaptive expert_choice random_keep resonance token_choice
    """
    return dict(sorted({**_found(), **_REGISTERED}.items()))


def register(rule: Rule) -> Rule:
    """Make a rule known to `plan`, the router, the figures and the command line of this process; returns it.

    Raises:
        TypeError, ValueError: for anything but a `Rule` whose name is an identifier that no other rule has.
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"rule is a {type(rule).__name__} but must be a Rule")
    if not rule.name.isidentifier():
        raise ValueError(f"rule.name = {rule.name!r} must be an identifier")
    if rules().get(rule.name, rule) is not rule and type(rules()[rule.name]) is not type(rule):
        raise ValueError(f"rule.name = {rule.name!r} must not be the name of another rule")
    _REGISTERED[rule.name] = rule
    return rule


def rule(name: str | Rule) -> Rule:
    """The rule of that name, hyphens or underscores; a `Rule` is returned as it is.

    Raises:
        TypeError, ValueError: naming the rules there are, and the nearest.
    """
    if isinstance(name, Rule):
        return name
    if not isinstance(name, str):
        raise TypeError(f"rule = {name!r} must be a Rule or one of {', '.join(rules())}")
    known = rules()
    wanted = name.replace("-", "_")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"rule = {name!r} must be one of {', '.join(known)}{hint}")
    return known[wanted]
