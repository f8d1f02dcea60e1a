"""ETR figure 13: correlations near zero between tokens do not verify the isotropy of Assumption 4.

Independent tokens with x and -x of one law have mean cosine 0 and mean correlation 0, whatever else: E<x/|x|, y/|y|> is the
square of |E x/|x||, which the symmetry makes 0. Take Gaussian coordinates of deviation σ along the first gate and 1 along the
others: uncorrelated in pairs for every σ, but the first expert's load is

    π_1 = P(σ g_1 > max_{j>=2} g_j) = ∫ φ(u) Φ(σu)^{n-1} du,

1/n only at σ = 1 and 1/2 as σ grows: n = 8: .2596, .3297, .3693 at σ = 2, 3, 4. So a mean of zero is no test of isotropy; the
loads are, or the spread of the correlations (token_correlation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy as sp
from scipy import integrate, special

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds


@dataclass(frozen=True)
class Side:
    """The load is claimed to be that at deviation σ^power: 0 is isotropy."""

    power: int

    def load(self, spread: float, experts: int) -> float:
        sigma = spread**self.power
        return float(
            integrate.quad(
                lambda u: np.exp(-u * u / 2) / np.sqrt(2 * np.pi) * special.ndtr(sigma * u) ** (experts - 1),
                -9,
                9,
                points=(-1, 0, 1),
                epsabs=1e-12,
            )[0]
        )


claim = Claim(
    title="Uncorrelated tokens need not be isotropic: the mean cosine is 0 for every symmetric law, the load is not 1/n",
    statement=r"independent tokens $x=(\sigma g_1,g_2,\dots)$: $E\cos(x,y)=0$ for every $\sigma$, "
    r"$\pi_1=\int\varphi(u)\Phi(\sigma u)^{n-1}du$: $.125,.2596,.3297,.3693$ at $\sigma=1,2,3,4$, $n=8$, and $\to\frac12$",
    hypotheses=(r"$g$ standard normal, orthonormal gates on the axes, Top-1",),
    source="ETR figure 13: near-zero correlations verify isotropy; ETR Assumption 4, eq. 9 (arXiv 2406.00023)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=Side(1),
    mutant=Side(2),
    mutation="the deviation squared",
    printed=Side(0),
    correction=r"Printed: correlations near zero verify the isotropy assumption. They do not: with a deviation of 3 along one "
    r"of 8 gates the mean correlation of tokens is 0 and that gate receives .330 of them.",
    lemmas=("token_correlation",),
)


@claim.derivation("two experts in closed form: P(σ g_1 > g_2) = 1/2 for every σ; three from the orthant; the limit 1/2")
def small_numbers_in_closed_form(side: Side) -> Outcome:
    sigma = sp.symbols("sigma", positive=True)
    power = sigma**side.power
    # σ^p g_1 - g_2, σ^p g_1 - g_3 have the correlation r = σ²/(1+σ²): P(both > 0) = 1/4 + asin(r)/2π
    correlation = power**2 / (1 + power**2)
    claimed = sp.Rational(1, 4) + sp.asin(correlation) / (2 * sp.pi)
    three = sp.Rational(1, 4) + sp.asin(sigma**2 / (1 + sigma**2)) / (2 * sp.pi)
    point = {sigma: 2}
    return every(
        [
            identity(claimed, three, points=[point], name="π_1 at n = 3 - (1/4 + asin(σ²/(1+σ²))/2π)"),
            identity(sp.limit(three, sigma, sp.oo), sp.Rational(1, 2), name="its limit - 1/2"),
            identity(three.subs(sigma, 1), sp.Rational(1, 3), name="at σ = 1 - 1/3"),
        ]
    )


@claim.counterexample("n = 8, σ = 3")
def heavy_axis(side: Side) -> Outcome:
    found = Side(1).load(3.0, 8)
    text = f"the load is {found:.4f}, claimed {side.load(3.0, 8):.4f}"
    return holds(text) if abs(side.load(3.0, 8) - found) < 1e-9 else fails(text)


@claim.reference("n = 3 in closed form, σ = .2 to 10, against the integral; n = 8 to the printed digits")
def three_experts_by_orthant(side: Side) -> Outcome:
    for spread in (0.2, 0.5, 1.0, 2.0, 10.0):
        exact = 0.25 + np.arcsin(spread**2 / (1 + spread**2)) / (2 * np.pi)
        if abs(side.load(spread, 3) - exact) > 1e-9:
            return fails(f"σ={spread}: {side.load(spread, 3):.9f}, by the orthant {exact:.9f}")
    for spread, printed in ((1.0, 0.125), (2.0, 0.2596), (3.0, 0.3297), (4.0, 0.3693)):
        if abs(side.load(spread, 8) - printed) > 5e-5:
            return fails(f"σ={spread}, n=8: {side.load(spread, 8):.6f}")
    return holds("five loads agree to 1e-9; .125, .2596, .3297, .3693 at n = 8")


def sample(rng: np.random.Generator, trials: int, *, dim: int, experts: int, spread: float) -> dict[str, int]:
    """Tokens through the affinity; how many pairs of tokens have a positive cosine."""
    scale = np.ones(dim)
    scale[0] = spread
    first, second = rng.standard_normal((2, trials, dim)) * scale
    chosen = affinity(first, gates=np.eye(experts, dim)).argmax(axis=1)
    positive = (first * second).sum(axis=1) > 0
    return {"load": int(np.count_nonzero(chosen == 0)), "positive": int(np.count_nonzero(positive))}


claim.simulate(
    sample,
    cases=[{"dim": 8, "experts": 8, "spread": 3.0}],
    law=lambda side, *, dim, experts, spread: {"load": side.load(spread, experts), "positive": 0.5},
    trials=100_000,
)
