"""Who is processed: the routing rules, and the rates that their success depends on.

Each rule is one file of this folder. `rules()` finds them all, with those that other packages add by
`register` or by an entry point of the group "resonance_theory.rules".
"""

from __future__ import annotations

from resonance_theory.rules.adaptive import adaptive
from resonance_theory.rules.dependence import INDEPENDENT, BetaBinomial, Blocks, Counts
from resonance_theory.rules.documents import Documents
from resonance_theory.rules.expert_choice import expert_choice
from resonance_theory.rules.random_keep import random_keep
from resonance_theory.rules.rates import Rates
from resonance_theory.rules.registry import register, rule, rules
from resonance_theory.rules.resonance import resonance
from resonance_theory.rules.rule import Bounds, Rule
from resonance_theory.rules.token_choice import token_choice

__all__ = [
    "INDEPENDENT",
    "BetaBinomial",
    "Blocks",
    "Bounds",
    "Counts",
    "Documents",
    "Rates",
    "Rule",
    "adaptive",
    "expert_choice",
    "random_keep",
    "register",
    "resonance",
    "rule",
    "rules",
    "token_choice",
]
