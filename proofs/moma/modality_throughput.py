"""MoMa's savings of operations are not savings of time: net of its printed throughput 3.7 becomes 3.06, and 4.2 becomes 2.91.

A saving of operations times the throughput over the dense model's is the saving of time. From table 2: 3.7 ·
26,424/31,970 = 3.06 for four text and four image experts, 3.0 · 28,990/31,970 = 2.72 for eight mixed ones, 4.2 ·
22,114/31,970 = 2.91 with mixture of depths. The advantage over mixed experts falls from 1.23 to 1.12, and mixture of
depths, first in operations, is second in time. The printed percentages of table 2 agree with its entries.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.modality_groups import net_speedup

DENSE = 31970
# configuration: words a second and GPU, printed difference in %
TABLE_2 = {
    "MoE 8x": (28990, -9),
    "MoMa 1t1i": (30196, -6),
    "MoMa 4t4i": (26424, -17),
    "MoD MoMa 1t1i": (25367, -21),
    "MoD MoMa 4t4i": (22114, -31),
}
SAVING = {"MoE 8x": Fraction(3), "MoMa 4t4i": Fraction("3.7"), "MoD MoMa 4t4i": Fraction("4.2")}
NET = {"MoE 8x": "2.72", "MoMa 4t4i": "3.06", "MoD MoMa 4t4i": "2.91"}


def side(net: Callable[[Fraction, int], Fraction]) -> SimpleNamespace:
    """`net(saving of operations, throughput)`: saving of time."""
    return SimpleNamespace(net=net)


claim = Claim(
    title="MoMa's 3.7x in operations is 3.06x in time; with mixture of depths 4.2x is 2.91x, less than without",
    statement=r"net of table 2's throughput: $3.7\to3.06$, $3.0\to2.72$, $4.2\to2.91$; advantage over mixed experts "
    r"$1.23\to1.12$",
    hypotheses=(
        "the throughput measured at 435M holds for the models of 1.4B and 2.3B whose savings are printed",
        "savings as printed, at equal training loss under non-causal routing",
    ),
    source="MoMa abstract: 3.7x, 3x and 4.2x; MoMa table 2 (arXiv 2407.21770 v3)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda saving, rate: saving * rate / DENSE),
    mutant=side(lambda saving, rate: saving),
    mutation="operations taken for time",
)


@claim.certificate("exact rationals from the printed numbers")
def from_printed(s: SimpleNamespace) -> Outcome:
    for name, (rate, percent) in TABLE_2.items():
        if round(100 * (Fraction(rate, DENSE) - 1)) != percent:
            return fails(f"{name}: {float(100 * Fraction(rate, DENSE) - 100):.2f} %, printed {percent} %")
    net = {name: s.net(saving, TABLE_2[name][0]) for name, saving in SAVING.items()}
    for name, value in net.items():
        if abs(value - Fraction(NET[name])) > Fraction(1, 200):
            return fails(f"{name}: {float(value):.3f}, claimed {NET[name]}")
    moma, mixed, depths = net["MoMa 4t4i"], net["MoE 8x"], net["MoD MoMa 4t4i"]
    ahead = round(float(moma / mixed), 2)
    text = f"net {float(moma):.3f}, {float(mixed):.3f}, {float(depths):.3f}; {ahead} over mixed experts"
    return holds(text) if ahead == 1.12 and depths < moma else fails(text)


@claim.reference("the package's function")
def by_package(s: SimpleNamespace) -> Outcome:
    rates = np.array([TABLE_2[name][0] for name in SAVING])
    found = net_speedup([float(x) for x in SAVING.values()], rates, DENSE)
    wanted = [float(s.net(saving, TABLE_2[name][0])) for name, saving in SAVING.items()]
    text = f"{found.round(4).tolist()} against {[round(w, 4) for w in wanted]}"
    return holds(text) if np.allclose(found, wanted, rtol=1e-12) else fails(text)
