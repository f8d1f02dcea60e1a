"""Load dispersion that chance alone leaves: E CV² of the experts' loads under independent routing, for any shares.

With N tokens that take expert i with probability π_i independently, CV² = (n/N²) Σ (N_i - N/n)², and
E(N_i - N/n)² = Nπ_i(1-π_i) + N²(π_i - 1/n)². Summed, with q = Σπ_i²: E CV² = nq - 1 + n(1-q)/N; equal shares leave (n-1)/N.
A balanced router therefore shows a CV of about sqrt((n-1)/N), which no loss can lower without coupling the tokens.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs._isotropic import chunks, coin
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

n, tokens, q, p = sp.symbols("n N q p", positive=True)


def side(lost: int) -> SimpleNamespace:
    """`lost`: what is taken off the number of tokens in the second term (0 for the theorem)."""
    return SimpleNamespace(square=n * q - 1 + n * (1 - q) / (tokens - lost))


claim = Claim(
    title="Load dispersion under independent routing: E CV² = nΣπ² - 1 + n(1 - Σπ²)/N",
    statement=r"$E[\mathrm{CV}^2]=n\sum_i\pi_i^2-1+\frac{n(1-\sum_i\pi_i^2)}{N}$; for equal shares $\frac{n-1}{N}$",
    hypotheses=(
        r"$N\geq 1$ tokens choose independently, expert $i$ with probability $\pi_i$; population $\mathrm{CV}$",
    ),
    source="load variance of Top-1 routing; new",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("chen_homogenization",),
    truth=side(0),
    mutant=side(1),
    mutation="N - 1 in place of N, as for a sample variance over tokens",
)


@claim.derivation("the binomial second moment about N/n, summed over the experts")
def second_moment_summed_over_experts(side: SimpleNamespace) -> Outcome:
    one = tokens * p * (1 - p) + tokens**2 * (p - 1 / n) ** 2  # variance plus squared bias of a binomial
    # Σ 1 = n, Σ π = 1, Σ π² = q, term by term in the powers of p
    poly = sp.Poly(sp.expand(one), p)
    total = poly.coeff_monomial(1) * n + poly.coeff_monomial(p) + poly.coeff_monomial(p**2) * q
    points = [{n: 8, tokens: 5, q: sp.Rational(1, 4)}]
    return every(
        [
            identity(n / tokens**2 * total, side.square, points=points, name="E CV² - claim"),
            identity(side.square.subs(q, 1 / n), (n - 1) / tokens, points=[{n: 8, tokens: 5}], name="equal shares"),
        ]
    )


@claim.reference("every outcome of 2 to 7 tokens in exact rationals; the package")
def every_outcome_of_few_tokens(side: SimpleNamespace) -> Outcome:
    count = 0
    for share in (
        [Fraction(1, 3)] * 3,
        [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)],
        [Fraction(1, 5), Fraction(4, 5)],
    ):
        m = len(share)
        for total in range(2, 8):
            mean = Fraction(0)
            for load in itertools.product(range(total + 1), repeat=m):
                if sum(load) == total:
                    probability, left = Fraction(1), int(total)
                    for k, part in zip(load, share):
                        probability *= comb(left, k) * part**k
                        left -= k
                    mean += probability * sum((k - Fraction(total, m)) ** 2 for k in load) * m / total**2
            square = sum(part**2 for part in share)
            claimed = side.square.subs({n: m, tokens: total, q: sp.Rational(square.numerator, square.denominator)})
            if sp.Rational(mean.numerator, mean.denominator) != claimed:
                return fails(f"N={total}, shares {[str(v) for v in share]}: {mean} by enumeration, {claimed} claimed")
            ours = float(homogenization.load_cv_rms(total, [float(v) for v in share])) ** 2
            if abs(ours / float(mean) - 1) > 1e-12:
                return fails(f"N={total}: package {ours}")
            count += 1
    return holds(f"{count} enumerations agree exactly, and the package with them")


def sample(rng: np.random.Generator, trials: int, *, total: int, share: list[float]) -> dict[str, int]:
    """Coins of CV²/(n-1), which is at most 1."""
    heads = 0
    for count in chunks(trials):
        load = rng.multinomial(total, share, count)
        heads += coin(rng, homogenization.load_cv(load) ** 2 / (len(share) - 1))
    return {"CV²": heads}


def law(side: SimpleNamespace, *, total: int, share: list[float]) -> dict[str, float]:
    square = float(side.square.subs({n: len(share), tokens: total, q: sum(v * v for v in share)}))
    return {"CV²": (1 + square / (len(share) - 1)) / 2}


claim.simulate(
    sample,
    cases=[{"total": 4, "share": [0.25] * 4}, {"total": 8, "share": [0.5, 0.25, 0.25]}],
    law=law,
)
