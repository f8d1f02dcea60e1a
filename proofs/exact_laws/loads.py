"""N3. Loads and kept tokens: the same for token choice and resonance, and how the experts' loads move together.

Both rules offer an expert the same candidates and keep min(N_i, C) of them; they differ only in which. N_i ~ Bin(s, π). Since
k b(s,k) = sπ b(s-1,k-1), the candidates counted below C are sπ P(Bin(s-1,π) <= C-2), and the rest count C each. A token
chooses both experts i and j with probability C(n-2,l-2)/C(n,l) = l(l-1)/(n(n-1)), which gives the covariance; the loads
sum to sl, so Var N_i + (n-1) Cov(N_i,N_j) = 0.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, resonance, token_choice
from resonance_theory.tokens import samplers

s, k = sp.symbols("s k", integer=True, positive=True)
n, top, pi = sp.symbols("n l pi", positive=True)


def side(pair: sp.Expr, below: int) -> SimpleNamespace:
    """`pair`: P(a token chooses both of two experts); the kept formula sums P(Bin(s-1,π) <= C - `below`)."""

    def kept(tokens: int, share: Fraction, capacity: int) -> Fraction:
        def mass(m: int, j: int) -> Fraction:
            return comb(m, j) * share**j * (1 - share) ** (m - j) if 0 <= j <= m else Fraction(0)

        fewer = sum((mass(tokens - 1, j) for j in range(capacity - below + 1)), Fraction(0))
        full = 1 - sum((mass(tokens, j) for j in range(capacity)), Fraction(0))
        return tokens * share * fewer + capacity * full

    return SimpleNamespace(pair=pair, below=below, kept=kept)


claim = Claim(
    title="Loads and kept tokens of token choice and resonance",
    statement=r"both rules keep $\min(N_i,C)$ tokens; "
    r"$E\min(N_i,C)=s\pi P(\mathrm{Bin}(s-1,\pi)\leq C-2)+CP(\mathrm{Bin}(s,\pi)\geq C)$; "
    r"$\mathrm{Var}N_i=s\pi(1-\pi)$; $\mathrm{Cov}(N_i,N_j)=s\{\frac{l(l-1)}{n(n-1)}-\pi^2\}$",
    hypotheses=(r"independent tokens, exchangeable gates, Top-$l$, $\pi=l/n$",),
    source="new",
    tag="N3",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(top * (top - 1) / (n * (n - 1)), 2),
    mutant=side(top**2 / n**2, 1),
    mutation="experts chosen independently (pair probability π²), and C-1 for C-2 in the kept formula",
)


@claim.derivation("kept tokens by recurrence in C: the closed form grows by P(N_i >= C+1)")
def kept_tokens_recurrence_c_closed(side: SimpleNamespace) -> Outcome:
    # E min(N,C+1) - E min(N,C) = P(N >= C+1) = 1 - F - b(s,C) with F = P(N <= C-1), and both sides are 0 at C = 0.
    # K(C) = sπ P(Bin(s-1,π) <= C-below) + C (1 - F): its first part grows by sπ b(s-1, C+1-below).
    f = sp.Symbol("F", positive=True)

    def mass(m: sp.Expr, j: sp.Expr) -> sp.Expr:
        return sp.binomial(m, j) * pi**j * (1 - pi) ** (m - j)

    growth = s * pi * mass(s - 1, k + 1 - side.below) + (k + 1) * (1 - f - mass(s, k)) - k * (1 - f)
    start = sum(side.kept(tokens, Fraction(2, 7), 0) for tokens in (1, 2, 5))
    return every(
        [
            identity(
                growth,
                1 - f - mass(s, k),
                points=[{s: 7, k: 3, pi: sp.Rational(1, 3), f: sp.Rational(1, 2)}],
                unit=mass(s, k),
                name="K(C+1) - K(C) - P(N >= C+1)",
            ),
            holds("K(0) = 0") if start == 0 else fails(f"K(0) is {start}, not 0"),
        ]
    )


@claim.derivation("covariance: independent tokens, pair probability, and the loads' constant sum")
def covariance_independent_tokens_pair_probability(side: SimpleNamespace) -> Outcome:
    share = top / n
    # Loads are sums over s independent tokens, so Var and Cov are s times one token's: P(i) - P(i)², P(i,j) - P(i)P(j).
    # The sets of l experts that hold both i and j are C(n-2,l-2) of C(n,l).
    sets = sp.binomial(n - 2, top - 2) / sp.binomial(n, top)
    variance, covariance = share * (1 - share), side.pair - share**2
    return every(
        [
            identity(sets, side.pair, points=[{n: 8, top: 3}], name="C(n-2,l-2)/C(n,l) - P(i and j)"),
            identity(variance, -((n - 1) * covariance), points=[{n: 8, top: 3}], name="Var + (n-1) Cov"),
        ]
    )


@claim.reference("all choices of Top-l sets enumerated; kept sums in exact rationals; both rules on the real router")
def choices_top_l_sets_enumerated(side: SimpleNamespace) -> Outcome:
    for experts in range(2, 8):
        for chosen in range(1, experts + 1):
            both = Fraction(comb(experts - 2, chosen - 2) if chosen >= 2 else 0, comb(experts, chosen))
            claimed = Fraction(str(side.pair.subs({n: experts, top: chosen})))
            if both != claimed:
                return fails(f"n={experts}, l={chosen}: pair probability {both}, not {claimed}")
    for tokens in (1, 2, 5, 9):
        for share in (Fraction(1, 3), Fraction(2, 7)):
            for capacity in range(1, tokens + 1):
                pmf = [comb(tokens, j) * share**j * (1 - share) ** (tokens - j) for j in range(tokens + 1)]
                direct = sum(min(j, capacity) * v for j, v in enumerate(pmf))
                if direct != side.kept(tokens, share, capacity):
                    return fails(
                        f"s={tokens}, π={share}, C={capacity}: {direct}, not {side.kept(tokens, share, capacity)}"
                    )
                ours = float(
                    token_choice.kept(
                        tokens, capacity, Rates(experts=7 if share.denominator == 7 else 3, top=share.numerator)
                    )
                )
                if abs(ours / float(direct) - 1) > 1e-13:
                    return fails(f"package keeps {ours}, exactly {direct}")
    scores = samplers.isotropic_affinity(np.random.default_rng(1), 300, 24, 8, 4)
    first, best = token_choice.route(scores, 5, top=2), resonance.route(scores, 5, top=2)
    if not np.array_equal(first.load, best.load) or not np.array_equal(first.kept, best.kept):
        return fails("the two rules keep different numbers")
    return holds("pair probabilities, kept formula and equal loads hold exactly")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, top: int, capacity: int
) -> dict[str, int]:
    """Isotropic tokens through the router: is a random slot of expert 0 filled, does token 0 choose experts 0 and 1?"""
    filled = both = 0
    for start in range(0, trials, 20_000):
        count = min(20_000, trials - start)
        scores = samplers.isotropic_affinity(rng, count, tokens, experts, experts)
        routed = resonance.route(scores, capacity, top=top)
        filled += int(np.count_nonzero(routed.kept[:, 0] > rng.integers(capacity, size=count)))
        everything = token_choice.route(scores[:, :1], 1, top=top)
        both += int(np.count_nonzero((everything.load[:, 0] > 0) & (everything.load[:, 1] > 0)))
    return {"slot filled": filled, "both experts": both}


def law(side: SimpleNamespace, *, tokens: int, experts: int, top: int, capacity: int) -> dict[str, float]:
    kept = side.kept(tokens, Fraction(top, experts), capacity)
    pair = side.pair.subs({n: experts, sp.Symbol("l", positive=True): top})
    return {"slot filled": float(kept) / capacity, "both experts": float(pair)}


claim.simulate(sample, cases=[{"tokens": 12, "experts": 4, "top": 2, "capacity": 9}], law=law, trials=60_000)
