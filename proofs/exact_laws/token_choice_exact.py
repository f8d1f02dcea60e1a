"""N1. The success rate of token choice in closed form: success = hit x kept fraction, in O(1).

The discriminative token sits at a uniform position k and belongs to expert i; it survives if fewer than C of the k-1
tokens before it chose i: P = (p/s) Σ_{m=0}^{s-1} P(Bin(m,π) <= C-1) =: (p/s) G(s).

Closed form G(s) = s F(s,C) + (C/π)(1 - F(s+1,C+1)) with F(m,c) = P(Bin(m,π) <= c-1), proved by recurrence in s: both
sides are 0 at s = 0 and grow by F(s,C). With b(m,k) the binomial mass, Pascal's rule gives
F(m+1,C+1) = F(m,C+1) - π b(m,C) and F(m+1,C) = F(m,C) - π b(m,C-1), so the growth of the closed form minus F(s,C) is
C π b(s+1,C)/π - (s+1) π b(s,C-1), which vanishes by C b(s+1,C) = (s+1) π b(s,C-1).

The other printed forms are the same number: E min(T_C, s) counts the positions reached before the C-th candidate;
E min(N_s, C)/(πs) by exchangeability of positions; E min(1, C/(N_{s-1}+1)) by the size-biased count.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from types import SimpleNamespace

import flint
import numpy as np
import sympy as sp

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, token_choice

s, C, k = sp.symbols("s C k", integer=True, positive=True)
pi = sp.symbols("pi", positive=True)
POINTS = [{s: 9, C: 4, k: 3, pi: sp.Rational(2, 7)}, {s: 6, C: 2, k: 2, pi: sp.Rational(1, 3)}]


def mass(m: sp.Expr, j: sp.Expr) -> sp.Expr:
    return sp.binomial(m, j) * pi**j * (1 - pi) ** (m - j)


def side(extra: int) -> SimpleNamespace:
    """`extra` is added to s + 1, the number of trials in the closed form's second term (0 for the theorem)."""

    def value(tokens: int, share: Fraction, capacity: int) -> Fraction:
        def below(m: int, c: int) -> Fraction:
            return sum((comb(m, j) * share**j * (1 - share) ** (m - j) for j in range(min(c, m + 1))), Fraction(0))

        return below(tokens, capacity) + capacity / (share * tokens) * (1 - below(tokens + 1 + extra, capacity + 1))

    return SimpleNamespace(extra=extra, value=value)


claim = Claim(
    title="Exact success rate of token choice: hit rate times kept fraction, in O(1)",
    statement=r"$P_{TCR}=\frac{p}{s}\sum_{m=0}^{s-1}P(\mathrm{Bin}(m,\pi)\leq C-1)"
    r"=p\,\{P(\mathrm{Bin}(s,\pi)\leq C-1)+\frac{C}{\pi s}P(\mathrm{Bin}(s+1,\pi)\geq C+1)\}"
    r"=p\,E\min(N_s,C)/(\pi s)=p\,E\min\{1,C/(N_{s-1}+1)\}$",
    hypotheses=(
        r"$s\geq 1$, $1\leq C\leq s$, $0<\pi\leq 1$",
        r"background tokens independent, each a candidate of the expert with probability $\pi$; position uniform",
    ),
    source="ETR Definition 2 for token choice: exact law behind ETR Theorem 5, eq. 11 (arXiv 2406.00023); new",
    tag="N1",
    kind="equality",
    expected=Verdict.PROVED,
    studies=_skewed.STUDIES,
    truth=side(0),
    mutant=side(-1),
    mutation="s trials instead of s + 1 in the second term",
    theorem="token_choice.v: success_rate_of_token_choice",
    formal=("token_choice.v: success_rate_of_token_choice", "token_choice.v: pascal", "token_choice.v: size_bias"),
)


