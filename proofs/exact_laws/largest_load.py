"""The law of the largest load: independent Poisson, or negative binomial, counts given their total, cut at m.

Multinomial loads are independent Poisson counts given their total, Dirichlet-multinomial ones negative binomial counts. So

    P(max N <= m) = [x^s] Π_e T_e(x) / [x^s] Π_e W_e(x),   W_e = Σ_j w_e(j) x^j,  T_e its part up to x^m,

with w(j) = p^j/j! or Γ(j+a)/(Γ(a) j!). The denominator is p^s/s! of the summed shares, or the same gamma quotient of the summed
a: a device's load has its experts' summed share. The complement needs no subtraction: with D_e = W_e - T_e,
ΠW - ΠT = Σ_e Π_{f<e} T_f · D_e · Π_{f>e} W_f.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import factorial, prod

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.loads import LargestLoad
from resonance_theory.rules import INDEPENDENT, BetaBinomial


@dataclass(frozen=True)
class Side:
    """`more` is added to m, the greatest load that does not overflow (0 for the theorem)."""

    more: int


claim = Claim(
    title="The largest load has an exact law: cut power series at the total",
    statement=r"$P(\max_eN_e\leq m)=\frac{[x^s]\prod_eT_e(x)}{[x^s]\prod_eW_e(x)}$, "
    r"$W_e=\sum_jw_e(j)x^j$, $T_e=\sum_{j\leq m}w_e(j)x^j$, $w_e(j)=\frac{p_e^j}{j!}$, or "
    r"$\frac{\Gamma(j+a_e)}{\Gamma(a_e)j!}$ with $a_e=p_e\frac{1-\kappa}{\kappa}$ for loads of correlation $\kappa$",
    hypotheses=(
        r"each of $s$ tokens chooses one expert, with shares $p_e$, independently or given shares that are Dirichlet",
    ),
    source="new here in this form; Levin 1981, Annals of Statistics 9 (Poisson counts given their total)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=Side(0),
    mutant=Side(1),
    mutation="loads cut at m + 1",
)


@claim.derivation("masses given the total, for any number of tokens: they follow the urn that adds one token")
def masses(side: Side) -> Outcome:
    """P(n) = Π w(n_e) / w_all(s) is the law of s draws: it holds for none, and one token more keeps it."""
    x, y = sp.symbols("x y", integer=True, positive=True)
    a, b = sp.symbols("a b", positive=True)

    def urn(j: sp.Expr, at: sp.Expr) -> sp.Expr:
        return sp.gamma(j + at) / (sp.gamma(at) * sp.factorial(j))

    def draws(j: sp.Expr, at: sp.Expr) -> sp.Expr:
        return at**j / sp.factorial(j)

    outcomes = []
    for name, w, chance in (
        ("urn", urn, lambda part, i: (part + i) / (a + b + x + y - 1)),
        ("draws", draws, lambda part, i: part / (a + b)),
    ):

        def mass(i: sp.Expr, j: sp.Expr, w: object = w) -> sp.Expr:
            return w(i, a) * w(j, b) / w(i + j + side.more, a + b)  # type: ignore[operator]

        arrives = mass(x - 1, y) * chance(a, x - 1) + mass(x, y - 1) * chance(b, y - 1)
        unit = w(x, a) * w(y, b) / w(x + y, a + b)
        left, right = (sp.gammasimp(sp.combsimp(part / unit)) for part in (arrives, mass(x, y)))
        points = [{x: 2, y: 3, a: sp.Rational(2, 3), b: sp.Rational(5, 4)}]
        outcomes += [
            identity(left, right, points=points, name=name),
            identity(mass(sp.Integer(0), sp.Integer(0)), 1, name="none"),
        ]
    return every(outcomes)


@claim.derivation("two parts are one of the summed share: their series multiply")
def summed(side: Side) -> Outcome:
    """The coefficients' recurrence is (1-x) W' = a W, or W' = p W, with W(0) = 1: the product solves it for the sum."""
    x, a, b, j = sp.symbols("x a b j", positive=True)
    first, second = sp.symbols("W_a W_b", positive=True)

    def w(i: sp.Expr) -> sp.Expr:
        return sp.gamma(i + a) / (sp.gamma(a) * sp.factorial(i))

    urn = sp.gammasimp((j + 1) * w(j + 1) / w(j))
    outcomes = [identity(urn, a + j, name="(j+1) w(j+1)/w(j)")]
    for name, slope in (("urn", 1 / (1 - x)), ("draws", sp.Integer(1))):
        change = (a * slope * first) * second + first * (b * slope * second)
        outcomes.append(identity(change, (a + b + side.more) * slope * first * second, name=name))
    return every(outcomes)


