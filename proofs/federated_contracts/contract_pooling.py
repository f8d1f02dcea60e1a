"""Where virtual costs do not fall with the type, pooling adjacent violators at their mean gives the best rising efforts.

To maximise Σ p_k [V(E_k) - v_k E_k] over 0 <= E_1 <= ... <= E_K, V concave, it suffices (Karush, Kuhn and Tucker) that
λ_k = Σ_{i>=k} p_i (v_i - V'(E_i)) >= 0, and λ_k = 0 where E_k > E_{k-1}. Let V'(E_i) be the mean v of i's block. Claim:
within a block sums of p_i (v_i - mean) from any of its places to its end are >= 0, and 0 from its start. A single type
is such a block. Pool A and B, m_A <= m_B, to m: from a place in B the sum is (that in B) + w (m_B - m) >= 0, w the
weight from there; from a place in A it is (that in A) + (p_A - w)(m - m_A) >= 0, since p_B (m_B - m) = p_A (m - m_A).
So λ >= 0 throughout. Where V' cannot be as large as the mean, E = 0 and V'(0) < mean, which adds to λ >= 0.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.screening_contract import best_contract

Costs = Callable[[list[Fraction], list[Fraction]], list[Fraction]]


def pool(
    cost: list[Fraction], weight: list[Fraction], violates: Callable[[Fraction, Fraction], bool]
) -> list[Fraction]:
    """Pool adjacent blocks whose means violate the order, at their weighted mean."""
    blocks: list[tuple[Fraction, Fraction, int]] = []
    for c, w in zip(cost, weight):
        blocks.append((c, w, 1))
        while len(blocks) > 1 and violates(blocks[-2][0], blocks[-1][0]):
            (a, p, m), (b, q, n) = blocks[-2:]
            blocks[-2:] = [((a * p + b * q) / (p + q), p + q, m + n)]
    return [mean for mean, _, count in blocks for _ in range(count)]


def side(
    violates: Callable[[Fraction, Fraction], bool], mean: Callable[[sp.Expr, sp.Expr, sp.Expr, sp.Expr], sp.Expr]
) -> SimpleNamespace:
    return SimpleNamespace(violates=violates, mean=mean)


claim = Claim(
    title="Pooling adjacent types whose virtual costs rise solves the contract",
    statement=r"$E_k=(V')^{-1}(\bar v_k)$ or $0$, $\bar v$ the falling sequence by pooled means of $v$ with weights $p$, "
    r"maximises $\sum_k p_k[V(E_k)-v_kE_k]$ over $0\leq E_1\leq\dots\leq E_K$",
    hypotheses=(r"$V$ concave and differentiable", r"$p_k>0$, $v_k>0$"),
    source="pooling of adjacent violators (Ayer et al. 1955); async FL text: not available (arXiv 2310.06448)",
    kind="equality",
    expected=Verdict.PROVED,
    lemmas=("Karush-Kuhn-Tucker conditions of a concave problem",),
    truth=side(lambda a, b: a <= b, lambda p, a, q, b: (p * a + q * b) / (p + q)),
    mutant=side(lambda a, b: a <= b, lambda p, a, q, b: (a + b) / 2),
    mutation="the plain mean of pooled types in place of that by shares",
)


@claim.derivation("the step of the induction: sums from a place to the end of a pooled block")
def induction(s: SimpleNamespace) -> Outcome:
    p, q, a, gap, w, u = sp.symbols(
        "p q a gap w u", positive=True
    )  # p = w + u: weight from the place on, and before it
    b = a + gap
    mean = s.mean(p, a, q, b)
    in_b, in_a = w * (b - mean), (w * (a - mean) + q * (b - mean)).subs(p, w + u)
    outcomes = [identity(q * (b - mean), p * (mean - a), name="p_B (m_B - m) - p_A (m - m_A)")]
    for slack in (in_b, in_a):
        numerator, _ = sp.fraction(sp.cancel(sp.together(slack)))
        corner = dict.fromkeys(sorted(sp.expand(numerator).free_symbols, key=str), 0)
        outcomes.append(nonnegative_polynomial(sp.expand(numerator), corner))
    return every(outcomes)


def multipliers(effort: list[Fraction], cost: list[Fraction], share: list[Fraction], worth: Fraction) -> list[Fraction]:
    terms = [p * (v - worth / (1 + e)) for e, v, p in zip(effort, cost, share)]
    return [sum(terms[k:], Fraction(0)) for k in range(len(terms))]


@claim.certificate("multipliers of random menus in exact rationals")
def exact_multipliers(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(3)
    pooled = 0
    for _ in range(300):
        size = int(rng.integers(2, 9))
        cost = [Fraction(int(x), 7) for x in rng.integers(1, 60, size)]
        parts = [Fraction(int(x)) for x in rng.integers(1, 9, size)]
        share, worth = [x / sum(parts) for x in parts], Fraction(int(rng.integers(1, 12)))
        weights = share if s.mean(1, 0, 3, 1) == Fraction(3, 4) else [Fraction(1)] * size
        flat = pool(cost, weights, s.violates)
        pooled += flat != cost
        effort = [max(worth / v - 1, Fraction(0)) for v in flat]
        last = [Fraction(0), *effort]
        for k, multiplier in enumerate(multipliers(effort, cost, share, worth)):
            if effort[k] < last[k] or multiplier < 0 or (multiplier and effort[k] > last[k]):
                return fails(f"costs {[str(c) for c in cost]}: multiplier {multiplier} of type {k + 1}")
    return holds(f"300 menus, {pooled} of them pooled, satisfy the conditions")


@claim.reference("the package's menus against pooling in exact rationals")
def package(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(4)
    worst, pooled = 0.0, 0
    for _ in range(100):
        size = int(rng.integers(2, 9))
        types, shares = np.cumsum(rng.exponential(size=size) + 0.01), rng.dirichlet(np.ones(size))
        shares = shares / shares.sum()
        theta, share = ([Fraction(float(x)) for x in row] for row in (types, shares))
        cost = [
            1 / theta[k] + (sum(share[k + 1 :]) / share[k] * (1 / theta[k] - 1 / theta[k + 1]) if k + 1 < size else 0)
            for k in range(size)
        ]
        flat = pool(cost, share if s.mean(1, 0, 3, 1) == Fraction(3, 4) else [Fraction(1)] * size, s.violates)
        pooled += flat != cost
        effort = [float(max(5 / v - 1, Fraction(0))) for v in flat]
        worst = max(worst, float(np.max(np.abs(best_contract(types, shares, worth=5.0).effort - effort))))
    text = f"100 menus, {pooled} of them pooled: efforts differ by at most {worst:.2g}"
    return holds(text) if worst < 1e-9 else fails(text)
