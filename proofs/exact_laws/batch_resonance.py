"""N10, resonance. B samples that share B C slots: when pooling helps is decided by C against (s-1)h + κ, in the end.

A discriminative token of affinity a meets Bin(B(s-1), h) irrelevant rivals and Bin(B-1, κ) discriminative ones, κ the chance
that another sample's own token is a candidate and outranks it. Their mean is Bm - κ, m = (s-1)h + κ, so by Hoeffding, on Bs - 1
trials, the failure is at most exp(-2B(C-m)²/s) if m < C and the success at most that if m > C: pooling in the end makes success
certain, or impossible. The rule of thumb C > hs misses κ.

On the way it need not be monotone: s = 2, C = 1, h = .05, κ = .9 has m = .95 < 1, yet B = 1, 2 give .95, .912. Where
κ = h, the law is P(V_B > h), V_B ~ Beta(BC, B(s-C)); log f_{B'}/f_B has the slope (B'-B)(C-sv)/(v(1-v)), so F_{B'} - F_B
changes sign once: pooling B' instead of B samples helps exactly if h is below one threshold.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, resonance
from resonance_theory.rules.pooling import Pooled
from resonance_theory.tokens import planted as planted_
from resonance_theory.tokens import rivals, samplers

B, s, C, x = sp.symbols("B s C x", positive=True)
h, kappa, z, v = sp.symbols("h kappa z v", positive=True)


def side(rival: sp.Expr) -> SimpleNamespace:
    """`rival`: the probability that another sample's discriminative token outranks, in κ."""

    def value(samples: int, tokens: int, tail: Fraction, outranks: Fraction, capacity: int) -> Fraction:
        chance = Fraction(str(rival.subs(kappa, outranks)))
        many = samples * (tokens - 1)
        result = Fraction(0)
        for i in range(samples):
            other = comb(samples - 1, i) * chance**i * (1 - chance) ** (samples - 1 - i)
            room = min(samples * capacity - i, many + 1)
            result += other * sum(
                (comb(many, j) * tail**j * (1 - tail) ** (many - j) for j in range(room)), Fraction(0)
            )
        return result

    return SimpleNamespace(rival=rival, value=value)


claim = Claim(
    title="Batch capacity, resonance: exact law, and when pooling slots helps",
    statement=r"$P_{RES}(B)=E[1_{hit}P(\mathrm{Bin}(B(s-1),h)+\mathrm{Bin}(B-1,\kappa)\leq BC-1)]$; at a fixed affinity, "
    r"with $m=(s-1)h+\kappa$, failure given hit is at most $e^{-2B(C-m)^2/s}$ if $m<C$, success at most that if "
    r"$m>C$; not monotone in $B$ in general; for $\kappa=h$ more pooling helps exactly if $h$ is below one threshold",
    hypotheses=(
        r"$B$ independent samples, $BC$ slots for each expert, no ties",
        r"$\kappa$: P(another sample's discriminative token is a candidate of the expert and outranks)",
    ),
    source="new; corrects its rule of thumb C > hs",
    tag="N10",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(kappa),
    mutant=side(sp.Integer(0) * kappa),
    mutation="the other samples' discriminative tokens do not outrank: κ = 0, m = (s-1)h",
    lemmas=("Hoeffding (1963), Theorem 1, for independent trials of unequal probability",),
)


@claim.derivation("generating function of the rivals, its mean Bm - κ; κ = h; one crossing of the beta laws")
def generating_function_rivals_mean_bm(side: SimpleNamespace) -> Outcome:
    point = [{B: 3, s: 5, h: sp.Rational(1, 5), kappa: sp.Rational(1, 3), z: sp.Rational(1, 2)}]
    direct = (1 - h + h * z) ** (B * (s - 1)) * (1 - kappa + kappa * z) ** (B - 1)
    # sample by sample: s - 1 irrelevant tokens each, and of every sample but the first its own token
    outcomes = []
    for samples, tokens in ((1, 3), (2, 2), (4, 3)):
        rivals = sp.Integer(1)
        for index in range(samples):
            rivals *= math.prod([1 - h + h * z] * (tokens - 1)) * (1 if index == 0 else 1 - side.rival + side.rival * z)
        gap = (rivals, direct.subs({B: samples, s: tokens}))
        outcomes.append(identity(*gap, name=f"rivals of {samples} samples of {tokens} tokens - generating function"))
    mean = (sp.diff(direct, z).subs(z, 1), B * ((s - 1) * h + kappa) - kappa)
    wider = sp.symbols("A", positive=True)  # B' = B + A
    ratio = sp.log(v) * wider * C + sp.log(1 - v) * wider * (s - C)
    return every(
        [
            *outcomes,
            identity(*mean, points=point, name="mean - (Bm - κ)"),
            identity(sp.powsimp(direct.subs(kappa, h)), (1 - h + h * z) ** (B * s - 1), points=point, name="κ = h"),
            identity(sp.diff(ratio, v) * v * (1 - v), wider * (C - s * v), name="slope of log f_B'/f_B"),
        ]
    )