@claim.derivation("recurrence in s: the closed form grows by P(Bin(s,π) <= C-1)")
def recurrence_s_closed_form_grows(side: SimpleNamespace) -> Outcome:
    # F(m, c) enters only through Pascal's differences, so it stays a symbol: F0 = F(s,C).
    f0 = sp.Symbol("F0", positive=True)
    f_next = f0 - pi * mass(s, C - 1)  # F(s+1, C)
    # F(s+1+x, C+1) = F(s+x, C+1) - π b(s+x, C), x = extra: the fall of the second tail from s to s+1
    fall = pi * mass(s + 1 + side.extra, C)
    growth = ((s + 1) * f_next - s * f0) + C / pi * fall
    pascal = (mass(s + 1, k), pi * mass(s, k - 1) + (1 - pi) * mass(s, k))
    return every(
        [
            identity(
                *pascal, points=POINTS, unit=mass(s, k), name="Pascal's rule b(m+1,k) - π b(m,k-1) - (1-π) b(m,k)"
            ),
            identity(
                C * mass(s + 1, C),
                (s + 1) * pi * mass(s, C - 1),
                points=POINTS,
                unit=mass(s, C),
                name="C b(s+1,C) - (s+1) π b(s,C-1)",
            ),
            identity(growth, f0, points=POINTS, unit=mass(s, C), name="G(s+1) - G(s) - F(s,C)"),
        ]
    )


@claim.derivation("the start: both sides are 0 at s = 0")
def start_sides_s(side: SimpleNamespace) -> Outcome:
    # s F(s,C) = 0; P(Bin(1+x, π) >= C+1) = 0 for every C >= 1 exactly if 1+x <= 1; and the growth above needs x = 0,
    # checked at s = 0, C = 1: G(1) must be F(0,1) = 1.
    one = side.value(1, Fraction(1, 3), 1)
    return holds("G(0) = 0 and G(1) = 1") if one == 1 else fails(f"s = 1, C = 1 gives {one}, not 1")


@claim.derivation("size-biased count: E min(N_s,C)/(πs) = E min(1, C/(N_{s-1}+1)), term by term")
def size_biased_count_e_min(side: SimpleNamespace) -> Outcome:
    # k b(s,k) = πs b(s-1,k-1): so Σ min(k,C) b(s,k)/(πs) = Σ min(1, C/k) b(s-1,k-1), and k-1 is N_{s-1}.
    shifted = (k * mass(s + side.extra, k), pi * s * mass(s - 1, k - 1))
    return identity(*shifted, points=POINTS, unit=mass(s, k), name="k b(s,k) - πs b(s-1,k-1)")


@claim.reference("direct sums in exact rationals")
def direct_sums_exact_rationals(side: SimpleNamespace) -> Outcome:
    count = 0
    for tokens in (1, 2, 3, 5, 8, 13):
        for share in (Fraction(1), Fraction(1, 2), Fraction(2, 7), Fraction(1, 64)):
            pmf = [[comb(m, j) * share**j * (1 - share) ** (m - j) for j in range(m + 1)] for m in range(tokens + 1)]
            for capacity in range(1, tokens + 1):
                by_position = sum(sum(pmf[m][:capacity], Fraction(0)) for m in range(tokens)) / tokens
                by_load = sum(min(j, capacity) * v for j, v in enumerate(pmf[tokens])) / (share * tokens)
                by_rank = sum(min(Fraction(1), Fraction(capacity, j + 1)) * v for j, v in enumerate(pmf[tokens - 1]))
                if not by_position == by_load == by_rank == side.value(tokens, share, capacity):
                    return fails(f"s={tokens}, π={share}, C={capacity}: the direct sum is {by_position}")
                count += 3
    return holds(f"{count} equalities between the four forms hold exactly")


