"""ETR eq. 6 prints Bottom-C; the text, and any use, needs the C candidates of highest affinity.

Let the token of class i be a candidate of expert i with affinity percentile ρ among its candidates (0 is the best), so that
another token is a better candidate with probability h = ρπ and a worse one with π - h. It is kept by Top-C iff at most C-1
of the others are better: P(Bin(s-1, h) <= C-1); by Bottom-C, as printed, iff at most C-1 are worse: P(Bin(s-1, π-h) <=
C-1). The better the token, the likelier the printed rule is to drop it: at ρ = 0 it succeeds with P(Bin(s-1, π) <= C-1),
less than half at the mean load C = πs for π <= .3 (a binomial median is within ln 2 of the mean, C - π here, so it is C), and
worse than position order (N1).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import stats

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.rules import Rates, resonance


def side(rival: Callable[..., Any]) -> SimpleNamespace:
    """`rival(load, tail)`: the probability that another token takes a slot before the discriminative one."""
    return SimpleNamespace(rival=rival)


claim = Claim(
    title="Resonance keeps the highest affinities, not the lowest that eq. 6 prints",
    statement=r"$P(kept\mid hit)=P(\mathrm{Bin}(s-1,h)\leq C-1)$ with $h=\rho\pi$ for Top-$C$; for Bottom-$C$, as "
    r"printed, it is "
    r"$P(\mathrm{Bin}(s-1,\pi-h)\leq C-1)$",
    hypotheses=(r"independent tokens without ties; $\rho$: affinity percentile among candidates, 0 the best",),
    source="ETR eq. 5-6 (arXiv 2406.00023)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=side(lambda load, tail: tail),
    mutant=side(lambda load, tail: load),
    mutation="every candidate counted as a rival, better or not",
    printed=side(lambda load, tail: load - tail),
    correction=r"Printed: Bottom-$C$. That keeps the least affine candidates: of three candidates with affinities "
    r".9, .5, .1 and "
    r"one slot it keeps the last. The text says, and every law here uses, the highest affinities.",
)


def law(side: SimpleNamespace, *, tokens: int, experts: int, capacity: int, percentile: float) -> dict[str, float]:
    rival = side.rival(1 / experts, percentile / experts)
    return {"kept": float(stats.binom.cdf(capacity - 1, tokens - 1, rival))}


@claim.reference("the package's law of resonance against SciPy's binomial tails, 500 settings")
def package_s_law_resonance_scipy(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(6)
    tokens = rng.integers(2, 5000, 500)
    experts = rng.integers(2, 64, 500)
    capacity = np.maximum(1, (tokens / experts * rng.uniform(0.05, 1.2, 500)).astype(np.int64))
    tail = rng.random(500) / experts
    ours = resonance.success(tokens, capacity, Rates(hit=1.0, candidate_tail=tail))
    claimed = stats.binom.cdf(capacity - 1, tokens - 1, side.rival(1 / experts, tail))
    worst = int(np.argmax(np.abs(ours - claimed)))
    text = f"s={tokens[worst]}, C={capacity[worst]}: package {ours[worst]:.12f}, claimed {claimed[worst]:.12f}"
    return holds(f"largest difference at {text}") if abs(ours[worst] - claimed[worst]) < 1e-11 else fails(text)


@claim.counterexample("three candidates with affinities .9, .5, .1 and one slot")
def three_candidates_affinities_one_slot(side: SimpleNamespace) -> Outcome:
    routed = resonance.route(np.array([[0.9], [0.5], [0.1]]), 1)
    kept = int(np.asarray(routed.token)[0])
    promised = law(side, tokens=3, experts=1, capacity=1, percentile=0.0)["kept"]
    text = f"the router keeps token {kept}; the best token is kept with probability {promised:.0f} by the claim"
    return holds(text) if kept == 0 and promised == 1 else fails(text)


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, capacity: int, percentile: float
) -> dict[str, int]:
    """Token 0 is a candidate of expert 0 with affinity 1 - ρ; the others choose an expert and an affinity at random."""
    affinity = np.full((trials, tokens, experts), -1.0)
    chosen = rng.integers(0, experts, (trials, tokens))
    chosen[:, 0] = 0
    value = rng.random((trials, tokens))
    value[:, 0] = 1 - percentile
    np.put_along_axis(affinity, chosen[:, :, None], value[:, :, None], axis=2)
    routed = resonance.route(affinity, capacity)
    return {"kept": int(np.count_nonzero((np.asarray(routed.token) == 0) & (np.asarray(routed.expert) == 0)))}


claim.simulate(
    sample,
    cases=[
        {"tokens": 24, "experts": 3, "capacity": 4, "percentile": 0.3},
        {"tokens": 16, "experts": 2, "capacity": 5, "percentile": 0.6},
    ],
    law=law,
    trials=40_000,
    full=400_000,
)
