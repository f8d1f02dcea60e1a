r"""How likely are k independent uniform draws from d values to be distinct?

They are with probability $\prod_{i<k}(1-i/d)$: each draw misses the ones before it. Each factor is at most $e^{-i/d}$, and
the exponents add up to $-k(k-1)/(2d)$.
"""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, ladder
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds

claim = Claim(
    title="Draws are distinct at most this often",
    statement=r"$\prod_{i=0}^{k-1}\left(1-\frac{i}{d}\right)\leq e^{-k(k-1)/(2d)}$",
    hypotheses=(r"$1\leq k\leq d$ whole numbers",),
    source="Example, theorem 1",
    kind="bound",
    expected=Verdict.PROVED,
    truth=sp.Rational(1, 2),  # the constant of the exponent
    mutant=sp.Rational(3, 5),
    mutation="3/5 in place of 1/2 in the exponent",
)


@claim.derivation("the exponents add up")
def exponents(constant: sp.Rational) -> Outcome:
    i, k = sp.symbols("i k", integer=True, positive=True)
    return identity(sp.summation(i, (i, 0, k - 1)) - constant * k * (k - 1), name="their sum minus the exponent")


@claim.certificate("each factor, for all x >= 0")
def factor(constant: sp.Rational) -> Outcome:
    x = sp.symbols("x", nonnegative=True)

    def last(second: sp.Expr) -> Outcome:
        scale = sp.simplify(second * sp.exp(2 * constant * x))
        return holds(f"the second derivative is {scale} e^(-2cx)") if scale.is_positive else fails(f"{second}")

    return ladder(sp.exp(-2 * constant * x) - (1 - x), x, last, steps=2, name="e^(-2cx) - (1 - x)")


def distinct(draws: int, values: int) -> Fraction:
    """The probability, exactly."""
    product = Fraction(1)
    for i in range(draws):
        product *= Fraction(values - i, values)
    return product


@claim.reference("whole numbers against 50 digits")
def numbers(constant: sp.Rational) -> Outcome:
    with mpmath.workdps(50):
        for draws, values in [(2, 2), (2, 365), (23, 365), (60, 365), (50, 10**6)]:
            exact = distinct(draws, values)
            bound = mpmath.exp(-mpmath.mpf(str(constant.evalf(50))) * draws * (draws - 1) / values)
            if mpmath.mpf(exact.numerator) / exact.denominator > bound:
                return fails(f"{draws} of {values}: {float(exact):.6g} exceeds {float(bound):.6g}")
    return holds("five pairs lie below the bound")


def sample(rng: np.random.Generator, trials: int, *, draws: int, values: int) -> dict[str, int]:
    drawn = np.sort(rng.integers(0, values, (trials, draws)), axis=1)
    return {"distinct": int(np.count_nonzero((np.diff(drawn, axis=1) > 0).all(axis=1)))}


claim.simulate(
    sample,
    cases=[{"draws": 23, "values": 365}],
    law=lambda constant, *, draws, values: {"distinct": float(sp.exp(-constant * draws * (draws - 1) / values))},
    relation="at_most",
    trials=400_000,
)
