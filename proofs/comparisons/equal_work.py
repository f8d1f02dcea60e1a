"""N8. At equal work: what any rule can reach that processes K tokens per expert on average, and how near each rule comes.

Let a rule keep, of a sample of s background tokens, K tokens per expert on average (K = E min(N, C) for token choice and
resonance, C for expert choice, f π s for adaptive capacity). Token k is kept with probability φ_k(x). Given the class i, its
success with o at a uniform place is (1/s) Σ_k E φ_k with x_k from P_o, while Σ_k E φ_k = K with every token from P_r. For λ >= 0,
token by token,

    ∫ φ (dP_o - λ dP_r) <= ∫ (dP_o - λ dP_r)_+ = M(λ),   so   success <= M(λ) + λ K/s,

whatever the rule knows and however its numbers vary. Where P_o has a density Λ against P_r, M(λ) = E_r (Λ - λ)_+. A part of
P_o where P_r vanishes costs no work, and stays in M for every λ: then R(0) is its mass, not 0. Over classes, with K_i at expert
i, the averages of both sides stand, K the mean of the K_i. The infimum of the right side over λ is R(K/s), R(β) the power of the
best test of o against r at level β: rising and concave, so a mixture of rules cannot beat R of its mean work either, and a
schedule over time has at time t at most R_t(K_t/s).

Planted tokens (planted_optimality): Λ rises with the affinity, so R(β) = P(δ_o >= q^{-1}(β)); keeping all δ >= q^{-1}(K/s)
attains it. The pure rules: token choice p K/(πs) (token_choice_exact); expert choice, as F(q) = P(U > q) with U ~ Beta(C, s-C)
(crossovers),

    P_ECR = P(q(δ_o) < U) = E R(U),  E U = C/s:  below R(C/s) by what Jensen's inequality loses, which vanishes as C grows;

resonance, in the limit, P(hit, ρ <= K/(πs)) <= R(K/s): a test of that level that looks at candidates alone. So at equal work too
expert choice is ahead in the limit of many tokens at every signal, early or late, and a switch from token choice to it at best
equals never having used token choice. (At finite s its order with resonance at equal work is not proved here.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy as sp
from scipy import special

from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, adaptive, expert_choice, resonance, token_choice
from resonance_theory.tokens import affinity_mass, caps, samplers, signals
from resonance_theory.tokens import planted as planted_


@dataclass(frozen=True)
class Side:
    """No rule is claimed to exceed R(share K/s); `singular`: M counts the mass of P_o where P_r vanishes."""

    share: Fraction
    singular: bool


claim = Claim(
    title="At equal work no rule and no schedule of rules beats the best test of level K/s, which expert choice tends to",
    statement=r"a rule that keeps on average $K$ of $s$ background tokens per expert succeeds at most with $R(K/s)$, "
    r"$R(\beta)=\inf_{\lambda\geq 0}\frac1n\sum_i\int(dP_{o,i}-\lambda\,dP_r)_++\lambda\beta$, whatever $P_o$ and $P_r$; "
    r"planted tokens: $R(\beta)=P(\delta_o\geq q^{-1}(\beta))$, $P_{ECR}=E\,R(U)$ with $U\sim\mathrm{Beta}(C,s-C)$, "
    r"$P_{TCR}=pK/(\pi s)$",
    hypotheses=(
        "background tokens i.i.d. and independent of the discriminative one; its position uniform",
        r"any rule, random or not, of fixed or varying numbers; planted: $\theta\geq 0$, unit tokens, $C<s$",
    ),
    source="new; answers ETR Corollary 6 (arXiv 2406.00023) at equal cost",
    tag="N8",
    kind="bound",
    expected=Verdict.PROVED,
    truth=Side(Fraction(1), True),
    mutant=Side(Fraction(9, 10), False),
    mutation="nine tenths of the work; and E_r (Λ - λ)_+ for laws without a density Λ",
    lemmas=("neyman_pearson", "planted_optimality", "token_choice_exact", "crossovers"),
)


@claim.derivation("one token's share of the gap, on both sides of the multiplier")
def one_token_s_share_gap(side: Side) -> Outcome:
    # a token kept with probability kept = 1 - left; Λ = λ ± gap; M(λ) + λ share E φ - E φΛ token by token
    kept, left, gap, level = sp.symbols("kept left gap lambda", nonnegative=True)
    share = sp.Rational(side.share.numerator, side.share.denominator)
    above = gap * (kept + left) + level * share * kept - kept * (level + gap)  # kept + left = 1
    below = level * share * kept - kept * (level - gap)
    origin = {kept: 0, left: 0, gap: 0, level: 0}
    return every(
        [
            nonnegative_polynomial(sp.expand(above), origin, name="a token of Λ = λ + gap"),
            nonnegative_polynomial(sp.expand(below), origin, name="a token of Λ = λ - gap"),
        ]
    )


def best(o: list[Fraction], r: list[Fraction], level: Fraction, singular: bool = True) -> Fraction:
    """R by its formula, exactly: the minimum over λ is at one of the likelihood ratios (or at 0)."""
    pairs = [(x, y) for x, y in zip(o, r) if singular or y > 0]
    ratios = [Fraction(0), *(x / y for x, y in pairs if y > 0)]
    return min(sum((max(x - t * y, Fraction(0)) for x, y in pairs), Fraction(0)) + t * level for t in ratios)


@claim.reference(
    "P_o = (0, 10, 6)/16 against P_r = (4, 12, 0)/16: keeping the third symbol costs no work and succeeds in 3/8"
)
def part_without_background_costs_nothing(side: Side) -> Outcome:
    o, r = ([Fraction(v, 16) for v in row] for row in ((0, 10, 6), (4, 12, 0)))
    work, success = r[2], o[2]
    claimed = best(o, r, side.share * work, side.singular)
    text = f"work {work}, success {success}, claimed at most {claimed}"
    return holds(text) if success == claimed else fails(text)


@claim.reference(
    "exact rationals: random rules on two tokens of three symbols stay below, and tests of every level attain it"
)
def exact_rationals_random_rules_two(side: Side) -> Outcome:
    rng = np.random.default_rng(61)
    for _ in range(60):
        o, r = ([Fraction(int(v), 12) for v in rng.multinomial(12, np.ones(3) / 3)] for _ in range(2))
        # φ_k(x): any rule on samples of two tokens
        phi = {(k, x, y): Fraction(int(rng.integers(9)), 8) for k in (0, 1) for x in range(3) for y in range(3)}
        pairs = [(x, y, r[x] * r[y]) for x in range(3) for y in range(3)]
        work = sum(p * (phi[0, x, y] + phi[1, x, y]) for x, y, p in pairs)
        success = sum(o[x] * r[y] * phi[0, x, y] + r[x] * o[y] * phi[1, x, y] for x, y, _ in pairs) / 2
        if success > best(o, r, side.share * work / 2, side.singular):
            return fails(f"a rule of work {work} succeeds with {success}")
        # the test: largest ratios first, the last one at random
        level, left, power = Fraction(1, 2), Fraction(1, 2), Fraction(0)
        for k in sorted(range(3), key=lambda k: -o[k] / r[k] if r[k] else -math.inf):
            part = min(left, r[k])
            power, left = power + (o[k] * part / r[k] if r[k] else o[k]), left - part
        claimed = best(o, r, side.share * level, side.singular)
        if power != claimed:
            return fails(f"the test of level 1/2 has power {power}, the bound is {claimed}")
    return holds("60 models")


def power(level: np.ndarray | float, dim: int, signal: float) -> np.ndarray:
    """R of planted tokens."""
    return np.asarray(signals.affinity_tail(caps.cap_quantile(level, dim), signal, dim))


def rates(tokens: int, dim: int, experts: int, signal: float, work: int) -> dict[str, float]:
    """Success at `work` tokens per expert on average: the two rules with candidates between two whole capacities."""
    law = planted_.planted(signal, dim, experts, nodes=4096)
    capacity = np.arange(1, tokens + 1)
    spent = token_choice.kept(tokens, capacity, Rates(experts=experts))
    c = int(np.searchsorted(spent, work))  # capacities c and c + 1
    part = float((work - spent[c - 1]) / (spent[c] - spent[c - 1]))
    by_rank = [float(resonance.success(tokens, k, law)) for k in (c, c + 1)]
    return {
        "TCR": float(law.weight @ law.hit) * work * experts / tokens,
        "RES": (1 - part) * by_rank[0] + part * by_rank[1],
        "ECR": float(expert_choice.success(tokens, work, law)),
    }


@claim.reference(
    "planted tokens: E R(U) is the package's expert choice; the rules at equal work, and how near they come"
)
def planted_tokens_e_r_u(side: Side) -> Outcome:
    node, weight = special.roots_legendre(200)
    lines = []
    for tokens, signal, work in ((256, 1.0, 16), (256, 2.5, 12), (256, 4.0, 8), (16384, 2.5, 768)):
        u = special.betaincinv(work, tokens - work, (1 + node) / 2)
        mean = float(weight @ power(u, 64, signal)) / 2
        found = rates(tokens, 64, 8, signal, work)
        most = float(power(float(side.share) * work / tokens, 64, signal))
        if abs(mean - found["ECR"]) > 1e-4:
            return fails(f"s={tokens}, θ={signal}, C={work}: E R(U) = {mean:.6f}, expert choice {found['ECR']:.6f}")
        if max(found.values()) > most + 1e-9:
            return fails(f"s={tokens}, θ={signal}, K={work}: {found} against {most:.5f}")
        shown = ", ".join(f"{k} {v:.4f}" for k, v in found.items())
        lines.append(f"s={tokens}, θ={signal}, K={work}: {shown}, bound {most:.4f}")
    return holds("; ".join(lines))


def sample(rng: np.random.Generator, trials: int, *, tokens: int, work: int, dim: int, signal: float) -> dict[str, int]:
    """Through the routers, and by the test that keeps all of affinity q^{-1}(K/s) at least."""
    drawn = samplers.planted_affinity(rng, trials, tokens, dim, 4, signal)
    own = drawn.values[np.arange(trials), drawn.position, drawn.expert]
    chosen = expert_choice.route(drawn.values, work).contains(drawn.position, drawn.expert)
    return {
        "expert choice": int(np.count_nonzero(chosen)),
        "test": int(np.count_nonzero(own >= caps.cap_quantile(work / tokens, dim))),
        "affinity mass": int(
            np.count_nonzero(adaptive.route(drawn.values, 0.5).contains(drawn.position, drawn.expert))
        ),
    }


def law(side: Side, *, tokens: int, work: int, dim: int, signal: float) -> dict[str, float]:
    """The exact rates, cut down to the R that the side allows for their work; the test attains it."""
    share, planted = float(side.share), planted_.planted(signal, dim, 4, nodes=4096)
    spent = float(affinity_mass.kept_fraction(0.5, dim, 4, tokens=tokens)) / 4
    most, mass = (float(power(share * level, dim, signal)) for level in (work / tokens, spent))
    ranked = float(expert_choice.success(tokens, work, planted))
    return {
        "expert choice": min(ranked, most),
        "test": most,
        "affinity mass": min(float(affinity_mass.success(0.5, signal, dim, 4, tokens=tokens)), mass),
    }


claim.simulate(
    sample,
    cases=[{"tokens": 32, "work": 4, "dim": 16, "signal": 1.5}],
    law=law,
    trials=60_000,
    full=1_000_000,
)
