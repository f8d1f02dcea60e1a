"""SCMoE's four gains as printed: two of them, on GSM8K and StrategyQA, are told from chance by the counts; two are not.

The printed percentages are whole counts: 815 to 883 of 1,319, 1,668 to 1,747 of 2,290, 231 to 244 of 500, 55 to 68 of
164 (72.83 is 72.838 cut off, the others are rounded). Fisher's exact test gives p = .006, .008, .45, .17 (two-sided).
The test treats the two runs as independent samples: a paired test needs each question's answers, which are not printed,
and could be sharper. β was moreover the best of five on the test set: on MBPP three of the five are below greedy
decoding. Corrected for five looks (Bonferroni) GSM8K and StrategyQA stay below .05.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb

from scipy.stats import fisher_exact

from proofs._printed import exact, rounding
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

# questions, greedy and best SCMoE in %
TABLE_1 = {
    "GSM8K": (1319, "61.79", "66.94"),
    "StrategyQA": (2290, "72.83", "76.29"),
    "MBPP": (500, "46.20", "48.80"),
    "HumanEval": (164, "33.54", "41.46"),
}
MBPP = ("48.80", "47.40", "45.00", "42.60", "41.60")  # table 7, β = .1, .3, .5, .7, .9
CLEAR = ("GSM8K", "StrategyQA")

claim = Claim(
    title="Two of SCMoE's four gains are told from chance by their counts",
    statement="by Fisher's exact test the gains on GSM8K and StrategyQA are significant at 5 %, also after correction for five "
    "strengths; those on MBPP and HumanEval are not; on MBPP three of five strengths are below greedy decoding",
    hypotheses=("the two decodings' answers are treated as independent samples, as pairs are not printed",),
    source="SCMoE abstract: consistently; SCMoE table 1; SCMoE table 7 (arXiv 2405.14507)",
    kind="empirical",
    expected=Verdict.PROVED,
    truth=CLEAR,
    mutant=tuple(TABLE_1),
    mutation="all four gains significant",
)


def counts(name: str) -> tuple[int, int, int]:
    n, *percents = TABLE_1[name]
    before, after = (round(exact(p) * n / 100) for p in percents)
    return n, before, after


@claim.certificate("whole counts behind the percentages, and Fisher's test in exact rationals")
def tested(clear: tuple[str, ...]) -> Outcome:
    outcomes, found = [], []
    for name, (n, *percents) in TABLE_1.items():
        _, before, after = counts(name)
        for percent, count in zip(percents, (before, after)):
            if abs(Fraction(100 * count, n) - exact(percent)) >= 2 * rounding(percent):  # rounded or cut off
                outcomes.append(fails(f"{name}: {percent} % is no whole count of {n}"))
        total = before + after
        masses = [comb(n, k) * comb(n, total - k) for k in range(max(0, total - n), min(n, total) + 1)]
        here = comb(n, before) * comb(n, after)
        p = Fraction(sum(m for m in masses if m <= here), sum(masses))
        outcomes.append(holds(f"{name} {before} to {after} of {n}: p = {float(p):.4f}"))
        if 5 * p < Fraction(1, 20):
            found.append(name)
        elif p < Fraction(1, 20):
            outcomes.append(fails(f"{name} is significant only without the correction"))
    same = tuple(found) == clear
    outcomes.append((holds if same else fails)(f"significant: {', '.join(found)}; claimed {', '.join(clear)}"))
    return every(outcomes)


@claim.reference("SciPy's test, and the strengths on MBPP")
def by_scipy(clear: tuple[str, ...]) -> Outcome:
    values = {}
    for name in TABLE_1:
        n, before, after = counts(name)
        values[name] = float(fisher_exact([[before, n - before], [after, n - after]])[1])
    below = sum(exact(x) < exact(TABLE_1["MBPP"][1]) for x in MBPP)
    text = f"{ {name: round(p, 4) for name, p in values.items()} }, {below} strengths below greedy on MBPP; claimed {clear}"
    return holds(text) if below == 3 and tuple(k for k, p in values.items() if p < 0.05) == clear else fails(text)
