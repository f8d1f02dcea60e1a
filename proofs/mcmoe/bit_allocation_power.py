"""MC-MoE's published bit widths do not minimise its own objective: it says γ = 2, they are optimal for γ = 1.

Eq. 4 weighs the error by φ^α w^β (ε x)^γ, and the appendix sets γ = 2 and α, β in {1, 1.5, 2}. For layer 31 of Mixtral-8x7B and
15 bits for eight experts the published widths are 2, 3, 2, 3, 1, 1, 2, 1. With the published frequencies, weights and errors
they cost 12 to 21 % more than the best widths for γ = 2, whatever α and β of the nine. They are the best for γ = 1, α = 1, β =
1.5. So are all 288 published allocations (32 layers, budgets 12 to 20; measured with the whole file, see the page), where for γ
= 2 at most 222 are.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.bit_allocation import allocate_bits

# Aaronhuang-778/MC-MoE at 7aa062c, layer 31: times chosen, sums of gate weights, errors at 1, 2, 3 bits; the widths for 15 bits
CHOSEN = (60272, 64434, 55107, 84219, 53735, 67121, 72169, 67231)
WEIGHT = (19994.21, 32002.70, 23862.81, 25106.59, 14834.85, 20560.01, 27747.64, 20504.35)
ERROR = (
    (313876, 92103, 30247), (401853, 180038, 62608), (332145, 125225, 44390), (330832, 141729, 36748),
    (240075, 65609, 23338), (252524, 106057, 36241), (406642, 117173, 37467), (281842, 104892, 31795),
)  # fmt: skip
WIDTHS, BUDGET = (2, 3, 2, 3, 1, 1, 2, 1), 15
POWERS = (1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Side:
    """Powers of frequency, weight and error in the objective that the published widths minimise."""

    alpha: float
    beta: float
    gamma: float


claim = Claim(
    title="MC-MoE's published bit widths are optimal for γ = 1, not for the γ = 2 that it states",
    statement="layer 31 at 15 bits: the published widths are best for α = 1, β = 1.5, γ = 1, and 12 % or more too dear for γ = 2",
    hypotheses=(
        "at least one expert has 3 bits and one has 2, as eq. 4 asks",
        "frequencies, weights and errors as released",
    ),
    source="MC-MoE eq. 4: γ; MC-MoE appendix A.6: γ = 2; MC-MoE released allocations (arXiv 2410.06270, code at 7aa062c)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=Side(1.0, 1.5, 1.0),
    mutant=Side(1.0, 1.5, 1.1),
    mutation="γ = 1.1",
    printed=Side(1.0, 1.5, 2.0),
    correction="Printed: γ = 2. The released widths minimise the objective with γ = 1.",
)


def prices(alpha: float, beta: float, gamma: float) -> list[list[float]]:
    return [[n**alpha * w**beta * e**gamma for e in errors] for n, w, errors in zip(CHOSEN, WEIGHT, ERROR)]


def paid(cost: list[list[float]], widths: tuple[int, ...]) -> float:
    return sum(row[j - 1] for row, j in zip(cost, widths))


def least(cost: list[list[float]]) -> float:
    """Over all 3^8 widths that eq. 4 allows."""
    splits = itertools.product((1, 2, 3), repeat=len(cost))
    return min(paid(cost, b) for b in splits if sum(b) == BUDGET and 3 in b and 2 in b)


def excess(alpha: float, beta: float, gamma: float) -> float:
    cost = prices(alpha, beta, gamma)
    return paid(cost, WIDTHS) / least(cost) - 1


@claim.counterexample("the published widths against all others")
def optimal(side: Side) -> Outcome:
    more = excess(side.alpha, side.beta, side.gamma)
    text = f"γ = {side.gamma:g}: {100 * more:.2f} % more than the least"
    return holds(text) if more < 1e-12 else fails(text)


@claim.certificate("every α and β of the paper at γ = 2, and none better at the claimed powers")
def powers(side: Side) -> Outcome:
    found = [excess(a, b, 2.0) for a in POWERS for b in POWERS]
    own = excess(side.alpha, side.beta, side.gamma)
    text = f"γ = 2: {100 * min(found):.1f} to {100 * max(found):.1f} % more; claimed powers: {100 * own:.3f} %"
    return holds(text) if min(found) > 0.12 and own < 1e-12 else fails(text)


@claim.reference("the package finds the published widths")
def by_package(side: Side) -> Outcome:
    widths = tuple(allocate_bits(prices(side.alpha, side.beta, side.gamma), BUDGET).tolist())
    text = f"{widths}, published {WIDTHS}"
    return holds(text) if widths == WIDTHS else fails(text)
