"""What running routers log: choices of experts, gate weights, counts, and where documents end.

log         one form for all of it
fit         the law of documents, from choices with document ids or from counts at two block sizes
guarantee   a capacity that holds the drop of the next steps with a confidence
"""

from resonance_theory.logs.fit import DocumentFit, fit_documents, fit_two_blocks
from resonance_theory.logs.guarantee import Guarantee, guarantee, held, least_capacities
from resonance_theory.logs.log import RoutingLog

__all__ = [
    "DocumentFit",
    "Guarantee",
    "RoutingLog",
    "fit_documents",
    "fit_two_blocks",
    "guarantee",
    "held",
    "least_capacities",
]
