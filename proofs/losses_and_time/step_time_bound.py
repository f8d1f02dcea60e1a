"""What share of a step must follow the capacity for the published savings of time and memory (Amdahl's argument).

Let a part of the step take t(C) at capacity C, where t(C)/C does not rise with C (a fixed cost plus a price per slot), and
let its share be φ = t(C_0)/T. Cutting C_0 to (1-x) C_0 leaves t >= (1-x) t(C_0), so the step shortens by at most xφ; by
exactly that if t is proportional to C. Hence a saving of 46.6 % needs xφ >= .466: no share is enough at x = 40 %, and at x
= 60 % the part must be 77.7 % of the baseline's step. 5.4 % at x = 40 % needs 13.5 %. The same for memory that grows with
the capacity: 16.27 % at x = 40 % needs 40.7 % of it, 4.57 % needs 11.4 %. The remainder of the largest saving has to come
from the communication optimisations that the abstract names, or from a much larger cut. The α-β model (step_time) has φ =
.53 to .54 at its defaults: 40 % saves 21 %, 60 % saves 32 %, and the cut by 94 % that the printed FFN speed-up needs
(ffn_speedup) saves 50 %. The abstract says efficiency: read as 1.466 times faster, 46.6 % is a saving of 31.8 %, and 40 %
fewer tokens need a share of 79.5 %; the text of figure 4 says time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from proofs import _printed as printed
from resonance_theory import step_time
from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds


def side(limit: Callable[..., Any]) -> SimpleNamespace:
    """`limit(share, cut)`: the greatest saving."""
    return SimpleNamespace(limit=limit)


claim = Claim(
    title="A capacity cut x of a part with share φ shortens the step by at most xφ: what the published savings need",
    statement=r"saving $\leq x\varphi$, with equality for a part proportional to $C$; so 46.6 % needs "
    r"$\varphi\geq\frac{.466}{x}$: impossible at $x=40$ %, $\varphi\geq .777$ at $x=60$ %; 5.4 % needs $\varphi\geq "
    r".135$ at $x=40$ %; memory savings of "
    r"4.57 % and 16.27 % need $\varphi\geq .114$ and $.407$ at $x=40$ %",
    hypotheses=(
        r"the part takes $t(C)$ with $t(C)/C$ not increasing; nothing else of the step changes",
        r"$x=1-C_1/C_0\in[0,1]$, $\varphi=t(C_0)/T$",
    ),
    source="ETR abstract and figure 4: training time -5.4 % to -46.6 %; ETR figure 8: memory -4.57 % to -16.27 % "
    "(arXiv 2406.00023)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(lambda share, cut: share * cut),
    mutant=side(lambda share, cut: share * cut * 19 / 20),
    mutation="a limit one twentieth lower",
    lemmas=("Amdahl (1967)",),
)


@claim.certificate("fixed cost plus price per slot: the limit less the saving has no negative coefficient")
def fixed_cost_plus_price_per(side: SimpleNamespace) -> Outcome:
    fixed, price, rest, less, low = sp.symbols("a b r delta C1", nonnegative=True)
    high = low + less
    whole = rest + fixed + price * high
    saving = price * less / whole
    limit = side.limit((fixed + price * high) / whole, less / high)
    slack = sp.cancel(sp.together((limit - saving) * whole * high))
    return nonnegative_polynomial(slack, dict.fromkeys((fixed, price, rest, less, low), 0), name="(xφ - saving) T C_0")


@claim.certificate("the published savings, in exact rationals")
def published_savings_exact_rationals(side: SimpleNamespace) -> Outcome:
    efficiency = 1 - 1 / (1 + printed.exact(printed.TIME[1]))  # 46.6 % read as a speed-up of 1.466
    cases: list[tuple[str, str, str | None]] = [  # saving, cut, least share as stated (None: no share is enough)
        (str(efficiency), printed.CUT, "0.795"),
        (printed.TIME[1], printed.CUT, None),
        (printed.TIME[1], printed.CUT_V1, "0.777"),
        (printed.TIME[0], printed.CUT, "0.135"),
        (printed.MEMORY[0], printed.CUT, "0.114"),
        (printed.MEMORY[1], printed.CUT, "0.407"),
    ]
    words = []
    for saving, cut, stated in cases:
        # the limit is linear in the share
        share = Fraction(saving) / side.limit(Fraction(1), printed.exact(cut))
        words.append(f"saving {float(Fraction(saving)):.4g} at cut {cut} needs a share of {float(share):.4f}")
        agrees = share > 1 if stated is None else abs(share - printed.exact(stated)) <= printed.rounding(stated)
        if not agrees:
            return fails(f"{words[-1]}, stated {stated or 'impossible'}")
    return holds("; ".join(words))


@claim.reference("the α-β model at the three published cluster shapes: below the limit, on it without latency")
def model_three_published_cluster_shapes(side: SimpleNamespace) -> Outcome:
    factors = np.array([1.1, 0.9, 0.66, 0.44, 0.2, 0.065])
    shares = []
    for devices, shape in step_time.SHAPES.items():
        for latency in (0.0, 0.05):
            time = step_time.step_time(factors, shape, hardware=replace(step_time.Hardware(), latency=latency))
            capacity = np.ceil(factors * 32768 / 8)
            saving = 1 - time.total / time.total[0]
            limit = side.limit(time.capacity_share[0], 1 - capacity / capacity[0])
            if np.any(saving > limit + 1e-12):
                i = int(np.argmax(saving - limit))
                return fails(f"{devices} devices, factor {factors[i]}: saving {saving[i]:.4f} above {limit[i]:.4f}")
            if latency == 0:
                shares.append(float(time.capacity_share[0]))
                if np.abs(saving - limit).max() > 1e-12:
                    return fails(f"{devices} devices: saving {saving} where the limit is {limit}")
    return holds(
        f"shares of the capacity {', '.join(f'{s:.3f}' for s in shares)} at 32, 64, 256 devices; limit reached"
    )
