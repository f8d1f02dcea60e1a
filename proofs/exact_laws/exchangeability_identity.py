"""N5. A uniform affinity percentile turns resonance into position dropping.

Average the chance of a place, P(Bin(M, u) <= C - 1), over a uniform percentile u: each value k of the count has the
same probability 1/(M+1), so the average is min(1, C/(M+1)), the chance that a random position is among the first C.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

M, j = sp.symbols("M j", integer=True, positive=True)
u = sp.symbols("u", positive=True)
POINTS = [{M: 7, j: 3, u: sp.Rational(2, 7)}]


def mass(m: sp.Expr, k: sp.Expr) -> sp.Expr:
    """P(Bin(m, u) = k)."""
    return sp.binomial(m, k) * u**k * (1 - u) ** (m - k)


def side(cells: sp.Expr) -> SimpleNamespace:
    """`cells` is the number of equally likely values of the count, as an expression in M."""
    return SimpleNamespace(cells=cells, value=lambda m, c: min(Fraction(1), Fraction(c, int(cells.subs(M, m)))))


claim = Claim(
    title="Exchangeability identity: a uniform percentile makes resonance equal to position dropping",
    statement=r"$\int_0^1 P(\mathrm{Bin}(M,u)\le C-1)\,du=\min\{1,\,C/(M+1)\}$",
    hypotheses=(r"integers $M\ge 0$, $C\ge 0$",),
    source="new",
    tag="N5",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("digits_mosaics", "homogenization_training", "chen_homogenization"),
    truth=side(M + 1),
    mutant=side(M + 2),
    mutation="M + 2 equally likely counts instead of M + 1",
    theorem="exchangeability.v: exchangeability_identity",
    formal=("exchangeability.v: exchangeability_identity", "exchangeability.v: uniform_count"),
)


@claim.derivation("telescoping: every count k has probability 1/(M+1)")
def telescoping_count_k_has_probability(side: SimpleNamespace) -> Outcome:
    # d/du P(Bin(M+1,u)=j) = cells (P(Bin(M,u)=j-1) - P(Bin(M,u)=j)); summed over j = 0..k it telescopes, so
    # P(Bin(M,u)=k) is the derivative of -P(Bin(M+1,u)<=k)/cells, which falls from 0 to -1/cells on [0,1], k <= M.
    slope = (sp.diff(mass(M + 1, j), u), side.cells * (mass(M, j - 1) - mass(M, j)))
    first = (sp.diff(mass(M + 1, sp.Integer(0)), u), -(side.cells * mass(M, sp.Integer(0))))
    # P(Bin(M+1,u)<=k) is 1 at u=0 (only j=0 has mass) and 0 at u=1 (only j=M+1 > k has mass).
    ends = (mass(M + 1, sp.Integer(0)).subs(u, 0), 1)
    return every(
        [
            identity(*slope, points=POINTS, unit=mass(M, j), name="d/du b(M+1,j) - (M+1)(b(M,j-1) - b(M,j))"),
            identity(*first, points=POINTS, name="the same at j = 0"),
            identity(*ends, name="P(Bin(M+1,0) <= k) - 1"),
        ]
    )


@claim.reference("exact polynomials, all M <= 14 and all C <= M + 3")
def exact_polynomials_m_c_m(side: SimpleNamespace) -> Outcome:
    # Independent of the proof: expand (1-u)^(M-k) and integrate each power of u in rationals.
    count = 0
    for m in range(15):
        integrals = [
            sum(Fraction((-1) ** i * comb(m, k) * comb(m - k, i), k + i + 1) for i in range(m - k + 1))
            for k in range(m + 1)
        ]
        totals = [sum(integrals[:c], Fraction(0)) for c in range(m + 4)]
        assert all(a <= b for a, b in pairwise(totals))
        for c, total in enumerate(totals):
            if total != side.value(m, c):
                return fails(f"M={m}, C={c}: the integral is {total}, not {side.value(m, c)}")
            count += 1
    return holds(f"{count} integrals equal the closed form exactly")


def sample(rng: np.random.Generator, trials: int, *, others: int, capacity: int) -> dict[str, int]:
    return {"placed": int(np.count_nonzero(rng.binomial(others, rng.random(trials)) < capacity))}


def law(side: SimpleNamespace, *, others: int, capacity: int) -> dict[str, float]:
    return {"placed": float(side.value(others, capacity))}


claim.simulate(
    sample,
    cases=[{"others": 7, "capacity": 3}, {"others": 40, "capacity": 11}, {"others": 3, "capacity": 9}],
    law=law,
)
