"""N6. When resonance beats token choice: a percentile that is stochastically at most uniform suffices, and a mean does not.

Given a hit, resonance succeeds with probability F(πρ), ρ the discriminative token's affinity percentile among candidates.
A uniform ρ gives token choice exactly: thinning Bin(s-1,π) by u is Bin(s-1,πu), so ∫ F(πu) du = E ∫ P(Bin(N,u) <= C-1) du =
E min(1, C/(N+1)) = P_TCR/p (N5, N1). F falls in ρ, and a falling function is a mixture of steps 1{ρ <= c}; its mean is at least
the uniform one's for all of them exactly if P(ρ <= c) >= c for every c: ρ stochastically at most U(0,1). A small mean does
not do: at s = 256, n = 8, C = 9 a constant ρ = .4 gives resonance .106 and token choice .281. Nor, with unequal loads, a
percentile that is below uniform over all classes together: good percentiles at light experts, which need none, are no help to
a heavy one.

For all s and C at once the condition is also necessary, at one load: with C = xπs the rates given a hit tend to P(ρ < x) and x
(corollary_6), and if P(ρ <= c) < c somewhere then P(ρ < x) < x at some x > c without an atom. With unequal loads it is not: at
loads .8 and .2 with half the hits each let ρ be 0 at the first expert and .05 at the second, which is not below uniform. Then
resonance is never behind: the first gains E[1 - F(.8U)] >= P(.8U >= .01) (1 - F(.01)) = (79/80)(1 - F(.01)), and the second
loses E[F(.2U) - F(.01)] <= P(.2U < .01)(1 - F(.01)) = (1/20)(1 - F(.01)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb

import numpy as np
import sympy as sp

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, resonance, token_choice

c = sp.symbols("c", positive=True)


@dataclass(frozen=True)
class Side:
    """`guarantee`: the least P(ρ <= c) over the laws admitted; `admits(values, weights)` decides about a discrete law.

    `necessary(loads)`: whether the condition, expert by expert, is claimed to be necessary at these loads.
    """

    guarantee: sp.Expr
    admits: Callable[[np.ndarray, np.ndarray], bool]
    necessary: Callable[[Sequence[Fraction]], bool]


def below_uniform(values: np.ndarray, weights: np.ndarray) -> bool:
    order = np.argsort(values)
    # P(ρ < v) >= v at every atom v: just before its jump the distribution function is lowest against c
    return bool(np.all(np.cumsum(weights[order]) - weights[order] >= values[order] - 1e-12))


claim = Claim(
    title="Resonance beats token choice if the percentile is stochastically at most uniform",
    statement=r"if $P(\rho\leq c|hit)\geq c$ for all $c\in[0,1]$ then $P_{RES}\geq P_{TCR}$, for all $s$ and $C$, and "
    r"with one load only then for all of them; unequal loads: not only then; $E\rho<\frac12$ is not enough",
    hypotheses=(
        "no ties of candidate affinities (or ties broken at random)",
        r"$\rho=h/\pi$; where loads are unequal, the condition holds for every expert's own percentile",
    ),
    source="new",
    tag="N6",
    kind="bound",
    expected=Verdict.PROVED,
    studies=("digits_mosaics", "digits_scaling"),
    truth=Side(c, below_uniform, lambda loads: len(set(loads)) == 1),
    mutant=Side(sp.Max(0, 1 - 1 / (2 * c)), lambda values, weights: bool(weights @ values <= 0.5), lambda loads: True),
    mutation="a mean percentile of at most 1/2 instead of the stochastic order; necessary at unequal loads too",
    lemmas=("N5 (exchangeability_identity)", "N1 (token_choice_exact)", "fluid limits (corollary_6)"),
)


@claim.derivation("thinning; the steps that make up F; the least law admitted succeeds exactly as token choice does")
def least_admitted_law_is_token_choice(side: Side) -> Outcome:
    share, u, z, x = sp.symbols("pi u z x", positive=True)
    trials, count = sp.symbols("m k", integer=True, positive=True)
    thinned = (1 - share + share * (1 - u + u * z), 1 - share * u + share * u * z)
    outcomes = [identity(*thinned, name="generating function of a thinned trial - Bernoulli(πu)")]

    # F is a mixture of steps of weight -F' >= 0, since d/dx b(m,k) = m (b(m-1,k-1) - b(m-1,k)) telescopes
    def mass(n: sp.Expr, j: sp.Expr) -> sp.Expr:
        return sp.binomial(n, j) * x**j * (1 - x) ** (n - j)

    slope = (sp.diff(mass(trials, count), x), trials * (mass(trials - 1, count - 1) - mass(trials - 1, count)))
    point = {trials: 6, count: 3, x: sp.Rational(2, 7)}
    outcomes.append(identity(*slope, unit=mass(trials, count), points=[point], name="slope of a binomial mass"))
    # so E F(πρ) = F(π) + ∫ (-F(πc))' P(ρ <= c) dc >= F(π) + ∫ (-F(πc))' guarantee dc, which must be E min(1, C/(N+1))
    for m, capacity, pi in ((5, 2, sp.Rational(1, 4)), (7, 3, sp.Rational(1, 2)), (4, 1, sp.Rational(2, 3))):
        chance = [comb(m, j) * (pi * c) ** j * (1 - pi * c) ** (m - j) for j in range(m + 1)]
        success = sp.expand(sum(chance[:capacity]))
        weighted = sp.expand(-sp.diff(success, c)) * side.guarantee.rewrite(sp.Piecewise)
        least = success.subs(c, 1) + sp.integrate(weighted, (c, 0, 1))
        token = sum(v.subs(c, 1) * min(sp.Integer(1), sp.Rational(capacity, j + 1)) for j, v in enumerate(chance))
        outcomes.append(identity(least, token, name=f"least - token choice, m={m}, C={capacity}, π={pi}"))
    return every(outcomes)


def step_mean(tokens: int, capacity: int, share: Fraction) -> Fraction:
    """F(share) = P(Bin(s-1, share) <= C-1)."""
    m = tokens - 1
    terms = (comb(m, j) * share**j * (1 - share) ** (m - j) for j in range(min(capacity, m + 1)))
    return sum(terms, Fraction(0))


@claim.certificate("loads .8 and .2, ρ = (0, .05): gain against loss for all s and C, and exactly for s < 25")
def unequal_loads_do_not_need_it(side: Side) -> Outcome:
    loads, rho = (Fraction(4, 5), Fraction(1, 5)), (Fraction(0), Fraction(1, 20))
    tail = loads[1] * rho[1]
    gain, loss = 1 - tail / loads[0], tail / loads[1]  # in units of 1 - F(.01)
    if not gain >= loss:
        return fails(f"gain {gain}, loss {loss}")
    for tokens in range(2, 25):
        for capacity in range(1, tokens + 1):
            res = (1 + step_mean(tokens, capacity, tail)) / 2
            tcr = Fraction(0)
            for pi in loads:
                terms = (
                    comb(tokens - 1, j)
                    * pi**j
                    * (1 - pi) ** (tokens - 1 - j)
                    * min(Fraction(1), Fraction(capacity, j + 1))
                    for j in range(tokens)
                )
                tcr += sum(terms, Fraction(0)) / 2
            if res < tcr:
                return fails(f"s={tokens}, C={capacity}: resonance {float(res):.4f} < {float(tcr):.4f}")
    below = below_uniform(np.array([float(rho[1])]), np.ones(1))
    text = f"resonance is never behind: gain {gain}, loss {loss} of 1 - F(.01), though ρ = .05 is not below uniform"
    text += ", which is claimed to be needed" if side.necessary(loads) else ""
    return fails(text) if below or side.necessary(loads) else holds(text)


@claim.reference(
    "laws short of the order by 2e-2 to 2e-5, and laws that just meet it: admitted exactly if never beaten"
)
def admitted_exactly_if_never_beaten(side: Side) -> Outcome:
    # ρ = 0 with probability v - short, else v: the fluid limit at x in (v - short, v) is v - short against x
    tokens, experts = 10**13, 4
    for v in (0.1, 0.395, 0.8):
        for short in (2e-2, 2e-3, 2e-4, 2e-5, 0.0, -2e-5):
            values, weights = np.array([0.0, v]), np.array([v - short, 1 - v + short])
            slots = int((v - max(short, 2e-5) / 4) * tokens / experts)
            rates = Rates(hit=1.0, candidate_tail=values / experts, weight=weights)
            res = float(resonance.success(tokens, slots, rates))
            tcr = float(token_choice.success(tokens, slots, Rates(experts=experts)))
            if side.admits(values, weights) != (res >= tcr):
                return fails(
                    f"ρ = 0 with probability {v - short}, else {v}: resonance {res:.7f}, token choice {tcr:.7f}"
                )
    return holds("18 laws decided as claimed at s = 10^13")


@claim.reference("the package on random percentile laws: whatever the side admits must win")
def package_random_percentile_laws_whatever(side: Side) -> Outcome:
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


def law(side: Side, *, tokens: int, experts: int, capacity: int, rho: str) -> dict[str, float]:
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


def law_skewed(side: Side, *, tokens: int, boost: float, capacity: int) -> dict[str, float]:
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
