"""N3. Expert choice leaves a positive fraction of tokens unprocessed, even where the slots are as many as the tokens.

Let c = C/s and U_j = q_j(δ_j), the fraction of tokens that a token expects above itself at expert j: uniform on (0,1).
Expert j takes a token iff fewer than C of the s-1 others outrank it, Bin(s-1, U_j) <= C-1; compare with the fixed threshold
U_j <= c. Tokens below the threshold that are refused, and tokens above it that are taken, have the same probability, since
P(taken) = C/s = c = P(U_j <= c). It is

    m = ∫_0^c P(Bin(s-1,u) >= C) du = E (c - Y)_+,   Y = the C-th least of s-1 uniforms = Beta(C, s-C),

and as E Y = C/s = c, m = E|Y - c|/2 <= sd(Y)/2 = sqrt(c(1-c)/(s+1))/2. A token unprocessed by all n experts against
U_j > c for all j: each of the two differences needs a difference at some expert, so has probability at most n m. Hence

    |P(unprocessed) - W(c)| <= (n/2) sqrt(c(1-c)/(s+1)),   W(c) = P(U_1 > c, .., U_n > c),

whatever the dependence between experts. For isotropic tokens and orthonormal gates W(c) = P(max_j δ_j < q^-1(c)). The n caps
have total measure nc, so W(c) >= 1 - nc; and for c <= 1/2 the threshold is >= 0, so W(c) >= P(all δ_j < 0) = 2^-n. With as
many slots as tokens, c = 1/n, the limit is positive (.338 at n = 8, d = 64), while token choice and resonance drop at most
½ sqrt((1-π)/C) of theirs (N2), which tends to 0.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.interpolate import BarycentricInterpolator
from scipy.special import betainc, betaln

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice
from resonance_theory.tokens import candidates, caps, samplers

s, C = sp.symbols("s C", integer=True, positive=True)
u = sp.symbols("u", positive=True)
Floats = NDArray[np.float64]


def side(factor: str, dependent: bool) -> SimpleNamespace:
    """`factor` of sd(Y)/2 in the misranking; the limit for caps of orthonormal gates, or as if experts were independent."""

    def limit(share: float, experts: int, dim: int) -> float:
        if not dependent:
            return float((1 - share) ** experts)
        return float(1 - experts * candidates.candidate_tail(caps.cap_quantile(share, dim), dim, experts))

    return SimpleNamespace(factor=sp.Rational(factor), limit=limit)


claim = Claim(
    title="Expert choice leaves tokens unprocessed, even with as many slots as tokens",
    statement=r"$|P(\mathrm{unprocessed})-W(c)|\leq\frac{n}{2}\sqrt{\frac{c(1-c)}{s+1}}$ with $c=C/s$, "
    r"$W(c)=P(q_1(\delta_1)>c,\ldots,q_n(\delta_n)>c)$; each expert refuses a token with $q_j\leq c$ with probability at most "
    r"$\frac{1}{2}\sqrt{\frac{c(1-c)}{s+1}}$; for isotropic tokens and orthonormal gates $W(c)=P(\max_j\delta_j<q^{-1}(c))"
    r"\geq\max(1-nc,2^{-n})$, $c\leq\frac{1}{2}$",
    hypotheses=(
        r"independent, identically distributed tokens; continuous affinity at each expert",
        r"$1\leq C\leq s$",
        r"last part: isotropic tokens, orthonormal gates",
    ),
    source="new",
    tag="N3",
    kind="asymptotic",
    expected=Verdict.PROVED,
    truth=side("1", True),
    mutant=side("3/4", False),
    mutation="3/4 of the misranking bound, and experts that choose independently: the limit $(1-c)^n$",
    lemmas=("union bound", "exchangeability identity (N5): a token is taken with probability C/s"),
    formal=("scalar_lemmas.v: modulus_below_mean",),
)


@claim.derivation("the C-th least of s-1 uniforms: its law, and mean c and variance c(1-c)/(s+1)")
def c_th_least_s_uniforms(side: SimpleNamespace) -> Outcome:
    def mass(m: sp.Expr, j: sp.Expr) -> sp.Expr:
        return sp.binomial(m, j) * u**j * (1 - u) ** (m - j)

    # d/du b(s-1, j) = (s-1) (b(s-2, j-1) - b(s-2, j)); summed over j >= C it telescopes to (s-1) b(s-2, C-1), which is
    # the density of Beta(C, s-C).
    slope = (sp.diff(mass(s - 1, C), u), (s - 1) * (mass(s - 2, C - 1) - mass(s - 2, C)))
    norm = sp.gamma(s) / (sp.gamma(C) * sp.gamma(s - C))
    density = ((s - 1) * mass(s - 2, C - 1), norm * u ** (C - 1) * (1 - u) ** (s - C - 1))
    first = norm * sp.gamma(C + 1) * sp.gamma(s - C) / sp.gamma(s + 1)
    second = norm * sp.gamma(C + 2) * sp.gamma(s - C) / sp.gamma(s + 2)
    share = C / s
    points = [{s: 9, C: 4, u: sp.Rational(2, 7)}]
    # With sd = w and X = Y - c: |x| <= factor (x²/w + w)/2 for all x gives E|X| <= factor sd. The slack 2w times that, on
    # both sides of |x| = w:
    x, y = sp.symbols("x y", nonnegative=True)
    return every(
        [
            identity(*slope, points=points, unit=mass(s - 1, C), name="d/du b(s-1,C) - (s-1)(b(s-2,C-1) - b(s-2,C))"),
            identity(*density, points=points, unit=mass(s - 1, C), name="(s-1) b(s-2,C-1) - Beta(C,s-C) density"),
            identity(sp.gammasimp(first), share, points=points, name="mean - C/s"),
            identity(sp.gammasimp(second) - share**2, share * (1 - share) / (s + 1), points=points, name="variance"),
            nonnegative_polynomial(
                sp.expand(side.factor * (x**2 + (x + y) ** 2) - 2 * x * (x + y)), {x: 0, y: 0}, name="slack, |x| <= w"
            ),
            nonnegative_polynomial(
                sp.expand(side.factor * ((x + y) ** 2 + x**2) - 2 * x * (x + y)), {x: 0, y: 0}, name="slack, |x| >= w"
            ),
        ]
    )


@claim.reference("refused tokens below the threshold in exact rationals, all C < s <= 14")
def refused_tokens_below_threshold_exact(side: SimpleNamespace) -> Outcome:
    factor, widest = Fraction(str(side.factor)), 0.0
    for tokens in range(2, 15):
        for capacity in range(1, tokens):
            share, m = Fraction(capacity, tokens), tokens - 1
            # powers of u of each binomial mass, integrated over [0, c]
            misranked = sum(
                comb(m, j) * comb(m - j, i) * (-1) ** i * share ** (j + i + 1) / (j + i + 1)
                for j in range(capacity, m + 1)
                for i in range(m - j + 1)
            )
            square = share * (1 - share) / (tokens + 1)
            widest = max(widest, float(4 * misranked**2 / square) ** 0.5)
            if 4 * misranked**2 > factor**2 * square:
                return fails(f"s={tokens}, C={capacity}: {float(misranked):.6f} are refused, more than claimed")
    return holds(f"91 settings below the bound, the widest at {widest:.4f} of it")


def none_above(a: float, dim: int, experts: int) -> float:
    """P(max of `experts` coordinates < a) on the sphere, a >= 0, one coordinate at a time: given x_1 = x, the others are
    sqrt(1-x²) times a uniform point one dimension lower."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    grid = a + (1 - a) * (1 - np.cos(np.pi * (np.arange(120) + 0.5) / 120)) / 2

    def one(b: Floats, d: int) -> Floats:
        return 0.5 * (1 + betainc(0.5, 0.5 * (d - 1), b * b))

    current = one(grid, dim - experts + 1)
    for d in range(dim - experts + 2, dim + 1):
        below = BarycentricInterpolator(grid, current)
        top = grid if d < dim else np.array([a])
        x = -1 + (top[:, None] + 1) * (nodes + 1) / 2
        raised = top[:, None] / np.sqrt(1 - x * x)
        inside = np.where(raised < 1, below(np.minimum(raised, 1.0)), 1.0)
        density = np.exp(0.5 * (d - 3) * np.log1p(-x * x) - betaln(0.5, 0.5 * (d - 1)))
        current = (density * inside) @ weights * (top + 1) / 2
    return float(current[0])


