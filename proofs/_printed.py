"""Numbers as printed, with their place; every check of a printed table reads them here.

ETR: arXiv 2406.00023 v4, tables 1 and 2, abstract and text (the abstracts of v1 to v3 where named).
LocMoE: arXiv 2401.13920 v3 (IJCAI 2024), introduction and section 4.
"""

from __future__ import annotations

from fractions import Fraction

# ETR table 1: GDAD-1, GDAD-2, GDAD-3, their printed average, TeleQnA
DOMAIN = {
    "Baseline": ("47.8", "43.0", "65.4", "52.8", "62.1"),
    "LocMoE (TCR)": ("55.5", "47.6", "71.1", "59.0", "67.6"),
    "LocMoE (ECR)": ("45.8", "45.6", "62.8", "56.3", "61.8"),
    "LocMoE+": ("57.4", "49.9", "74.5", "61.5", "68.8"),
}
# ETR table 2: MMLU, GPQA, HumanEval
GENERAL = {
    "Baseline": ("71.8", "29.2", "40.2"),
    "LocMoE (TCR)": ("68.4", "30.3", "52.8"),
    "LocMoE (ECR)": ("45.8", "32.5", "57.6"),
    "LocMoE+": ("70.4", "33.5", "67.8"),
}
GAINS = ("0.097", "0.145")  # ETR abstract, v4: over the baseline "across GDAD, GPQA, HumanEval, and TeleQnA"
GAINS_LOCMOE = ("0.017", "0.041")  # ETR introduction, v4: over LocMoE
GDAD_GAINS = ("0.201", "0.16", "0.139")  # ETR text: domain tasks, exams, general ability, against the baseline
TIME = ("0.054", "0.466")  # ETR abstract: training time saved against the baseline
MEMORY = ("0.0457", "0.1627")  # ETR text of figure 8, against the baseline
TIME_LOCMOE = ("0.029", "0.133")  # ETR introduction and text of figure 4, v4: time saved against LocMoE
MEMORY_LOCMOE = ("0.0286", "0.105")  # ETR text of figure 8, v4: against LocMoE
FFN_SPEEDUP, FFN_SPEEDUP_LOCMOE, MATMUL_SPEEDUP = "17", "2.6", "2.8"  # ETR text of figure 7
CUT_V1, CUT = "0.6", "0.4"  # tokens per expert saved: abstract of v1; of v2 and v3 (v4: the bound of the capacity)
LOCMOE_TIME = ("0.1268", "0.2224")  # LocMoE abstract: training time per epoch saved
LOCMOE_SPEEDUP = ("1.15", "1.29")  # LocMoE section 4, figure 7
ALL_TO_ALL = {128: "0.1810", 256: "0.2874"}  # LocMoE introduction: share of the training time, by devices
ALL_TO_ALL_CUT = "0.0513"  # LocMoE introduction


def exact(text: str) -> Fraction:
    """The printed decimal as a rational."""
    return Fraction(text)


def rounding(text: str) -> Fraction:
    """Half a unit of the last printed digit: the true value is within it of the printed one."""
    return Fraction(1, 2 * 10 ** len(text.partition(".")[2]))
