"""N6. When resonance beats token choice: a percentile that is stochastically at most uniform suffices, and a mean does not.

Given a hit, resonance succeeds with probability F(πρ), ρ the discriminative token's affinity percentile among candidates.
A uniform ρ gives token choice exactly: thinning Bin(s-1,π) by u is Bin(s-1,πu), so ∫ F(πu) du = E ∫ P(Bin(N,u) <= C-1) du =
E min(1, C/(N+1)) = P_TCR/p (N5, N1). F falls in ρ, and a falling function is a mixture of steps 1{ρ <= c}; its mean is at least
the uniform one's for all of them exactly if P(ρ <= c) >= c for every c: ρ stochastically at most U(0,1). A small mean does
not do: at s = 256, n = 8, C = 9 a constant ρ = .4 gives resonance .106 and token choice .281. Nor, with unequal loads, a
percentile that is below uniform over all classes together: good percentiles at light experts, which need none, are no help to
a heavy one.

For all s and C at once the condition is also necessary: with C = xπs the rates given a hit tend to P(ρ < x) and x (corollary_6),
and if P(ρ <= c) < c somewhere then P(ρ < x) < x at some x > c without an atom.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, resonance, token_choice

c = sp.symbols("c", positive=True)


def side(guarantee: sp.Expr, admits) -> SimpleNamespace:
    """`guarantee`: the least P(ρ <= c) over the laws admitted; `admits(values, weights)` decides about a discrete law."""
    return SimpleNamespace(guarantee=guarantee, admits=admits)


def below_uniform(values: np.ndarray, weights: np.ndarray) -> bool:
    order = np.argsort(values)
    # P(ρ < v) >= v at every atom v: just before its jump the distribution function is lowest against c
    return bool(np.all(np.cumsum(weights[order]) - weights[order] >= values[order] - 1e-12))


claim = Claim(
    title="Resonance beats token choice if the percentile is stochastically at most uniform",
    statement=r"if $P(\rho\leq c|hit)\geq c$ for all $c\in[0,1]$ then $P_{RES}\geq P_{TCR}$, for all $s$ and $C$, and "
    r"only then for all of them; $E\rho<\frac12$ is not enough",
    hypotheses=(
        "no ties of candidate affinities (or ties broken at random)",
        r"$\rho=h/\pi$; where loads are unequal, the condition holds for every expert's own percentile",
    ),
    source="new",
    tag="N6",
    kind="bound",
    expected=Verdict.PROVED,
    studies=("digits_mosaics", "digits_scaling"),
    truth=side(c, below_uniform),
    mutant=side(sp.Max(0, 1 - 1 / (2 * c)), lambda values, weights: bool(weights @ values <= 0.5)),
    mutation="a mean percentile of at most 1/2 instead of the stochastic order",
    lemmas=("N5 (exchangeability_identity)", "N1 (token_choice_exact)", "fluid limits (corollary_6)"),
)


@claim.derivation("thinning, and every step 1{ρ <= c} has at least its uniform mean")
def thinning_step_c_has_least(side: SimpleNamespace) -> Outcome:
    pi, u, z = sp.symbols("pi u z", positive=True)
    thinned = (1 - pi + pi * (1 - u + u * z)) - (1 - pi * u + pi * u * z)
    outcomes = [identity(sp.expand(thinned), name="generating function of a thinned trial - Bernoulli(πu)")]
    for value in (sp.Rational(1, 5), sp.Rational(1, 2), sp.Rational(9, 10)):
        short = side.guarantee.subs(c, value) - value
        text = f"P(ρ <= {value}) is at least {side.guarantee.subs(c, value)}"
        outcomes.append(holds(text) if short >= 0 else fails(f"{text}, less than {value}"))
    difference = sp.simplify(side.guarantee - c)
    outcomes.append(identity(difference, points=[{c: sp.Rational(1, 5)}], name="guarantee - c, for every c"))
    return every(outcomes)


@claim.reference("the package on random percentile laws: whatever the side admits must win")
def package_random_percentile_laws_whatever(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(21)
    laws = [(np.array([0.4]), np.array([1.0])), (np.array([0.0, 0.7]), np.array([0.7, 0.3]))]
    for _ in range(400):
        size = int(rng.integers(1, 6))
        laws.append((rng.random(size) ** rng.uniform(1, 4), rng.dirichlet(np.ones(size))))
        # and laws below uniform by construction: atoms at the left ends of a partition of [0, 1]
        cuts = np.concatenate([[0.0], np.sort(rng.random(size))])
        laws.append((cuts * rng.random(), np.diff(np.append(cuts, 1.0))))
    admitted = beaten = 0
    for values, weights in laws:
        order = np.argsort(values)
        low = np.concatenate([[0.0], values[order][:-1]])
        low = np.maximum(
            low, np.cumsum(weights[order]) - weights[order]
        )  # P(ρ < v), or the atom before v if that is more
        gap = values[order] - low
        if gap.max() > 0.02:  # P(ρ < x) < x between: beaten at C = xπs for many tokens
            at = int(np.argmax(gap))
            slots = int((low[at] + gap[at] / 2) / 4 * 10**6)
            tail = values / 4
            res = float(resonance.success(10**6, slots, Rates(hit=1.0, candidate_tail=tail, weight=weights)))
            if res >= float(token_choice.success(10**6, slots, Rates(experts=4))):
                return fails(f"s=10^6, n=4, C={slots}, ρ={np.round(values, 3).tolist()}: not beaten")
            beaten += 1
        if not side.admits(values, weights):
            continue
        admitted += 1
        for tokens, experts, capacity in ((256, 8, 9), (64, 4, 20), (1000, 10, 3), (5, 2, 2)):
            res = float(
                resonance.success(tokens, capacity, Rates(hit=1.0, candidate_tail=values / experts, weight=weights))
            )
            tcr = float(token_choice.success(tokens, capacity, Rates(experts=experts)))
            if res < tcr - 1e-12:
                return fails(
                    f"s={tokens}, n={experts}, C={capacity}, ρ={np.round(values, 3).tolist()}: {res:.4f} < {tcr:.4f}"
                )
    # loads .8 and .2: half the hits, the light expert's, have ρ = 0, the heavy one's ρ = .5; together below uniform
    load, rho, half = np.array([0.8, 0.2]), np.array([0.5, 0.0]), np.array([0.5, 0.5])
    res = float(resonance.success(100, 30, Rates(hit=1.0, candidate_tail=load * rho, weight=half)))
    tcr = float(token_choice.success(100, 30, Rates(experts=2, load=load, weight=half)))
    if not below_uniform(rho, half) or below_uniform(rho[:1], half[:1] * 2) or res > tcr - 0.1:
        return fails(f"loads .8 and .2: resonance {res:.4f}, token choice {tcr:.4f}")
    return (
        holds(
            f"resonance wins for all {admitted} laws admitted, and is beaten with {beaten} others; pooled over loads .8 and "
            f".2 {res:.3f} < {tcr:.3f}"
        )
        if admitted > 100
        else fails("too few laws admitted")
    )


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, capacity: int, rho: str
) -> dict[str, int]:
    """Percentile drawn (power of a uniform, or constant); rivals counted as better candidates among the others."""
    percentile = np.full(trials, 0.4) if rho == "constant .4" else rng.random(trials) ** int(rho)
    return {"success": int(np.count_nonzero(rng.binomial(tokens - 1, percentile / experts) < capacity))}


def law(side: SimpleNamespace, *, tokens: int, experts: int, capacity: int, rho: str) -> dict[str, float]:
    """What the side claims for this percentile: at least token choice's rate if it admits the law, else nothing."""
    grid = (np.arange(1000) + (0.0 if rho != "constant .4" else 0.5)) / 1000
    values = np.array([0.4]) if rho == "constant .4" else grid ** int(rho)
    admitted = side.admits(values, np.full(len(values), 1 / len(values)))
    return {"success": float(token_choice.success(tokens, capacity, Rates(experts=experts))) if admitted else 0.0}


