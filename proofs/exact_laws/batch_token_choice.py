"""N10, token choice. B samples that share B C slots: the law of one sample of B s tokens, never worse with more samples.

In the batch a discriminative token meets Bs - 1 others, each a candidate with probability π (also the other samples' own
tokens: of class i with probability p/n, of another with (ℓ-p)/(n-1) each, ℓ/n in all), at a uniform position: N1 at (Bs, π, BC).

Monotone: the kept fraction is E min(S_B/B, C)/(πs), S_B the sum of B independent Bin(s,π). Given S_{B+r} = t the candidates are
anywhere, so S_B is hypergeometric with mean t B/(B+r): E[S_B/B | S_{B+r}] = S_{B+r}/(B+r), and Jensen for min(., C) gives
E min(S_B/B, C) <= E min(S_{B+r}/(B+r), C). It rises to min(1, C/(πs)) (law of large numbers).
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
from resonance_theory.rules import Rates, token_choice
from resonance_theory.rules.pooling import Pooled
from resonance_theory.tokens import samplers, signals

B, s, k, j, m, r, t = sp.symbols("B s k j m r t", integer=True, positive=True)
pi = sp.symbols("pi", positive=True)


def mass(trials: sp.Expr, count: sp.Expr) -> sp.Expr:
    return sp.binomial(trials, count) * pi**count * (1 - pi) ** (trials - count)


def side(others: sp.Expr) -> SimpleNamespace:
    """`others`: tokens of the batch that compete with the discriminative one, in B and s."""

    def value(samples: int, tokens: int, share: Fraction, capacity: int) -> Fraction:
        trials = int(others.subs({B: samples, s: tokens}))
        return sum(
            (
                comb(trials, i)
                * share**i
                * (1 - share) ** (trials - i)
                * min(Fraction(1), Fraction(samples * capacity, i + 1))
                for i in range(trials + 1)
            ),
            Fraction(0),
        )

    return SimpleNamespace(others=others, value=value)


claim = Claim(
    title="Batch capacity, token choice: pooling slots never hurts",
    statement=r"$P_{TCR}(B)=p\,E\min\{1,\frac{BC}{N+1}\}$, $N\sim\mathrm{Bin}(Bs-1,\pi)$, is non-decreasing in $B$ with limit "
    r"$p\min\{1,\frac{C}{\pi s}\}$",
    hypotheses=(
        r"$B$ samples of $s$ tokens in one position order, $BC$ slots for each expert",
        r"independent samples, exchangeable gates: every other token is a candidate with probability $\pi$",
        r"the sample asked for is uniform over the batch, its discriminative token uniform in it",
    ),
    source="new",
    tag="N10",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(B * s - 1),
    mutant=side(B * (s - 1)),
    mutation="the other samples' discriminative tokens do not compete: B(s-1) others",
    lemmas=("N1 (token_choice_exact)", "Jensen's inequality", "law of large numbers"),
)


@claim.derivation("size-biased count, and the reverse martingale S_B/B for all B, r, s")
def size_biased_count_reverse_martingale(side: SimpleNamespace) -> Outcome:
    points = [{m: 6, r: 4, t: 5, j: 3, B: 3, s: 4, k: 2, pi: sp.Rational(2, 7)}]
    # E min(1, BC/(N+1)) = E min(S_B, BC)/(πBs) term by term: k b(Bs,k) = πBs b(others, k-1)
    biased = (k * mass(B * s, k), pi * B * s * mass(side.others, k - 1))
    # m = Bs tokens of B samples beside r others, t candidates in all
    conditional = sp.binomial(m, j) * sp.binomial(r, t - j) / sp.binomial(m + r, t)
    split = (mass(m, j) * mass(r, t - j), mass(m + r, t) * conditional)
    mean_term = (
        j * conditional,
        t * m / (m + r) * sp.binomial(m - 1, j - 1) * sp.binomial(r, t - j) / sp.binomial(m + r - 1, t - 1),
    )
    return every(
        [
            identity(*biased, points=points, unit=mass(B * s, k), name="k b(Bs,k) - πBs b(others,k-1)"),
            identity(*split, points=points, name="given all candidates the count is hypergeometric"),
            # the remaining sum over j is 1 (Vandermonde), so the mean is t m/(m+r)
            identity(*mean_term, points=points, unit=conditional, name="its mean, term by term"),
        ]
    )


@claim.reference("exact rationals: the pooled law, its growth and its limit; the package")
def exact_rationals_pooled_law_growth(side: SimpleNamespace) -> Outcome:
    count = 0
    for tokens, share, capacity in (
        (3, Fraction(1, 2), 1),
        (4, Fraction(1, 4), 2),
        (5, Fraction(2, 7), 1),
        (6, Fraction(2, 3), 4),
    ):
        before = Fraction(0)
        for samples in range(1, 9):
            trials = samples * tokens
            pmf = [comb(trials, i) * share**i * (1 - share) ** (trials - i) for i in range(trials + 1)]
            pooled = sum(min(i, samples * capacity) * v for i, v in enumerate(pmf)) / (share * trials)
            if pooled != side.value(samples, tokens, share, capacity):
                return fails(f"B={samples}, s={tokens}, π={share}, C={capacity}: kept fraction {float(pooled):.6f}")
            if pooled < before:
                return fails(f"B={samples}, s={tokens}, π={share}, C={capacity}: falls")
            top, experts = share.numerator, share.denominator
            ours = Pooled(token_choice, samples).success(tokens, capacity, Rates(experts=experts, top=top))
            if abs(float(ours) / float(pooled) - 1) > 1e-13:
                return fails(f"package {ours}, exactly {float(pooled)}")
            before, count = pooled, count + 1
        limit = min(1.0, capacity / (float(share) * tokens))
        far = float(
            Pooled(token_choice, 10**6).success(tokens, capacity, Rates(experts=share.denominator, top=share.numerator))
        )
        if not limit - 1e-2 < far <= limit + 1e-12:
            return fails(f"a million samples give {far}, the limit is {limit}")
    return holds(f"{count} pooled laws equal exactly, each at least the one before")


def sample(
    rng: np.random.Generator, trials: int, *, samples: int, tokens: int, experts: int, capacity: int, top: int
) -> dict[str, int]:
    """Batches of planted samples through the router; a random sample of each batch is asked about."""
    done, step = 0, max(1, 2_000_000 // (samples * tokens * experts))
    for start in range(0, trials, step):
        n = min(step, trials - start)
        drawn = samplers.planted_affinity(rng, n * samples, tokens, 2 * experts, experts, 2.0)
        routed = token_choice.route(drawn.values.reshape(n, samples * tokens, experts), samples * capacity, top=top)
        asked = rng.integers(samples, size=n)
        row = np.arange(n) * samples + asked
        position, expert = asked * tokens + drawn.position[row], drawn.expert[row]
        done += int(
            np.count_nonzero((routed.token == position[routed.sample]) & (routed.expert == expert[routed.sample]))
        )
    return {"success": done}


def law(side: SimpleNamespace, *, samples: int, tokens: int, experts: int, capacity: int, top: int) -> dict[str, float]:
    hit = float(signals.hit_rate(2.0, experts, top=top))
    return {"success": hit * float(side.value(samples, tokens, Fraction(top, experts), capacity))}


claim.simulate(
    sample,
    cases=[
        {"samples": 6, "tokens": 4, "experts": 3, "capacity": 1, "top": 1},
        {"samples": 3, "tokens": 16, "experts": 4, "capacity": 4, "top": 1},
        {"samples": 4, "tokens": 8, "experts": 4, "capacity": 3, "top": 2},
    ],
    law=law,
    trials=40_000,
)
