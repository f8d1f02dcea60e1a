"""Counts printed in ETR and LocMoE that can be recomputed: model size, cluster shapes, experts; and seven that disagree.

Agree: 46.7 billion parameters (from the shapes of the model); TP·PP·DP = 32, 64, 256 devices; 1 · 16 experts of LocMoE's
table 1. Disagree: 762,321 general against 11,048 domain items is 69 : 1, printed 68 : 1; 4.19 billion against 300 billion
tokens of pre-training in the same appendix; 1 : 5 domain to general there, and 150 : 150 billion; experts 9 to 15 of 16
without a token are 43.75 %, printed nearly 40 %; "top-2 selections" against "consistently Top-1"; sequences of 32,768 tokens
against "all 8192 tokens in one sample" (figure 13); 773,369 pairs of fine-tuning (762,321 + 11,048) against "two million" and
"three million".
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from resonance_theory import step_time
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds

VOCABULARY = 32000  # Mixtral (arXiv 2401.04088), table 1


@dataclass(frozen=True)
class Side:
    """Experts in the parameter count, general items for one domain item, share of idle experts in SwitchMoE.

    `equal`: for each quantity that ETR states twice, whether both statements are claimed to be one number.
    """

    experts_counted: int
    ratio: int
    idle: str
    equal: bool


# The same quantity in two places of ETR
TWICE = {
    "experts of a token": (2, 1),
    "tokens of a sample": (32768, 8192),
    "fine-tuning pairs": (762321 + 11048, 5 * 10**6),
}

claim = Claim(
    title="Counts that can be recomputed: model size and cluster shapes agree, seven others do not",
    statement=r"$46.7\cdot 10^9$ parameters; $TP\cdot PP\cdot DP=32,64,256$; $762321:11048=69.0:1$; "
    r"$\frac{7}{16}=43.75$ %; $762321+11048=773369$",
    hypotheses=("the shapes of Mixtral 8x7B: 32 layers, 8 experts, width 4096, hidden 14336, vocabulary 32000",),
    source="ETR experimental setup and appendix, datasets: 46.7B, 32N, 64N, 256N, 68:1, 4.19 billion, Top-2 or Top-1, 32,768 or "
    "8192 tokens, 773,369 pairs (arXiv 2406.00023 v4); LocMoE section 4.2 and table 1: 16 experts, nearly 40 % idle (arXiv "
    "2401.13920)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=Side(8, 69, "0.44", False),
    mutant=Side(2, 68, "0.40", True),
    mutation="two active experts counted in place of eight, the two printed ratios, and what is stated twice taken as equal",
    printed=Side(8, 68, "0.40", True),
    correction="Printed: a ratio of 68:1 for 762,321 and 11,048 items, which is 69.0:1; experts 9 to 15 of 16 as nearly 40 %, "
    "which is 43.75 %; in one appendix 4.19 and 300 billion tokens of pre-training, mixed 1:5 and 150:150; two experts for a "
    "token and one; 32,768 tokens of a sample and 8192; 773,369 pairs of fine-tuning and five million.",
)


@claim.certificate("what is stated twice")
def stated_twice(side: Side) -> Outcome:
    return twice(side)


def twice(side: Side) -> Outcome:
    differ = [f"{name}: {a} and {b}" for name, (a, b) in TWICE.items() if (a == b) != side.equal]
    if side.equal:
        return fails("; ".join(differ)) if differ else holds("all agree")
    return fails("; ".join(differ)) if differ else holds("none of three agrees, as claimed")


@claim.counterexample("top-2 and Top-1; 32,768 and 8192; 773,369 and five million")
def setups_disagree(side: Side) -> Outcome:
    return twice(side)


def parameters(experts: int) -> int:
    m = step_time.Model()
    attention = 2 * m.dim * m.dim + 2 * m.dim * m.key_value_dim
    layer = attention + experts * m.matrices * m.dim * m.hidden + m.dim * m.experts + 2 * m.dim
    return m.layers * layer + 2 * VOCABULARY * m.dim + m.dim


@claim.certificate("parameters and devices, exact integers")
def parameters_devices_exact_integers(side: Side) -> Outcome:
    count = parameters(side.experts_counted)
    devices = [shape.devices for shape in step_time.SHAPES.values()]
    text = f"{count} parameters, {devices} devices"
    return holds(text) if round(count / 10**8) == 467 and devices == [32, 64, 256] else fails(text)


@claim.certificate("ratios, exact")
def ratios_exact(side: Side) -> Outcome:
    return ratios(side)


def ratios(side: Side) -> Outcome:
    items, idle = Fraction(762321, 11048), Fraction(len(range(9, 16)), 16)
    text = (
        f"{float(items):.4f} : 1 where {side.ratio} : 1 is claimed; {float(idle):.4f} idle where {side.idle} is claimed"
    )
    agree = abs(items - side.ratio) <= Fraction(1, 2) and abs(idle - Fraction(side.idle)) <= Fraction(1, 200)
    return holds(text) if agree else fails(text)


@claim.counterexample("762,321 general and 11,048 domain items; experts 9 to 15 of 16")
def general_domain_items_experts(side: Side) -> Outcome:
    return ratios(side)