@claim.reference("the limit for isotropic tokens: nested integrals, disjoint caps, and the floor 2^-n")
def limit_isotropic_tokens_nested_integrals(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    for experts, dim, share in ((8, 64, 1 / 8), (8, 64, 1 / 4), (4, 32, 1 / 4), (3, 40, 0.1)):
        ours = side.limit(share, experts, dim)
        nested = none_above(float(caps.cap_quantile(share, dim)), dim, experts)
        worst = max(worst, abs(ours / nested - 1))
        if abs(ours / nested - 1) > 1e-8:
            return fails(f"n={experts}, d={dim}, c={share}: {ours:.8f}, nested integrals give {nested:.8f}")
    # caps narrower than 45 degrees around orthogonal gates are disjoint
    for experts, dim, share in ((2, 2, 0.25), (4, 8, 0.01), (16, 16, 1e-4)):
        ours = side.limit(share, experts, dim)
        if abs(ours - (1 - experts * share)) > 1e-12:
            return fails(f"n={experts}, d={dim}, c={share}: {ours:.8f}, disjoint caps leave {1 - experts * share:.8f}")
    for experts in (2, 3, 5, 8):
        for dim in (experts, 2 * experts, 16 * experts):
            if side.limit(1 / experts, experts, dim) < 2.0**-experts * (1 - 1e-12):
                return fails(f"n={experts}, d={dim}: the limit is below 2^-n")
    return holds(
        f"agree to {worst:.0e}; with as many slots as tokens, n=8 and d=64, {side.limit(1 / 8, 8, 64):.6f} unprocessed"
    )


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, dim: int, capacity: int
) -> dict[str, int]:
    """Isotropic tokens through the router: does any expert take the first token?"""
    taken, step = 0, max(1, 4_000_000 // (tokens * experts))
    for start in range(0, trials, step):
        scores = samplers.isotropic_affinity(rng, min(step, trials - start), tokens, dim, experts)
        routed = expert_choice.route(scores, capacity)
        assert routed.sample is not None
        taken += np.unique(routed.sample[routed.token == 0]).size
    return {"unprocessed": trials - taken, "processed": taken}


def law(side: SimpleNamespace, *, tokens: int, experts: int, dim: int, capacity: int) -> dict[str, float]:
    share = capacity / tokens
    limit = side.limit(share, experts, dim)
    error = experts / 2 * float(side.factor) * (share * (1 - share) / (tokens + 1)) ** 0.5
    return {"unprocessed": limit - error, "processed": 1 - limit - error}


claim.simulate(
    sample,
    cases=[
        {"tokens": 128, "experts": 2, "dim": 2, "capacity": 32},
        {"tokens": 64, "experts": 4, "dim": 8, "capacity": 16},
    ],
    law=law,
    relation="at_least",
    trials=40_000,
)
