"""N4. The exact law of resonance: the discriminative token must hit its expert and find a place there.

Given its affinity a, each of the s-1 others independently is a candidate of the expert with an affinity above a, with
probability h(a); the token is kept if at most C-1 of them are. Whether it hits its expert depends on a too, but not on the
others. So P_RES = E[P(hit|a) F(h(a))]. Replacing the joint law by averages is wrong: for planted tokens with d = 64, n = 8,
θ = 2.5, s = 256, C = 12 the truth is .758, hit and affinity taken as independent give .673, the mean h gives .820.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import stats

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.gates import affinity
from resonance_theory.rules import resonance
from resonance_theory.tokens import Rates, samplers


def side(*, joint: bool) -> SimpleNamespace:
    """The average over nodes of weight w: jointly, or hit and place averaged apart."""

    def average(weight, hit, place):
        if joint:
            return sum(w * p * f for w, p, f in zip(weight, hit, place))
        return sum(w * p for w, p in zip(weight, hit)) * sum(w * f for w, f in zip(weight, place))

    return SimpleNamespace(average=average)


claim = Claim(
    title="Exact success rate of resonance",
    statement=r"$P_{RES}=\frac1n\sum_iE[1_{hit}\,F(h_i(\delta_o))]$, $F(h)=P(\mathrm{Bin}(s-1,h)\leq C-1)$",
    hypotheses=(
        r"background tokens independent of each other and of $o$; no ties",
        r"$h_i(a)$: probability that a background token is a candidate of $i$ with affinity at least $a$",
    ),
    source="ETR Definition 2 for the rule of ETR eq. 5-6 (arXiv 2406.00023); new: no theorem for it is published",
    tag="N4",
    kind="equality",
    expected=Verdict.PROVED,
    studies=_skewed.STUDIES,
    truth=side(joint=True),
    mutant=side(joint=False),
    mutation="hit and affinity treated as independent",
)


@claim.derivation("tokens probability over affinity and over every outcome of two background tokens")
def total_probability_affinity_outcome_two(side: SimpleNamespace) -> Outcome:
    # Two affinities with weights v, 1-v; background tokens of three kinds: better candidate (h), worse candidate
    # (π - h), no candidate (1 - π). Enumerate all kinds of the s-1 = 2 others, then sum where the token is kept.
    v, pi, *rest = sp.symbols("v pi h1 h2 p1 p2", positive=True)
    (h1, h2), (p1, p2) = rest[:2], rest[2:]
    outcomes = []
    for capacity in (1, 2):
        direct = sp.Integer(0)
        for weight, hit, h in ((v, p1, h1), (1 - v, p2, h2)):
            kinds = ((1, h), (0, pi - h), (0, 1 - pi))
            for pair in product(kinds, repeat=2):
                if sum(better for better, _ in pair) <= capacity - 1:
                    direct += weight * hit * pair[0][1] * pair[1][1]
        place = [(1 - h) ** 2 + (2 * h * (1 - h) if capacity == 2 else 0) for h in (h1, h2)]
        formula = side.average((v, 1 - v), (p1, p2), place)
        outcomes.append(identity(direct, formula, name=f"enumeration - formula, s=3, C={capacity}"))
    # for any number of others: the count of better candidates is a sum of independent indicators, binomial by definition
    m, z, h = sp.symbols("m z h", positive=True)
    merged = ((h * z + (pi - h) + (1 - pi)) ** m, (1 - h + h * z) ** m)
    outcomes.append(identity(*merged, name="generating function of the better candidates - binomial"))
    return every(outcomes)


@claim.reference("the package on random joint laws, against exact rationals")
def package_random_joint_laws_exact(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(18)
    worst = 0.0
    for _ in range(60):
        tokens, size = int(rng.integers(2, 30)), int(rng.integers(2, 5))
        capacity = int(rng.integers(1, tokens))
        weight = [Fraction(int(v), 64) for v in rng.multinomial(64, np.full(size, 1 / size))]
        hit = [Fraction(int(v), 32) for v in rng.integers(0, 33, size)]
        tail = [Fraction(int(v), 256) for v in rng.integers(1, 128, size)]
        place = [
            sum((comb(tokens - 1, j) * h**j * (1 - h) ** (tokens - 1 - j) for j in range(capacity)), Fraction(0))
            for h in tail
        ]
        exact = float(side.average(weight, hit, place))
        numbers = [np.array([float(v) for v in values]) for values in (hit, tail, weight)]
        ours = float(
            resonance.success(tokens, capacity, Rates(hit=numbers[0], candidate_tail=numbers[1], weight=numbers[2]))
        )
        worst = max(worst, abs(ours - exact) / max(exact, 1e-300))
        if worst > 1e-12:
            return fails(f"s={tokens}, C={capacity}: package {ours:.10g}, formula {exact:.10g}")
    return holds(f"60 laws agree to {worst:.0e}")


@claim.reference("the planted example: .758, and not .673")
def planted_example_not(side: SimpleNamespace) -> Outcome:
    law = Rates.planted(2.5, 64, 8)
    place = stats.binom.cdf(11, 255, law.candidate_tail)
    value = float(side.average(law.weight, law.hit, place))
    text = f"the side gives {value:.6f}"
    return holds(text) if abs(value - 0.7581593753703) < 1e-10 else fails(text)


def sample(
    rng: np.random.Generator,
    trials: int,
    *,
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    capacity: int,
    vectors: bool,
    top: int = 1,
) -> dict[str, int]:
    """Planted tokens through the real router; `vectors`: through the extractor, else by the reduced sampler."""
    done, step = 0, max(1, 2_000_000 // (tokens * (dim if vectors else experts)))
    for start in range(0, trials, step):
        size = (min(step, trials - start), tokens, dim, experts, signal)
        drawn = samplers.planted(rng, *size) if vectors else samplers.planted_affinity(rng, *size)
        scores = affinity(drawn.values, experts) if vectors else drawn.values
        done += int(np.count_nonzero(resonance.route(scores, capacity, top=top).contains(drawn.position, drawn.expert)))
    return {"success": done}


def law(
    side: SimpleNamespace,
    *,
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    capacity: int,
    vectors: bool,
    top: int = 1,
) -> dict[str, float]:
    nodes = Rates.planted(signal, dim, experts, top=top)
    place = stats.binom.cdf(capacity - 1, tokens - 1, nodes.candidate_tail)
    return {"success": float(side.average(nodes.weight, nodes.hit, place))}


claim.simulate(
    sample,
    cases=[
        {"tokens": 64, "dim": 64, "experts": 8, "signal": 1.5, "capacity": 3, "vectors": False},
        {"tokens": 32, "dim": 16, "experts": 4, "signal": 1.0, "capacity": 4, "vectors": True},
        {"tokens": 32, "dim": 16, "experts": 8, "signal": 1.0, "capacity": 3, "vectors": False, "top": 2},
    ],
    law=law,
    trials=25_000,
)


def sample_skewed(rng: np.random.Generator, trials: int, *, tokens: int, boost: float, capacity: int) -> dict[str, int]:
    scores, position, expert = _skewed.sample(rng, trials, tokens, boost)
    return {"success": int(np.count_nonzero(resonance.route(scores, capacity).contains(position, expert)))}


def law_skewed(side: SimpleNamespace, *, tokens: int, boost: float, capacity: int) -> dict[str, float]:
    nodes = _skewed.rates(boost)
    place = stats.binom.cdf(capacity - 1, tokens - 1, nodes.candidate_tail)
    return {"success": float(side.average(nodes.weight, nodes.hit, place))}


claim.simulate(
    sample_skewed,
    cases=[{"tokens": 60, "boost": 2.0, "capacity": 1}],
    law=law_skewed,
    trials=40_000,
    name="Monte Carlo, experts of unequal loads",
)