def sample_skewed(rng: np.random.Generator, trials: int, *, tokens: int, boost: float, capacity: int) -> dict[str, int]:
    """Experts of unequal loads through the real router; beside them one at load 1/4 and a constant percentile of .45."""
    scores, position, expert = _skewed.sample(rng, trials, tokens, boost)
    kept = resonance.route(scores, capacity).contains(position, expert)
    constant = rng.binomial(tokens - 1, 0.45 / 4, trials) < capacity
    return {"skewed": int(np.count_nonzero(kept)), "constant": int(np.count_nonzero(constant))}


def law_skewed(side: SimpleNamespace, *, tokens: int, boost: float, capacity: int) -> dict[str, float]:
    """Token choice's rate, averaged over the experts, if the side admits the percentile of every one of them."""
    load = np.array(_skewed.LOAD)
    rank = np.arange(1000) / 1000  # percentiles given a hit: 1 - U^{1/(b+1-w)}, b = w e^boost, on a grid from below
    laws = [1 - (1 - rank) ** (1 / (w * np.exp(boost) + 1 - w)) for w in load]
    admitted = all(side.admits(values, np.full(1000, 1e-3)) for values in laws)
    rate = token_choice.success(
        tokens, capacity, Rates(experts=4, hit=_skewed.hit_rates(boost), load=load, weight=np.full(4, 0.25))
    )
    constant = side.admits(np.array([0.45]), np.array([1.0]))
    return {
        "skewed": float(rate) if admitted else 0.0,
        "constant": float(token_choice.success(tokens, capacity, Rates(experts=4))) if constant else 0.0,
    }


claim.simulate(
    sample_skewed,
    cases=[{"tokens": 24, "boost": 1.0, "capacity": 2}],
    law=law_skewed,
    relation="at_least",
    trials=60_000,
    name="Monte Carlo, experts of unequal loads",
)

claim.simulate(
    sample,
    cases=[
        {"tokens": 256, "experts": 8, "capacity": 9, "rho": "2"},
        {"tokens": 64, "experts": 8, "capacity": 4, "rho": "3"},
        {"tokens": 256, "experts": 8, "capacity": 9, "rho": "constant .4"},
    ],
    law=law,
    relation="at_least",
)