@claim.derivation("the complement without subtraction, one factor more at a time")
def complement(side: Side) -> Outcome:
    """(T, D)(T', D') = (T T', D (T' + D') + T D') keeps T + D = W."""
    t, d, u, e = sp.symbols("T D U E")
    above = d * (u + e) + (t + side.more) * e
    return identity((t + d) * (u + e), t * u + above, name="W W' and T T' + (D W' + T D')")


def enumerated(tokens: int, weight: list[Fraction], urn: bool) -> dict[tuple[int, ...], Fraction]:
    """Every sequence of choices, token by token."""
    state = {(0,) * len(weight): Fraction(1)}
    for done in range(tokens):
        after: dict[tuple[int, ...], Fraction] = {}
        for n, p in state.items():
            total = sum(weight, Fraction(0)) + (done if urn else 0)
            for e, w in enumerate(weight):
                key = (*n[:e], n[e] + 1, *n[e + 1 :])
                after[key] = after.get(key, Fraction(0)) + p * (w + (n[e] if urn else 0)) / total
        state = after
    return state


def cut(tokens: int, weight: list[Fraction], urn: bool, m: int) -> Fraction:
    """The claim's ratio in exact rationals."""

    def w(at: Fraction, j: int) -> Fraction:
        return prod((at + i if urn else at for i in range(j)), start=Fraction(1)) / factorial(j)

    series = [Fraction(1)]
    for at in weight:
        new = [Fraction(0)] * (tokens + 1)
        for (i, p), j in product(enumerate(series), range(m + 1)):
            if i + j <= tokens:
                new[i + j] += p * w(at, j)
        series = new
    return series[tokens] / w(sum(weight, Fraction(0)), tokens) if tokens < len(series) else Fraction(0)


@claim.reference("every sequence of choices, in exact rationals")
def every_sequence(side: Side) -> Outcome:
    checked = 0
    for urn, weight in product((False, True), ([Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)], [Fraction(1, 4)] * 4)):
        for tokens in (1, 3, 7):
            law = enumerated(tokens, weight, urn)
            for m in range(1, tokens + 1):
                exact = sum((p for n, p in law.items() if max(n) <= m), Fraction(0))
                if (claimed := cut(tokens, weight, urn, m + side.more)) != exact:
                    return fails(f"urn={urn}, s={tokens}, m={m}: {exact} of the sequences, {claimed} claimed")
                checked += 1
    return holds(f"{checked} laws agree exactly")


@claim.reference("the package's law in both tails, its mean, and summed devices, against exact rationals")
def package(side: Side) -> Outcome:
    share, worst = [Fraction(3, 8), Fraction(1, 4), Fraction(1, 4), Fraction(1, 8)], 0.0
    for kappa in (None, Fraction(1, 9)):
        counts = INDEPENDENT if kappa is None else BetaBinomial(float(kappa))
        weight = share if kappa is None else [p * (1 / kappa - 1) for p in share]
        law = LargestLoad(20, [float(p) for p in share], counts=counts)
        devices = LargestLoad(20, [float(p) for p in share], placement=[0, 1, 1, 0], counts=counts)
        mean = Fraction(0)
        for m in range(20):
            exact = cut(20, weight, kappa is not None, m + side.more)
            halves = cut(20, [weight[0] + weight[3], weight[1] + weight[2]], kappa is not None, m + side.more)
            for ours, value in ((law, exact), (devices, halves)):
                pairs = ((float(ours.cdf(m)), value), (float(ours.sf(m)), 1 - value))
                worst = max([worst, *(abs(float(Fraction(got) / v - 1)) for got, v in pairs if v)])
            mean += 1 - exact
        worst = max(worst, abs(law.mean() / float(mean) - 1))
    return holds(f"largest relative error {worst:.1e}") if worst < 2e-11 else fails(f"relative error {worst:.1e}")


def sample(
    rng: np.random.Generator, trials: int, *, shares: list[float], tokens: int, correlation: float, load: int
) -> dict[str, int]:
    p = np.asarray(shares)
    if correlation:
        p = rng.dirichlet(p * (1 - correlation) / correlation, trials)
    loads = rng.multinomial(tokens, p, size=None if correlation else trials)
    return {"no overflow": int(np.count_nonzero(loads.max(axis=-1) <= load))}


def law(side: Side, *, shares: list[float], tokens: int, correlation: float, load: int) -> dict[str, float]:
    counts = BetaBinomial(correlation) if correlation else INDEPENDENT
    return {"no overflow": float(LargestLoad(tokens, shares, counts=counts).cdf(load + side.more))}


claim.simulate(
    sample,
    cases=[
        {"shares": [0.4, 0.3, 0.2, 0.1], "tokens": 50, "correlation": 0.0, "load": 23},
        {"shares": [0.125] * 8, "tokens": 64, "correlation": 0.05, "load": 18},
    ],
    law=law,
    trials=100_000,
)