@claim.certificate("Hoeffding's exponent is at least 2B(C-m)²/s on both sides, for all B, s, C, h, κ")
def hoeffding_s_exponent_least_2b(side: SimpleNamespace) -> Outcome:
    # The side claims the exponent for x = |C - m|, m = (s-1)h + rival. The count's true mean is B((s-1)h + κ) - κ.
    y = sp.symbols("y", positive=True)  # 1 - κ
    missing = kappa - side.rival  # true m minus the side's
    above = B * x - B * missing + kappa  # distance BC - mean if the side's m is below C
    below = B * x + B * missing + y  # distance mean - (BC - 1) if it is above
    # distance² / (Bs - 1) - B x²/s, multiplied out by s (Bs - 1) > 0
    return every(
        [
            nonnegative_polynomial(sp.expand(d**2 * s - B * x**2 * (B * s - 1)), {B: 1, s: 2, x: 0, kappa: 0, y: 0}, name=name)
            for d, name in ((above, "m < C"), (below, "m > C"))
        ]
    )  # fmt: skip


@claim.reference(
    "the package against exact sums; the bounds; B = 2 worse than B = 1 below the threshold; one crossing at κ = h"
)
def package_exact_sums_bounds_b(side: SimpleNamespace) -> Outcome:
    worst, count = 0.0, 0
    for tokens, tail, outranks, capacity in (
        (2, Fraction(1, 20), Fraction(9, 10), 1),
        (5, Fraction(1, 10), Fraction(1, 4), 1),
        (9, Fraction(1, 3), Fraction(1, 8), 2),
        (9, Fraction(1, 3), Fraction(1, 8), 3),
        (6, Fraction(1, 7), Fraction(1), 2),
    ):
        mean = (tokens - 1) * tail + outranks
        for samples in (1, 2, 3, 8, 20):
            exact = side.value(samples, tokens, tail, outranks, capacity)
            both = Rates(candidate_tail=float(tail), rival=float(outranks))
            ours = float(Pooled(resonance, samples).success(tokens, capacity, both))
            short = float(Pooled(resonance, samples).failure(tokens, capacity, both))
            worst = max(worst, abs(ours / float(exact) - 1), abs(short / float(1 - exact) - 1) if exact < 1 else short)
            if worst > 1e-12:
                return fails(
                    f"B={samples}, s={tokens}, h={tail}, κ={outranks}, C={capacity}: {ours}, side {float(exact)}"
                )
            bound = float(np.exp(-2 * samples * float(capacity - mean) ** 2 / tokens))
            if (short if mean < capacity else ours) > bound * (1 + 1e-12):
                return fails(f"B={samples}, s={tokens}, h={tail}, κ={outranks}, C={capacity}: beyond the bound {bound}")
            count += 1
    pair = [float(side.value(b, 2, Fraction(1, 20), Fraction(9, 10), 1)) for b in (1, 2)]
    far = float(Pooled(resonance, 2000).success(2, 1, Rates(hit=1.0, candidate_tail=0.05, rival=0.9)))
    if not pair[1] < pair[0] < far:
        return fails(f"s=2, C=1, h=.05, κ=.9: B = 1, 2, 2000 give {pair}, {far}")
    tails = np.linspace(0.002, 0.998, 499)
    for tokens, capacity in ((8, 1), (8, 3), (40, 30), (200, 20)):
        for few, more in ((1, 2), (2, 3), (4, 16)):
            rates = [
                Pooled(resonance, b).success(tokens, capacity, Rates(hit=1.0, candidate_tail=tails, rival=tails))
                for b in (few, more)
            ]
            gain = rates[1] - rates[0]
            sign = np.sign(gain[np.abs(gain) > 1e-12])
            if sign[0] != 1 or sign[-1] != -1 or np.count_nonzero(np.diff(sign)) != 1:
                return fails(f"κ = h, s={tokens}, C={capacity}, B = {few}, {more}: not one crossing")
    return holds(f"{count} laws agree to {worst:.0e} and keep the bounds; .95, .91225 at B = 1, 2; 12 single crossings")


