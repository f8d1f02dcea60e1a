"""ETR table 1: no printed GDAD average is the mean of its row, and no common weights explain the row of expert choice.

Means of the rows: 52.07, 58.07, 51.40, 60.60; printed: 52.8, 59.0, 56.3, 61.5. Weighted averages do exist that fit three of
the rows within rounding (.39, .26, .35). None fits expert choice: with any common weights its average exceeds the baseline's
by at most the greatest difference of an entry, 45.6 - 43.0 = 2.6, or 2.7 with rounding; printed is 3.5, at least 3.4. The
numbers of questions, 2,657, 13,968 and 1,435 (weights .147, .773, .079), explain no row. Its MMLU in table 2 moreover equals
its GDAD-1 in table 1, 45.8, 22 points below every other row of table 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from proofs import _printed as printed
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds

WEIGHTS = (Fraction(39, 100), Fraction(26, 100), Fraction(35, 100))
THIRDS = (Fraction(1, 3),) * 3
QUESTIONS = (2657, 13968, 1435)  # of the three parts of GDAD, 18,060 in all
WITHOUT_ECR = ("Baseline", "LocMoE (TCR)", "LocMoE+")


@dataclass(frozen=True)
class Side:
    """The printed averages of `rows` are averages of their entries with these weights.

    `by_questions`: whether the numbers of questions are claimed to be such weights too.
    """

    weights: tuple[Fraction, ...]
    rows: tuple[str, ...]
    by_questions: bool = False


claim = Claim(
    title="Averages of ETR table 1: none is the mean of its row, and that of expert choice fits no common weights",
    statement=r"$|\mathrm{Avg}-\sum_k w_kG_k|$ is within rounding for three rows with $w=(.39,.26,.35)$, for no row "
    r"with "
    r"$w_k=\frac{1}{3}$, and for the rows of the baseline and of expert choice with no common $w\geq 0$, $\sum_k "
    r"w_k=1$",
    hypotheses=("every printed number is within half a unit of its last digit",),
    source="ETR table 1: GDAD averages; ETR table 2: MMLU (arXiv 2406.00023 v4)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=Side(WEIGHTS, WITHOUT_ECR),
    mutant=Side(WEIGHTS, tuple(printed.DOMAIN), True),
    mutation="the same weights for all four rows, and the numbers of questions as weights",
    printed=Side(THIRDS, tuple(printed.DOMAIN)),
    correction=r"Printed as averages: 52.8, 59.0, 56.3, 61.5. The means are 52.07, 58.07, 51.40, 60.60. "
    r"Weights $(.39,.26,.35)$ explain three of them; the 56.3 of expert choice is 3.5 above the baseline where no "
    r"entry is more than 2.6 above. "
    r"Its MMLU, 45.8, repeats its GDAD-1.",
)


def rows() -> dict[str, tuple[list[Fraction], Fraction, Fraction]]:
    """Entries, printed average, and the greatest difference that rounding of entries and average can make."""
    return {
        name: ([printed.exact(g) for g in row[:3]], printed.exact(row[3]), 2 * printed.rounding(row[3]))
        for name, row in printed.DOMAIN.items()
    }


@claim.certificate("weights and rows in exact rationals")
def weights_rows_exact_rationals(side: Side) -> Outcome:
    if sum(side.weights) != 1 or min(side.weights) < 0:
        return fails(f"weights {side.weights} are not a distribution")
    words = []
    for name in side.rows:
        entries, average, slip = rows()[name]
        value = sum((w * g for w, g in zip(side.weights, entries)), Fraction(0))
        words.append(f"{name}: {float(value):.3f} against {float(average):.1f}")
        if abs(value - average) > slip:
            return fails(words[-1])
    return holds("; ".join(words))


@claim.certificate("pairs of rows: a common average rises by no more than the entry that rises most")
def pairs_rows_common_average_rises(side: Side) -> Outcome:
    table = rows()
    for first in side.rows:
        for second in side.rows:
            old, new = table[first], table[second]
            most = max(b - a for a, b in zip(old[0], new[0])) + old[2]
            least = new[1] - old[1] - old[2]
            if least > most:
                return fails(
                    f"{second} over {first}: average at least {float(least):.1f} more, no entry above {float(most):.1f}"
                )
    return holds(f"every pair of {', '.join(side.rows)} admits common weights by this test")


@claim.certificate("the numbers of questions as weights")
def numbers_of_questions(side: Side) -> Outcome:
    near = []
    for name, (entries, average, slip) in rows().items():
        value = sum((q * g for q, g in zip(QUESTIONS, entries)), Fraction(0)) / sum(QUESTIONS)
        if abs(value - average) <= slip:
            near.append(name)
    text = f"they explain {', '.join(near) or 'no row'}, claimed: {'some' if side.by_questions else 'none'}"
    return holds(text) if bool(near) == side.by_questions else fails(text)


@claim.counterexample("plain means; the row of expert choice")
def plain_means_row_expert_choice(side: Side) -> Outcome:
    entries, average, slip = rows()["Baseline"]
    value = sum((w * g for w, g in zip(side.weights, entries)), Fraction(0))
    repeated = printed.GENERAL["LocMoE (ECR)"][0] == printed.DOMAIN["LocMoE (ECR)"][0]
    text = f"baseline {float(value):.3f} against {float(average):.1f}; MMLU of expert choice repeats its GDAD-1: {repeated}"
    return holds(text) if abs(value - average) <= slip and repeated else fails(text)
