"""MoMa tables 3 and 4: groups of a modality help images and cost text; the printed averages agree with their entries.

Four text and four image experts have the lowest image perplexity in all four columns. Against eight mixed experts their
text perplexity is higher in four columns of five (10.6, 9.9, 4.8 and 4.0 %) and lower in one, and their average on
eight text tasks is lower, 54.2 against 54.8: five tasks lost, three won.
"""

from __future__ import annotations

from fractions import Fraction

from proofs._printed import exact, rounding
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

# COCO, Flickr, VQAv2 (image to text); Obelics and Shutterstock text | COCO, Flickr (text to image); Obelics, Shutterstock image
TEXT = {
    "MoE 8x": ("18.9", "24.2", "18.9", "12.5", "33.7"),
    "MoMa 4t4i": ("20.9", "26.6", "19.8", "13.0", "10.5"),
}
IMAGE = {
    "Dense": ("458.3", "559.4", "64.7", "245.8"),
    "MoMa 1t1i": ("416.7", "508.6", "59.3", "221.5"),
    "MoE 8x": ("426.5", "518.5", "59.2", "226.6"),
    "MoMa 4t4i": ("392.5", "479.6", "55.8", "205.7"),
    "MoD MoMa 4t4i": ("428.1", "518.0", "60.0", "226.1"),
}
TASKS = {
    "Dense": ("61.8 72.1 44.3 54.2 42.0 51.0 59.8 34.3", "52.4"),
    "MoMa 1t1i": ("61.5 71.3 44.4 54.7 46.0 52.8 61.1 34.9", "53.3"),
    "MoE 8x": ("62.2 73.5 44.4 58.3 42.2 58.2 62.6 36.9", "54.8"),
    "MoMa 4t4i": ("62.3 72.5 44.6 55.9 47.0 55.2 60.7 35.7", "54.2"),
}

claim = Claim(
    title="MoMa's groups of experts have the best image perplexity and a worse text perplexity than mixed experts in 4 of 5",
    statement="image perplexity lowest in 4 of 4 columns; text perplexity above that of eight mixed experts in 4 of 5; "
    "text tasks 54.2 against 54.8; the four printed averages are the means of their rows",
    source="MoMa table 3; MoMa table 4; MoMa section 4.6: best on image, close on text (arXiv 2407.21770 v3)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=4,
    mutant=2,
    mutation="text perplexity worse in two columns of five",
)


@claim.certificate("columns of table 3 compared")
def columns(worse: int) -> Outcome:
    best = [min(IMAGE, key=lambda name, i=i: exact(IMAGE[name][i])) for i in range(4)]  # type: ignore[misc]
    ratios = [exact(a) / exact(b) for a, b in zip(TEXT["MoMa 4t4i"], TEXT["MoE 8x"])]
    count = sum(r > 1 for r in ratios)
    text = f"text ratios {[round(float(r), 3) for r in ratios]}: {count} above 1, claimed {worse}"
    return holds(text) if count == worse and best == ["MoMa 4t4i"] * 4 else fails(text)


@claim.certificate("averages of table 4, and tasks won and lost")
def averages(worse: int) -> Outcome:
    outcomes = []
    for name, (row, average) in TASKS.items():
        entries = [exact(x) for x in row.split()]
        mean = sum(entries, Fraction(0)) / len(entries)
        good = abs(mean - exact(average)) <= 2 * rounding(average)
        outcomes.append((holds if good else fails)(f"{name}: {float(mean):.3f}, printed {average}"))
    pairs = list(zip(*(map(exact, TASKS[name][0].split()) for name in ("MoMa 4t4i", "MoE 8x"))))
    lost = sum(a < b for a, b in pairs)
    text = f"{lost} of 8 text tasks lost to mixed experts, claimed {worse + 1}"
    return every([*outcomes, holds(text) if lost == worse + 1 else fails(text)])