@cache
def planted(top: int) -> tuple[Rates, np.ndarray]:
    joint = planted_.planted(3.0, 16, 4, top=top)
    return joint, rivals.rival(joint.affinity, 3.0, 16, 4, top=top)


def sample(
    rng: np.random.Generator, trials: int, *, samples: int, tokens: int, capacity: int, top: int
) -> dict[str, int]:
    """Batches of planted samples (d = 16, 4 experts, θ = 3) through the router; each asks about its first sample."""
    done, step = 0, max(1, 2_000_000 // (samples * tokens * 4))
    for start in range(0, trials, step):
        n = min(step, trials - start)
        drawn = samplers.planted_affinity(rng, n * samples, tokens, 16, 4, 3.0)
        routed = resonance.route(drawn.values.reshape(n, samples * tokens, 4), samples * capacity, top=top)
        position, expert = drawn.position[::samples], drawn.expert[::samples]
        done += int(
            np.count_nonzero((routed.token == position[routed.sample]) & (routed.expert == expert[routed.sample]))
        )
    return {"success": done}


def law(side: SimpleNamespace, *, samples: int, tokens: int, capacity: int, top: int) -> dict[str, float]:
    joint, true = planted(top)
    outranks = true * float(side.rival.subs(kappa, 1))
    given = {"hit": joint.hit, "candidate_tail": joint.candidate_tail, "weight": joint.weight}
    return {"success": float(Pooled(resonance, samples).success(tokens, capacity, Rates(rival=outranks, **given)))}


claim.simulate(
    sample,
    cases=[
        {"samples": 4, "tokens": 4, "capacity": 1, "top": 1},
        {"samples": 4, "tokens": 4, "capacity": 1, "top": 2},
    ],
    law=law,
    trials=60_000,
)


def sample_skewed(
    rng: np.random.Generator, trials: int, *, samples: int, tokens: int, boost: float, capacity: int
) -> dict[str, int]:
    scores, position, expert = _skewed.sample(rng, trials * samples, tokens, boost)
    routed = resonance.route(scores.reshape(trials, samples * tokens, -1), samples * capacity)
    return {"success": int(np.count_nonzero(routed.contains(position[::samples], expert[::samples])))}


def law_skewed(side: SimpleNamespace, *, samples: int, tokens: int, boost: float, capacity: int) -> dict[str, float]:
    nodes, w = _skewed.rates(boost), np.array(_skewed.LOAD)
    load = np.repeat(w, nodes.weight.size // w.size)
    with np.errstate(divide="ignore"):
        v = -np.log1p(-nodes.candidate_tail / load)
    # a token of class j is an exponential race of total rate 1 + w_j (e^boost - 1); expert i runs at w_i, or w_i e^boost if i = j
    total_rate = 1 + w[:, None] * np.expm1(boost)
    own = np.where(w[:, None] == load, np.exp(boost), 1.0) * load
    outranks = (own / total_rate * -np.expm1(-total_rate * v)).mean(axis=0) * float(side.rival.subs(kappa, 1))
    given = {"hit": nodes.hit, "candidate_tail": nodes.candidate_tail, "weight": nodes.weight}
    return {"success": float(Pooled(resonance, samples).success(tokens, capacity, Rates(rival=outranks, **given)))}


claim.simulate(
    sample_skewed,
    cases=[{"samples": 4, "tokens": 4, "boost": 2.0, "capacity": 1}],
    law=law_skewed,
    trials=60_000,
    name="Monte Carlo, experts of unequal loads",
)
