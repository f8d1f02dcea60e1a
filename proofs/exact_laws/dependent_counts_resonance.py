"""N11, resonance. With dependent routes and percentiles independent given N: P = p E P(Bin(N, ρ) <= C-1).

Each of the N candidates outranks the discriminative token with chance ρ, so the number that do has the generating function
E (1-ρ+ρz)^N. Independent tokens give (1-πρ+πρz)^(s-1), N4. Runs of m tokens give (1-π+π(1-ρ+ρz)^m)^Q, which is another law as
soon as m > 1: same mean, variance larger by M π(1-π) ρ² (m-1). A beta-binomial load Θ gives E (1-Θρ+Θρz)^M: P = p E F(ρΘ).

For a uniform ρ it is p E min(1, C/(N+1)) (N5, for every law of N): the rank form, which for runs is not token choice. So with
dependent neighbours a uniform percentile no longer makes the two rules equal.
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
from resonance_theory.rules import Rates, dependence, resonance
from resonance_theory.tokens.samplers import Dependent

rho, pi, theta, z = sp.symbols("rho pi theta z", positive=True)
Mass = list[Fraction]


def binomial(trials: int, share: Fraction) -> Mass:
    return [comb(trials, j) * share**j * (1 - share) ** (trials - j) for j in range(trials + 1)]


def thinned(tokens: int, length: int, share: Fraction, outrank: Fraction) -> Mass:
    """Law of the number of outranking candidates when N comes in runs: a mixture of binomials."""
    runs, rest = divmod(tokens - 1, length)
    result = [Fraction(0)] * tokens
    for j, chance in enumerate(binomial(runs, share)):
        for extra, weight in ((0, 1 - share), (rest, share)):
            for k, v in enumerate(binomial(length * j + extra, outrank)):
                result[k] += chance * weight * v
    return result


def independent(tokens: int, length: int, share: Fraction, outrank: Fraction) -> Mass:
    return binomial(tokens - 1, share * outrank)


claim = Claim(
    title="Resonance with dependent tokens: the count's law thinned by the percentile",
    statement=r"$P_{RES}=p\,E\,P(\mathrm{Bin}(N,\rho)\leq C-1)$, with generating function $(1-\pi+\pi(1-\rho+\rho z)^m)^Q$ of "
    r"the outranking candidates for $Q$ runs of $m$ tokens; beta-binomial counts: $P_{RES}=p\,E\,F(\rho\Theta)$",
    hypotheses=(
        r"given the number $N$ of candidates their percentiles are independent and uniform",
        r"$\rho$: percentile of the discriminative token, independent of $N$",
    ),
    source="new",
    tag="N11",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("planted_phases",),
    truth=SimpleNamespace(run=lambda m: 1 - pi + pi * (1 - rho + rho * z) ** m, mass=thinned),
    mutant=SimpleNamespace(run=lambda m: (1 - pi * rho + pi * rho * z) ** m, mass=independent),
    mutation="the outranking candidates of a run taken as independent",
    lemmas=("N5 (exchangeability_identity)",),
)


@claim.derivation("generating functions: a run, its mean and variance for all m; the beta mixture")
def generating_functions_run_mean_variance(side: SimpleNamespace) -> Outcome:
    m = sp.symbols("m", integer=True, positive=True)
    run = side.run(m)
    # a run of m candidates with probability π, each thinned by ρ
    mean = sp.diff(run, z).subs(z, 1)
    second = sp.diff(run, z, 2).subs(z, 1)
    point = [{m: 4, pi: sp.Rational(1, 3), rho: sp.Rational(2, 5), z: sp.Rational(3, 7)}]
    # token by token: no candidate, or m of them of which j outrank
    patterns = [
        (1 - pi) + pi * sum(comb(size, j) * rho**j * (1 - rho) ** (size - j) * z**j for j in range(size + 1))
        for size in range(1, 6)
    ]
    variance = m * pi * rho * (1 - pi * rho) + pi * (1 - pi) * rho**2 * m * (m - 1)
    return every(
        [
            *(
                identity(side.run(size), value, name=f"generating function of a run of {size} - its sum")
                for size, value in enumerate(patterns, 1)
            ),
            identity(mean, m * pi * rho, points=point, name="mean - mπρ"),
            identity(second + mean - mean**2, variance, points=point, name="variance"),
            identity(
                1 - theta + theta * (1 - rho + rho * z),
                1 - theta * rho + theta * rho * z,
                name="a thinned trial of load θ",
            ),
        ]
    )


@claim.reference("the package against exact sums: runs, and the beta mixture by Gauss-Jacobi quadrature of N4")
def package_exact_sums_runs_beta(side: SimpleNamespace) -> Outcome:
    from scipy.special import roots_jacobi

    share, worst = Fraction(1, 4), 0.0
    for tokens, length in ((6, 2), (14, 3), (30, 7)):
        for outrank in (Fraction(1, 8), Fraction(3, 4)):
            mass = side.mass(tokens, length, share, outrank)
            exact = np.cumsum([float(v) for v in mass])[: tokens - 1]
            ours = resonance.success(
                tokens,
                np.arange(1, tokens),
                Rates(experts=4, percentile=float(outrank), counts=dependence.Blocks(length)),
            )
            error = np.abs(ours / exact - 1)
            worst = max(worst, float(error.max()))
            if worst > 1e-12:
                k = int(error.argmax())
                return fails(
                    f"s={tokens}, m={length}, ρ={outrank}, C={k + 1}: package {ours[k]:.9f}, side {exact[k]:.9f}"
                )
    # F(ρθ) is a polynomial of degree s-1 in θ: 50 nodes integrate it exactly against a beta density for s <= 100
    for correlation, capacity in ((0.05, 4), (0.3, 9)):
        a, b = 0.125 * (1 - correlation) / correlation, 0.875 * (1 - correlation) / correlation
        nodes, weights = roots_jacobi(50, b - 1, a - 1)
        load, weight = (nodes + 1) / 2, weights / weights.sum()
        mixed = float(weight @ resonance.success(100, capacity, Rates(hit=1.0, candidate_tail=0.6 * load)))
        urn = float(
            resonance.success(
                100, capacity, Rates(experts=8, percentile=0.6, counts=dependence.BetaBinomial(correlation))
            )
        )
        if abs(urn / mixed - 1) > 1e-11:
            return fails(f"beta-binomial, κ={correlation}: {urn} against {mixed}")
    nodes, weights = np.polynomial.legendre.leggauss(80)
    even = resonance.success(
        129, 16, Rates(experts=8, percentile=(nodes + 1) / 2, weight=weights / 2, counts=dependence.Blocks(8))
    )
    if abs(float(even) - 0.841963) > 1e-6:
        return fails(f"a uniform percentile gives {even}, not the rank form .841963")
    return holds(f"runs agree to {worst:.0e}; beta mixture; a uniform percentile gives the rank form, not token choice")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, load: list[float], length: int, capacity: int
) -> dict[str, int]:
    """Runs of tokens with a planted one, whose percentile is random, through the router; equal and unequal loads."""
    model, done = Dependent(2.0, 2 * len(load), len(load), length, load=load), 0
    for start in range(0, trials, 20_000):
        drawn = model.affinity(rng, min(20_000, trials - start), tokens)
        routed = resonance.route(drawn.values, capacity)
        at = routed.sample
        done += int(np.count_nonzero((routed.token == drawn.position[at]) & (routed.expert == drawn.expert[at])))
    return {"success": done}


def law(side: SimpleNamespace, *, tokens: int, load: list[float], length: int, capacity: int) -> dict[str, float]:
    experts = len(load)
    joint = Rates.planted(2.0, 2 * experts, experts)
    kind = dependence.Blocks(length if side.mass is thinned else 1)
    outrank = np.minimum(1.0, experts * joint.candidate_tail)  # given its best expert a token is isotropic
    rates = Rates(hit=joint.hit, percentile=outrank, weight=joint.weight, counts=kind)
    values = [resonance.success(tokens, capacity, rates.replace(load=np.full(outrank.shape, share))) for share in load]
    return {"success": float(np.mean(values))}


claim.simulate(
    sample,
    cases=[
        {"tokens": 33, "load": [0.25] * 4, "length": 8, "capacity": 3},
        {"tokens": 41, "load": [0.5] * 2, "length": 10, "capacity": 9},
        {"tokens": 33, "load": [0.5, 0.3, 0.1, 0.1], "length": 8, "capacity": 3},
    ],
    law=law,
    trials=60_000,
)
