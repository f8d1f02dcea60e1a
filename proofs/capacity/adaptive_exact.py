"""N12. Adaptive capacity by affinity mass at every number of tokens: one sum of independent terms decides.

An expert keeps the fewest best candidates whose affinities sum to τ of their total S, none if S <= 0. A candidate of affinity a
is kept iff S > 0 and those above it sum to A < τS. With W the sum below, S = A + a + W:

    a > 0:  A is a sum of positive numbers, so A < τS implies S > 0; and A - τS = [(1-τ)A - τW] - τa.
    a <= 0: S - A = a + W <= 0, so S > 0 implies A >= S >= τS: never kept.

So kept iff a > 0 and Σ_t Y_t < τa, Y_t = 1{t is a candidate} δ_t (1{δ_t > a} - τ): independent over the other tokens. Hence

    success = E[1_hit 1{δ_o > 0} P(Σ_{s-1} Y_t < τ δ_o)],   E kept = s ∫_0^1 P(Σ_{s-1} Y_t < τa) (-dh(a))

at every s, exactly; the package inverts the characteristic function of the sum. Of N candidates with S > 0 at most ⌈τN⌉ are
kept, as the mean of the ⌈τN⌉ best is at least that of all, and ⌈τN⌉ exactly if all affinities are equal: the affinities' spread
only lowers the number, so in the limit f <= τ for every law of the tokens, at every time of every flow.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
import sympy as sp
from scipy import special

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import adaptive
from resonance_theory.tokens import affinity_mass, candidates, samplers, signals


@dataclass(frozen=True)
class Side:
    """Kept iff the sum above, with `own` times its own affinity, is below `share` times τ of the total."""

    own: int
    share: float = 1.0


claim = Claim(
    title="Adaptive capacity by affinity mass: the exact law at every number of tokens",
    statement=r"a candidate of affinity $a$ is kept iff $a>0$ and $\sum_tY_t<\tau a$, "
    r"$Y_t=1\{candidate\}\,\delta_t(1\{\delta_t>a\}-\tau)$; so success is "
    r"$E[1_{hit}1\{\delta_o>0\}P(\sum_{t<s}Y_t<\tau\delta_o)]$ at every $s$; "
    r"of $N$ candidates at most $\lceil\tau N\rceil$ are kept, all of these if affinities are equal",
    hypotheses=(
        r"background tokens independent of each other and of $o$; no ties (for the last statement: ties are broken)",
        r"$0<\tau\leq 1$; an expert whose candidates' affinities sum to at most 0 keeps none",
    ),
    source="new; a reading of the adaptive capacity of ETR (arXiv 2406.00023), which gives no rule",
    tag="N12",
    kind="equality",
    expected=Verdict.PROVED,
    truth=Side(0),
    mutant=Side(1),
    mutation="the candidate that reaches the share is not kept: its own affinity counts among those above",
)


@claim.derivation("the criterion, and why the sign of the total needs no word of its own")
def criterion_why_sign_total_needs(side: Side) -> Outcome:
    above, below, a, tau = sp.symbols("A W a tau", real=True)
    total = above + below + a
    criterion = (above + side.own * a - tau * total, (1 - tau) * above - tau * below - tau * a)
    # a > 0: with slack = τS - A > 0 and A >= 0, τS is a sum of non-negative terms
    slack, positive, last, low, part = sp.symbols("slack A_+ last low part", nonnegative=True)
    # a = -last <= 0 and W = -low <= 0, S = part > 0: A = S + last + low, and A - τS >= 0 for τ = 1/(1 + more)
    more = sp.symbols("more", nonnegative=True)
    return every(
        [
            identity(
                *criterion,
                points=[{above: 3, below: sp.Rational(1, 2), a: sp.Rational(1, 3), tau: sp.Rational(4, 5)}],
                name="A - τS - [(1-τ)A - τW - τa]",
            ),
            nonnegative_polynomial(slack + positive, {slack: 0, positive: 0}, name="τS at a > 0"),
            nonnegative_polynomial(
                sp.expand((part + last + low) * (1 + more) - part),
                {part: 0, last: 0, low: 0, more: 0},
                name="A - τS at a <= 0, cleared",
            ),
        ]
    )


@claim.certificate("at most ⌈τN⌉ are kept, and as many where all affinities are equal")
def most_n_kept_many_affinities(side: Side) -> Outcome:
    # k best of mean level + x, the N - k = rest others of mean level - y: the best sum to at least k/N of the total
    k, rest, x, y, level = sp.symbols("k rest x y level", positive=True)
    best, others = k * (level + x), rest * (level - y)
    slack = sp.expand(best * (k + rest) - k * (best + others))
    outcomes = [nonnegative_polynomial(slack, {k: 0, rest: 0, x: 0, y: 0}, name="N (sum of the k best) - k S")]
    for number in range(1, 41):
        for tenth in range(1, 21):
            share = Fraction(tenth, 20)
            kept = sum(j + side.own < share * number for j in range(number))  # j above, all of affinity 1
            if kept != ceil(share * number):
                return fails(f"of {number} equal candidates {kept} are kept at τ = {share}, not {ceil(share * number)}")
    return every([*outcomes, holds("800 numbers of equal candidates")])


@functools.lru_cache
def three(own: int, dim: int, experts: int, signal: float, mass: float, load: float = 0.0) -> tuple[float, float]:
    """(success, fraction kept) at three tokens, by a sum over the two others' affinities: no Fourier inversion.

    load: the expert's share of the background, if it is not 1/experts.
    """
    more = load * experts or 1.0
    step = 1 / 220
    grid = np.arange(-0.85 + step / 2, 0.9, step)
    chosen = candidates.hit_given_affinity(grid, dim, experts) * step
    density, hit = (chosen * signals.affinity_density(grid, theta, dim) for theta in (0.0, signal))
    density *= more
    none = 1 - density.sum()
    kept = np.zeros(grid.size)
    for i in np.flatnonzero(density + hit > 1e-7):
        a = grid[i]
        # each other token: a candidate of affinity δ, or none (affinity 0, last entry); its own bin counts half above
        value = np.append(grid, 0.0)
        chance = np.append(density, none)
        high = np.append(1.0 * (grid > a) + 0.5 * (grid == a), 0.0)
        sums = np.zeros(2)
        for first, second in ((0, 0), (0, 1), (1, 1)):
            p = chance * (high if first else 1 - high)
            q = chance * (high if second else 1 - high)
            above = first * value[:, None] + second * value[None]
            total = value[:, None] + value[None] + a
            ways = 1 if first == second else 2
            met = (total > 0) & (above + own * a < mass * total)
            sums += ways * np.array([p @ met @ q, p.sum() * q.sum()])
        kept[i] = sums[0]
    return float(hit @ kept), float(density @ kept) * experts / more


def two(side: Side, dim: int, experts: int, signal: float, mass: float) -> tuple[float, float]:
    """(success, fraction kept) at two tokens, from the candidate tail h: the other token is kept out by its affinity alone.

    Beside an other candidate of affinity x a token of affinity a > 0 is kept iff x > -a (a positive total) and, with 1{x > a} x
    above it, x 1{x > a} + own a < τ (x + a).
    """
    tau = side.share * mass
    node, weight = special.roots_legendre(30)
    a = ((np.arange(400)[:, None] + (1 + node) / 2) / 400).ravel()  # panels: the tail has kinks
    weight = np.tile(weight / 800, 400)

    def tail(x: np.ndarray) -> np.ndarray:
        return candidates.candidate_tail(np.clip(x, -1.0, 1.0), dim, experts)

    none = 1 - 1 / experts  # the other is no candidate: kept iff own a < τ a
    # below a: x > -a and x > (own/τ - 1) a; above a, x in (a, ...): (1 - τ) x < (τ - own) a
    low, high = np.maximum(-a, (side.own / tau - 1) * a), (tau - side.own) * a / (1 - tau)
    kept = none * (side.own < tau) + np.maximum(tail(np.minimum(low, a)) - tail(a), 0.0)
    kept += np.where(high > a, tail(a) - tail(high), 0.0)
    chosen = weight * candidates.hit_given_affinity(a, dim, experts)
    success, number = (chosen * signals.affinity_density(a, theta, dim) @ kept for theta in (signal, 0.0))
    return float(success), float(number * experts)


@claim.reference(
    "the package's law at two tokens against one integral of the candidate tail; .700812 at d=3, n=2, τ=.8"
)
def package_two_tokens(side: Side) -> Outcome:
    worst = 0.0
    for dim, experts, signal, mass in ((3, 2, 1.0, 0.8), (3, 2, 2.0, 0.9), (16, 4, 2.0, 0.9), (64, 8, 2.5, 0.6)):
        direct = two(side, dim, experts, signal, mass)
        ours = (
            float(affinity_mass.success(mass, signal, dim, experts, tokens=2)),
            float(affinity_mass.kept_fraction(mass, dim, experts, tokens=2)),
        )
        worst = max(worst, *(abs(x - y) for x, y in zip(direct, ours)))
        if worst > 3e-5:
            return fails(f"d={dim}, n={experts}, τ={mass}: directly {direct}, the package {ours}")
    kept = two(side, 3, 2, 1.0, 0.8)[1]
    if abs(kept - 0.700812) > 5e-7:
        return fails(f"d=3, n=2, τ=.8: {kept:.7f} kept, not .700812")
    return holds(f"eight rates agree to {worst:.0e}")


@claim.reference("the package's law at three tokens against direct sums over the two others")
def package_s_law_three_tokens(side: Side) -> Outcome:
    worst = 0.0
    for dim, experts, signal, mass in ((16, 4, 1.5, 0.7), (24, 2, 2.0, 0.4)):
        direct = three(side.own, dim, experts, signal, mass)
        ours = (
            float(affinity_mass.success(mass, signal, dim, experts, tokens=3)),
            float(affinity_mass.kept_fraction(mass, dim, experts, tokens=3)),
        )
        worst = max(worst, *(abs(x - y) for x, y in zip(direct, ours)))
        if worst > 2e-3:
            return fails(f"d={dim}, n={experts}, τ={mass}: directly {direct}, the package {ours}")
    return holds(f"two rates at two settings agree to {worst:.0e}")


def sample(
    rng: np.random.Generator, trials: int, *, dim: int, experts: int, signal: float, mass: float
) -> dict[str, int]:
    """Three tokens through the router."""
    drawn = samplers.planted_affinity(rng, trials, 3, dim, experts, signal)
    return {"success": int(np.count_nonzero(adaptive.route(drawn.values, mass).contains(drawn.position, drawn.expert)))}


claim.simulate(
    sample,
    cases=[
        {"dim": 16, "experts": 4, "signal": 1.5, "mass": 0.7},
        {"dim": 24, "experts": 2, "signal": 2.0, "mass": 0.4},
    ],
    law=lambda side, *, dim, experts, signal, mass: {"success": three(side.own, dim, experts, signal, mass)[0]},
    trials=40_000,
    full=200_000,
)
