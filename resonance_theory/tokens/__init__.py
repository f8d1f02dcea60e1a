"""Where rates come from: laws of the tokens that a router sees, and samplers of the same tokens.

caps, signals, candidates, planted   orthonormal gates and isotropic tokens: q, p, h and their joint law
gaussian                             tokens with a mean, exactly
evolving                             distributions that move in time
heavy_loads                          experts whose shares are log-normal
samplers                             the same tokens drawn at random
routing                              choices with given rates and correlation, for simulators of serving
"""

from resonance_theory.rules.rates import Rates
from resonance_theory.tokens.candidates import (
    candidate_tail,
    hit_given_affinity,
    log_candidate_tail,
    percentile,
    waiting_tokens,
)
from resonance_theory.tokens.caps import cap, cap_bound, cap_quantile, log_cap
from resonance_theory.tokens.evolving import Evolving
from resonance_theory.tokens.gaussian import Gaussian
from resonance_theory.tokens.heavy_loads import LogNormalLoads
from resonance_theory.tokens.planted import planted as _planted
from resonance_theory.tokens.rivals import rival
from resonance_theory.tokens.routing import routing, skewed_rates
from resonance_theory.tokens.samplers import Dependent, Planted
from resonance_theory.tokens.signals import affinity_density, affinity_tail, false_positive, hit_rate, miss_rate

__all__ = [
    "Dependent",
    "Evolving",
    "Gaussian",
    "LogNormalLoads",
    "Planted",
    "Rates",
    "affinity_density",
    "affinity_tail",
    "candidate_tail",
    "cap",
    "cap_bound",
    "cap_quantile",
    "false_positive",
    "hit_given_affinity",
    "hit_rate",
    "log_candidate_tail",
    "log_cap",
    "miss_rate",
    "percentile",
    "rival",
    "routing",
    "skewed_rates",
    "waiting_tokens",
]

Rates.planted = staticmethod(_planted)
