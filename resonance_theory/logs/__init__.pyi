# for type checkers and the reference: what __init__.py loads on first use
from resonance_theory.logs.drop_policies import kept, policies
from resonance_theory.logs.embedded import example
from resonance_theory.logs.fit import DocumentFit, fit_documents, fit_two_blocks
from resonance_theory.logs.guarantee import Guarantee, guarantee, held, least_capacities
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers import layouts, read, recognise, whole_numbers
from resonance_theory.logs.scoring import choose

__all__ = [
    "DocumentFit",
    "Guarantee",
    "RoutingLog",
    "choose",
    "example",
    "fit_documents",
    "fit_two_blocks",
    "guarantee",
    "held",
    "kept",
    "layouts",
    "least_capacities",
    "policies",
    "read",
    "recognise",
    "whole_numbers",
]
