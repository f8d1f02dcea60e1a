"""Loads of all experts at once: the largest one, replicas and placements, distinct experts of a batch.

largest, marginals   how long the slowest expert or device works
placement            replicas of the heaviest experts, experts onto devices
distinct             how many experts a batch touches
groups               group-limited and biased routing
subsets              k distinct experts with given rates
"""

from resonance_theory.loads.distinct import distinct_experts, distinct_variance
from resonance_theory.loads.groups import Pairs, group_limited, pair_rates, top_of_groups
from resonance_theory.loads.largest import LargestLoad
from resonance_theory.loads.placement import Replicas, least_largest, place, replicate
from resonance_theory.loads.subsets import choice_weights, joint_rates

__all__ = [
    "LargestLoad",
    "Pairs",
    "Replicas",
    "choice_weights",
    "distinct_experts",
    "distinct_variance",
    "group_limited",
    "joint_rates",
    "least_largest",
    "pair_rates",
    "place",
    "replicate",
    "top_of_groups",
]
