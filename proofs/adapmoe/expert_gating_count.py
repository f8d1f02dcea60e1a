"""AdapMoE's "25%" counts tokens that lose their second expert; the average number of activated experts falls by 12.9 %.

At the threshold T = 0.005 that the paper uses, 25.76 % of the decisions (token, layer) keep one expert of two. The average is
then 2 - 0.2576 = 1.7424, which is 12.88 % less. To fall by a quarter, half of all decisions would have to keep one expert; even
T = 0.013 has 0.4099 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from proofs.adapmoe._mixtral import SHARE
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds


@dataclass(frozen=True)
class Side:
    """Relative fall of the average number of activated experts at T = 0.005, in %."""

    fall: Fraction


claim = Claim(
    title="AdapMoE activates 12.9 % fewer experts on average, not 25 %",
    statement="with one expert in 25.76 % of the decisions the average falls from 2 to 1.7424, by 12.88 %",
    hypotheses=("two experts a token before; shares of single experts as in the released code, T = 0.005",),
    source="AdapMoE abstract: 25% (arXiv 2408.10284); AdapMoE released code: shares (PKU-SEC-Lab/AdapMoE at 2cfe8df)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=Side(Fraction("12.88")),
    mutant=Side(Fraction("14.79")),
    mutation="the fall in per cent of what is left",
    printed=Side(Fraction("25")),
    correction='Printed: "reducing the average number of activated experts by 25%". That is the share of decisions with one '
    "expert; the average falls by 12.9 %.",
)


@claim.counterexample("the average from the share of decisions with one expert")
def average(side: Side) -> Outcome:
    mean = 2 - Fraction(SHARE["0.005"])
    fall = 100 * (2 - mean) / 2
    text = f"2 to {float(mean):.4f}, {float(fall):.2f} % less, claimed {float(side.fall):.2f}"
    return holds(text) if fall == side.fall else fails(text)


@claim.certificate("no published threshold reaches a quarter")
def thresholds(side: Side) -> Outcome:
    falls = {t: 50 * Fraction(share) for t, share in SHARE.items()}
    most = max(falls.values())
    text = f"falls of {', '.join(f'{float(v):.2f}' for v in falls.values())} %; claimed {float(side.fall):.2f} at T = 0.005"
    same = falls["0.005"] == side.fall
    return holds(text) if most < 25 and same else fails(text)