@claim.reference("the package against 60-digit incomplete beta functions, s up to 10^9")
def package_digit_incomplete_beta_functions(side: SimpleNamespace) -> Outcome:
    saved, flint.ctx.dps = flint.ctx.dps, 60
    worst = 0.0
    try:
        cases = [
            (128, 8, 1, 20),
            (10**9, 3, 1, 333_300_000),
            (10**9, 8, 1, 1),
            (10**9, 10**6, 7, 7_000),
            (10**6, 64, 2, 31_000),
            (4096, 1000, 1, 30),
            (7, 1, 1, 3),
        ]
        for tokens, experts, top, capacity in cases:
            share, c = flint.arb(top) / experts, flint.arb(capacity)

            def at_least(m: int, j: int, share: flint.arb = share) -> flint.arb:
                """P(Bin(m, π) >= j) = I_π(j, m-j+1)."""
                return (
                    share.beta_lower(flint.arb(j), flint.arb(m - j + 1), regularized=True) if j <= m else flint.arb(0)
                )

            second = at_least(tokens + 1 + side.extra, capacity + 1)
            reference = 1 - at_least(tokens, capacity) + c / (share * tokens) * second
            ours = flint.arb(float(token_choice.success(tokens, capacity, Rates(experts=experts, top=top))))
            # and averaged with an expert that takes every token, which keeps C of s
            pair = flint.arb(
                float(
                    token_choice.success(
                        tokens, capacity, Rates(experts=experts, load=[top / experts, 1.0], weight=[0.5, 0.5])
                    )
                )
            )
            both = (reference + c / tokens) / 2
            error = max(abs(float((ours / reference - 1).mid())), abs(float((pair / both - 1).mid())))
            worst = max(worst, error)
            if error > 1e-12:
                return fails(f"s={tokens}, n={experts}, l={top}, C={capacity}: relative difference {error:.2e}")
    finally:
        flint.ctx.dps = saved
    return holds(f"{len(cases)} settings agree to {worst:.0e}")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, top: int, capacity: int
) -> dict[str, int]:
    """The process itself: every token draws its Top-l experts, and positions are filled in order."""
    done, step = 0, max(1, 4_000_000 // (tokens * experts))
    for start in range(0, trials, step):
        n = min(step, trials - start)
        # the l smallest of n uniforms name a token's experts; expert 0 stands for the discriminative token's own one
        draws = rng.random((n, tokens, experts))
        chosen = (draws < draws[..., :1]).sum(axis=-1) < top
        before = np.cumsum(chosen, axis=1) - chosen
        position = rng.integers(tokens, size=n)
        done += int(np.count_nonzero(before[np.arange(n), position] < capacity))
    return {"kept given hit": done}


def law(side: SimpleNamespace, *, tokens: int, experts: int, top: int, capacity: int) -> dict[str, float]:
    return {"kept given hit": float(side.value(tokens, Fraction(top, experts), capacity))}


claim.simulate(
    sample,
    cases=[
        {"tokens": 6, "experts": 2, "top": 1, "capacity": 2},
        {"tokens": 16, "experts": 4, "top": 2, "capacity": 6},
        {"tokens": 64, "experts": 8, "top": 1, "capacity": 9},
    ],
    law=law,
    trials=60_000,
)


def sample_skewed(rng: np.random.Generator, trials: int, *, tokens: int, top: int, capacity: int) -> dict[str, int]:
    """Experts of unequal loads through the real router; the discriminative token scores so high that it hits for certain."""
    scores, position, expert = _skewed.sample(rng, trials, tokens, 60.0)
    return {"success": int(np.count_nonzero(token_choice.route(scores, capacity, top=top).contains(position, expert)))}


def law_skewed(side: SimpleNamespace, *, tokens: int, top: int, capacity: int) -> dict[str, float]:
    load = _skewed.LOAD if top == 1 else _skewed.pair_loads()
    return {"success": float(sum(side.value(tokens, Fraction(float(share)), capacity) for share in load) / len(load))}


claim.simulate(
    sample_skewed,
    cases=[{"tokens": 8, "top": 1, "capacity": 1}, {"tokens": 8, "top": 2, "capacity": 2}],
    law=law_skewed,
    trials=60_000,
    name="Monte Carlo, experts of unequal loads",
)
