"""Loads given their total are negatively associated: no overflow is at most as likely as if loads were independent.

X_1..X_n independent counts, S_A = Σ_{e in A} X_e. If E[f(X_A) | S_A = t] rises in t for every A and increasing f, then for
disjoint A and B with union everything, given S = s: X_A and X_B are independent given S_A = t (then S_B = s - t), E f rises in t
and E g falls, so Cov(f, g) <= 0 (Chebyshev's sum inequality): negative association. It rises because the law given t + 1 is that
given t plus one token: another draw (Poisson counts given their total: multinomial) or another draw of Pólya's urn (negative
binomial ones: Dirichlet-multinomial). Sums of independent negatively associated vectors are again so, hence blocks and
documents; conditional Poisson choices are (Brändén and Jonasson 2012), hence k distinct choices. Therefore

    1 - Σ P(N_e > m) <= P(max N <= m) <= Π P(N_e <= m),    m + Σ E(N_e - m)_+ >= E max N for every m.

Here the one-token step and the two-expert kernel are derived; the bounds are checked on enumerated laws.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import comb, factorial, prod
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

claim = Claim(
    title="Loads are negatively associated: two-sided bounds of the chance that no expert overflows",
    statement=r"$1-\sum_eP(N_e>m)\leq P(\max_eN_e\leq m)\leq\prod_eP(N_e\leq m)$ and "
    r"$E\max_eN_e\leq m+\sum_eE(N_e-m)_+$ for every $m$",
    hypotheses=(
        r"multinomial or Dirichlet-multinomial loads, sums of independent such vectors, or loads of tokens that each choose "
        r"$k$ distinct experts by conditional Poisson sampling",
    ),
    source="Joag-Dev and Proschan 1983, Theorem 2.6 (the argument); Brändén and Jonasson 2012 (distinct choices)",
    kind="bound",
    expected=Verdict.PROVED,
    # `step`: tokens that the law given t + 1 has beside the law given t; `tighter`: factor on the upper bound, and on the lower
    # bound's sum
    truth=SimpleNamespace(step=1, tighter=Fraction(1)),
    mutant=SimpleNamespace(step=0, tighter=Fraction(999, 1000)),
    mutation="the law given t + 1 that of t itself; both bounds tighter by a factor of .999",
    lemmas=(
        "conditional Poisson sampling is strongly Rayleigh (Brändén and Jonasson 2012)",
        "Chebyshev's sum inequality",
    ),
)


@claim.derivation("one token more: the law given t + 1 is a draw of the urn after the law given t")
def one_token_more(side: SimpleNamespace) -> Outcome:
    x, y = sp.symbols("x y", integer=True, nonnegative=True)
    a, b = sp.symbols("a b", positive=True)
    t = x + y

    def polya(i: sp.Expr, j: sp.Expr) -> sp.Expr:
        """Dirichlet-multinomial masses of two parts (a any expert, b all others), times what they share."""
        rise = sp.gamma(a + i) * sp.gamma(b + j) / (sp.gamma(a) * sp.gamma(b))
        return (
            rise / (sp.factorial(i) * sp.factorial(j)) * sp.factorial(i + j) * sp.gamma(a + b) / sp.gamma(a + b + i + j)
        )

    def plain(i: sp.Expr, j: sp.Expr) -> sp.Expr:
        return sp.factorial(i + j) / (sp.factorial(i) * sp.factorial(j)) * a**i * b**j / (a + b) ** (i + j)

    unit = {"urn": polya(x, y), "draws": plain(x, y)}
    outcomes = []
    for name, law, chance in (
        ("urn", polya, lambda part, i, total: (part + i) / (a + b + total)),
        ("draws", plain, lambda part, i, total: part / (a + b)),
    ):
        # mass at (x + 1, y) of t + 1 tokens: from (x, y) and a token to the first part, (x + 1, y - 1) and one to the other
        arrives = law(x, y) * chance(a, x, t) + law(x + 1, y - 1) * chance(b, y - 1, t)
        after = law(x + side.step, y)
        left, right = (sp.gammasimp(sp.combsimp(mass / unit[name])) for mass in (arrives, after))
        points = [{x: 2, y: 3, a: sp.Rational(2, 3), b: sp.Rational(5, 4)}, {x: 1, y: 1, a: 2, b: 1}]
        outcomes.append(identity(left, right, points=points, name=name))
    return every(outcomes)


def multinomial(tokens: int, share: list[Fraction]) -> dict[tuple[int, ...], Fraction]:
    return {
        n: factorial(tokens) * prod((p**k / factorial(k) for p, k in zip(share, n)), start=Fraction(1))
        for n in product(range(tokens + 1), repeat=len(share))
        if sum(n) == tokens
    }


def urn(tokens: int, weight: list[Fraction]) -> dict[tuple[int, ...], Fraction]:
    def rise(a: Fraction, k: int) -> Fraction:
        return prod((a + i for i in range(k)), start=Fraction(1))

    return {
        n: factorial(tokens)
        * prod((rise(a, k) / factorial(k) for a, k in zip(weight, n)), start=Fraction(1))
        / rise(sum(weight, Fraction(0)), tokens)
        for n in product(range(tokens + 1), repeat=len(weight))
        if sum(n) == tokens
    }


def both(a: dict[tuple[int, ...], Fraction], b: dict[tuple[int, ...], Fraction]) -> dict[tuple[int, ...], Fraction]:
    """Sum of two independent vectors of loads."""
    out: dict[tuple[int, ...], Fraction] = {}
    for (m, p), (n, q) in product(a.items(), b.items()):
        key = tuple(i + j for i, j in zip(m, n))
        out[key] = out.get(key, Fraction(0)) + p * q
    return out


def distinct(weight: list[Fraction], top: int) -> dict[tuple[int, ...], Fraction]:
    sets = {s: prod((weight[e] for e in s), start=Fraction(1)) for s in combinations(range(len(weight)), top)}
    total = sum(sets.values())
    return {tuple(int(e in s) for e in range(len(weight))): w / total for s, w in sets.items()}


def laws() -> dict[str, dict[tuple[int, ...], Fraction]]:
    share = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]
    heavy = [Fraction(1, 2), Fraction(1, 5), Fraction(1, 9)]
    token = distinct([Fraction(3), Fraction(2), Fraction(1), Fraction(1, 4)], 2)
    four = both(both(token, token), both(token, token))
    return {
        "multinomial": multinomial(9, share),
        "uniform": multinomial(8, [Fraction(1, 4)] * 4),
        "urn": urn(8, heavy),
        "two documents": both(urn(3, heavy), urn(5, [Fraction(2), Fraction(1, 7), Fraction(1)])),
        "two of four": four,
    }


def bounds(law: dict[tuple[int, ...], Fraction], m: int) -> tuple[Fraction, Fraction, Fraction]:
    """Σ P(N_e > m), P(max <= m), Π P(N_e <= m)."""
    experts = len(next(iter(law)))
    above = [sum((p for n, p in law.items() if n[e] > m), Fraction(0)) for e in range(experts)]
    within = sum((p for n, p in law.items() if max(n) <= m), Fraction(0))
    return sum(above, Fraction(0)), within, prod((1 - a for a in above), start=Fraction(1))


@claim.reference("both bounds and the mean's on enumerated laws, in exact rationals")
def enumerated(side: SimpleNamespace) -> Outcome:
    checked = 0
    for name, law in laws().items():
        mean = sum(p * max(n) for n, p in law.items())
        for m in range(max(max(n) for n in law) + 1):
            union, within, apart = bounds(law, m)
            excess = m + sum(p * sum(max(k - m, 0) for k in n) for n, p in law.items())
            if not 1 - union * side.tighter <= within <= apart * side.tighter:
                return fails(f"{name}, m={m}: {float(within):.6f} outside {float(1 - union):.6f}..{float(apart):.6f}")
            if excess * side.tighter < mean:
                return fails(f"{name}, m={m}: E max is {float(mean):.6f}, the bound {float(excess):.6f}")
            checked += 1
    return holds(f"{checked} loads of {len(laws())} laws")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, experts: int, top: int, load: int) -> dict[str, int]:
    """Uniform sets of `top` distinct experts, by sorting random numbers."""
    done = 0
    for start in range(0, trials, 10_000):
        n = min(10_000, trials - start)
        chosen = rng.random((n, tokens, experts)).argsort(axis=-1)[..., :top]
        loads = (chosen.reshape(n, -1, 1) == np.arange(experts)).sum(axis=1)
        done += int(np.count_nonzero(loads.max(axis=-1) <= load))
    return {"no overflow": done}


def law(side: SimpleNamespace, *, tokens: int, experts: int, top: int, load: int) -> dict[str, float]:
    share = Fraction(top, experts)
    within = sum(comb(tokens, k) * share**k * (1 - share) ** (tokens - k) for k in range(load + 1))
    # the mutant's tokens choose one expert more rarely than they do: its bound lies below the truth
    return {"no overflow": float(within ** (experts if side.step else 3 * experts))}


claim.simulate(
    sample,
    cases=[{"tokens": 12, "experts": 4, "top": 2, "load": 8}, {"tokens": 10, "experts": 6, "top": 2, "load": 5}],
    law=law,
    relation="at_most",
    trials=40_000,
    full=1_000_000,
)
