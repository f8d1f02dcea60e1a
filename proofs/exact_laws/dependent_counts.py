"""N11, token choice. Dependent tokens: the law by position always holds, the law by rank needs a uniform rank.

Given the uniform position k of the discriminative token, it is kept if fewer than C of the first k others are candidates:
P = (p/s) Σ_{k<s} P(N_k <= C-1), whatever the others' dependence. With J = N_k at the uniform k, that is p P(J <= C-1): if J is
uniform on 0..N given N then P = p E min(1, C/(N+1)), and for a fixed N only then for every C. An order that is exchangeable given
N has it, (1/s) Σ_k C(k,j) C(s-1-k,N-j)/C(s-1,N) = 1/(N+1), and so have others: one candidate among three, in the first or the
last place with probability 1/2 each, is in front with probability (3/4 + 1/4)/2 = 1/2.

Runs of m tokens on one expert break that. Two runs, C <= m: a token behind a full run has no place, one in front has; the
rank form is off by π(1-π) m (2C-m-1)/((m+1)(2m+1)). Closed form: with s-1 = mQ + R, C-1 = mA + t, N_k = m Bin(q,π) + r Ber(π)
for k = mq + r, the open run's r tokens fit beside A runs if r <= t; summing over r < m and q < Q leaves N1's sums over q,
G(Q,c) = Σ_{q<Q} P(Bin(q,π) <= c-1).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction
from itertools import permutations, product
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, dependence, token_choice
from resonance_theory.tokens import signals
from resonance_theory.tokens.samplers import Dependent

m, C, pi = sp.symbols("m C pi", positive=True)


def below(trials: int, share: Fraction, count: int) -> Fraction:
    """P(Bin(trials, share) <= count - 1)."""
    return sum(
        (comb(trials, j) * share**j * (1 - share) ** (trials - j) for j in range(min(count, trials + 1))), Fraction(0)
    )


def by_position(tokens: int, length: int, share: Fraction, capacity: int) -> Fraction:
    """The closed form, with its sums over q taken directly."""
    (runs, rest), (whole, spare) = divmod(tokens - 1, length), divmod(capacity - 1, length)
    fits = min(rest, spare)
    full, less = (sum((below(q, share, c) for q in range(runs)), Fraction(0)) for c in (whole + 1, whole))
    value = full * (length * (1 - share) + share * (spare + 1)) + less * share * (length - 1 - spare)
    value += below(runs, share, whole + 1) * ((rest + 1) * (1 - share) + share * (fits + 1))
    return (value + below(runs, share, whole) * share * (rest - fits)) / tokens


def by_rank(tokens: int, length: int, share: Fraction, capacity: int) -> Fraction:
    runs, rest = divmod(tokens - 1, length)
    value = Fraction(0)
    for j in range(runs + 1):
        chance = comb(runs, j) * share**j * (1 - share) ** (runs - j)
        for extra, weight in ((0, 1 - share), (rest, share)):
            value += chance * weight * min(Fraction(1), Fraction(capacity, length * j + extra + 1))
    return value


# Two runs, C <= m: one candidate run in front or behind has probability π(1-π) each.
POSITION = (1 - pi) ** 2 + pi * (1 - pi) * (C + (m + C)) / (2 * m + 1) + pi**2 * C / (2 * m + 1)
RANK = (1 - pi) ** 2 + 2 * pi * (1 - pi) * C / (m + 1) + pi**2 * C / (2 * m + 1)

Orders = Mapping[tuple[int, ...], Fraction]  # probability of every pattern of candidates (1) among the others


def in_front(orders: Orders) -> dict[int, Fraction]:
    """P(J = j): candidates in front of the discriminative token at a uniform position."""
    chance: dict[int, Fraction] = defaultdict(Fraction)
    for pattern, weight in orders.items():
        for k in range(len(pattern) + 1):
            chance[sum(pattern[:k])] += weight / (len(pattern) + 1)
    return chance


def uniform_rank(orders: Orders) -> bool:
    """Whether J is uniform on 0..N, N the number of candidates of every pattern."""
    count = sum(next(iter(orders)))
    return all(in_front(orders)[j] == Fraction(1, count + 1) for j in range(count + 1))


def exchangeable(orders: Orders) -> bool:
    return all(orders.get(other, 0) == w for pattern, w in orders.items() for other in permutations(pattern))


claim = Claim(
    title="Token choice with dependent tokens: by position always, by rank if the rank given the count is uniform",
    statement=r"$P_{TCR}=\frac{p}{s}\sum_{k<s}P(N_k\leq C-1)$ for every dependence; "
    r"$P_{TCR}=p\,E\min\{1,\frac{C}{N+1}\}$ if given $N$ the number of candidates in front is uniform on $0..N$ (an "
    r"exchangeable order, as with beta-binomial counts, is enough and not needed), for fixed $N$ only then for all $C$; in "
    r"runs of $m$ tokens it is false: $m=8$, $s=129$, $\pi=\frac18$, $C=16$: .744216, by rank .841963",
    hypotheses=(
        r"position uniform, route of the discriminative token independent of the others",
        r"$N_k$: candidates among the first $k$ of the others, $N=N_{s-1}$",
    ),
    source="new",
    tag="N11",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("planted_phases",),
    truth=SimpleNamespace(value=by_position, two_runs=POSITION, rank_form=uniform_rank),
    mutant=SimpleNamespace(value=by_rank, two_runs=RANK, rank_form=exchangeable),
    mutation="the rank form for runs of tokens, and only for an exchangeable order",
    lemmas=("N1 (token_choice_exact)", "Chu-Vandermonde: Σ_k C(k,j) C(n-k,N-j) = C(n+1,N+1)"),
)


@claim.derivation("two runs for all m, C <= m and π; the closed form grows by the chances of the m next positions")
def two_runs_m_c_m(side: SimpleNamespace) -> Outcome:
    # Two runs, by position: k < m sees k tokens of the first run; m <= k <= 2m sees all of it and k - m of the second.
    first = m * (1 - pi) + C * pi  # places Σ_{k<m} 1{no run, or k < C}
    second = (1 - pi) * ((m + 1) * (1 - pi) + C * pi)  # none behind a candidate run, since m >= C
    outcomes = [
        identity(
            side.two_runs,
            (first + second) / (2 * m + 1),
            points=[{m: 8, C: 3, pi: sp.Rational(1, 3)}],
            name="two runs: side - sum over positions",
        )
    ]
    # Growth from s to s + m. f1, f0 = P(Bin(Q,π) <= A), P(Bin(Q,π) <= A-1); g1, g0 the same at Q + 1.
    f1, f0, g1, g0, r, t = sp.symbols("f1 f0 g1 g0 R t", positive=True)
    steady = f1 * (m * (1 - pi) + pi * (t + 1)) + f0 * pi * (m - 1 - t)  # G(Q+1,c) - G(Q,c) = P(Bin(Q,π) <= c-1)
    for fits, open_fit, label in ((r, t - r, "R <= t"), (t, sp.Integer(0), "R > t")):
        ends = (g1 - f1) * ((r + 1) * (1 - pi) + pi * (fits + 1)) + (g0 - f0) * pi * (r - fits)
        # the m new positions: r = R+1..m-1 beside Q runs, then r = 0..R beside Q + 1
        over = (m - 1 - t) if fits == r else (m - 1 - r)
        new = f1 * ((m - 1 - r) * (1 - pi) + pi * open_fit) + f0 * pi * over
        new += g1 * ((r + 1) * (1 - pi) + pi * (fits + 1)) + g0 * pi * (r - fits)
        outcomes.append(identity(steady + ends, new, name=f"growth of the closed form, {label}"))
    return every(outcomes)


@claim.reference("fixed counts, exact: the rank form holds for every capacity exactly where the side says so")
def rank_form_holds_where_said(side: SimpleNamespace) -> Outcome:
    ends: Orders = {(1, 0, 0): Fraction(1, 2), (0, 0, 1): Fraction(1, 2)}
    laws: list[Orders] = [ends, {(1, 0, 0): Fraction(1)}, {(0, 1, 0): Fraction(1)}, {(1, 1, 0): Fraction(1)}]
    laws += [
        {p: Fraction(1, comb(size, n)) for p in product((0, 1), repeat=size) if sum(p) == n}
        for size, n in ((3, 1), (4, 2), (5, 2))
    ]
    laws.append({(1, 1, 0, 0): Fraction(1, 2), (0, 0, 1, 1): Fraction(1, 2)})
    for orders in laws:
        count, chance = sum(next(iter(orders))), in_front(orders)
        exact = all(
            sum(chance[j] for j in range(capacity)) == min(Fraction(1), Fraction(capacity, count + 1))
            for capacity in range(1, count + 2)
        )
        if side.rank_form(orders) != exact:
            return fails(f"{orders}: the rank form is {'' if exact else 'not '}exact")
    return holds(f"{len(laws)} laws of the order, one of them not exchangeable and exact")


@claim.reference(
    "every pattern of runs and every position in exact rationals; the package; the rank form where it holds"
)
def pattern_runs_position_exact_rationals(side: SimpleNamespace) -> Outcome:
    share, worst = Fraction(2, 7), 0.0
    for tokens, length in ((2, 3), (5, 2), (9, 3), (12, 4), (13, 4), (17, 5)):
        runs = -(-(tokens - 1) // length)
        for capacity in range(1, tokens + 1):
            direct = Fraction(0)
            for pattern in product((0, 1), repeat=runs):
                line = [pattern[t // length] for t in range(tokens - 1)]
                chance = share ** sum(pattern) * (1 - share) ** (runs - sum(pattern))
                direct += chance * sum(sum(line[:k]) < capacity for k in range(tokens)) / tokens
            claimed = side.value(tokens, length, share, capacity)
            if direct != claimed:
                return fails(f"s={tokens}, m={length}, C={capacity}: {float(direct):.6f}, not {float(claimed):.6f}")
            ours = token_choice.success(tokens, capacity, Rates(experts=7, top=2, counts=dependence.Blocks(length)))
            worst = max(worst, abs(float(ours) / float(direct) - 1))
    value = side.value(129, 8, Fraction(1, 8), 16)
    if abs(value - Fraction("0.744216")) > Fraction(1, 10**6):
        return fails(f"m=8, s=129, n=8, C=16: {float(value):.6f}")
    # Exchangeable: Polya's urn, P(N_k = j) beta-binomial, α = 2/7 c, β = 5/7 c with correlation 1/(c+1)
    for tokens, c in ((6, 3), (15, 7)):
        alpha, beta = share * c, (1 - share) * c

        def rising(x: Fraction, n: int) -> Fraction:
            return math.prod((x + i for i in range(n)), start=Fraction(1))

        def urn(k: int, j: int, a: Fraction = alpha, b: Fraction = beta, c: int = c) -> Fraction:
            return comb(k, j) * rising(a, j) * rising(b, k - j) / rising(Fraction(c), k)

        for capacity in range(1, tokens + 1):
            position = sum(urn(k, j) for k in range(tokens) for j in range(min(capacity, k + 1))) / tokens
            rank = sum(urn(tokens - 1, j) * min(Fraction(1), Fraction(capacity, j + 1)) for j in range(tokens))
            ours = token_choice.success(
                tokens, capacity, Rates(experts=7, top=2, counts=dependence.BetaBinomial(1 / (c + 1)))
            )
            if position != rank or abs(float(ours) / float(rank) - 1) > 1e-13:
                return fails(f"beta-binomial, s={tokens}, C={capacity}: {position}, by rank {rank}, package {ours}")
    if worst > 1e-13:
        return fails(f"the package differs by {worst:.1e}")
    return holds(
        f"all patterns agree exactly, the package to {worst:.0e}; beta-binomial counts by position and by rank"
    )


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, load: list[float], length: int, capacity: int
) -> dict[str, int]:
    """Runs of tokens with a planted one through the router; experts of equal and unequal loads."""
    model, done = Dependent(2.0, 2 * len(load), len(load), length, load=load), 0
    for start in range(0, trials, 20_000):
        drawn = model.affinity(rng, min(20_000, trials - start), tokens)
        routed = token_choice.route(drawn.values, capacity)
        at = routed.sample
        done += int(np.count_nonzero((routed.token == drawn.position[at]) & (routed.expert == drawn.expert[at])))
    return {"success": done}


def law(side: SimpleNamespace, *, tokens: int, load: list[float], length: int, capacity: int) -> dict[str, float]:
    hit = float(signals.hit_rate(2.0, len(load)))
    places = [float(side.value(tokens, length, Fraction(str(share)), capacity)) for share in load]
    return {"success": hit * sum(places) / len(places)}


claim.simulate(
    sample,
    cases=[
        {"tokens": 33, "load": [0.25] * 4, "length": 8, "capacity": 2},
        {"tokens": 32, "load": [0.5] * 2, "length": 10, "capacity": 9},
        {"tokens": 33, "load": [0.5, 0.3, 0.1, 0.1], "length": 8, "capacity": 6},
    ],
    law=law,
    trials=40_000,
)
