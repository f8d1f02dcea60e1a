"""N13. Failure exponents per token of the three rules, two-sided at every finite s.

With M = s-1 others, x = C/M and a rival's rate r (q for expert choice, h = ρπ for resonance, π for token choice), a place is
lost if Bin(M, r) >= C. Above: Chernoff (chernoff_kl), e^{-M KL(x‖r)} for x >= r. Below: one term of the tail is
b(M,C;r) = e^{-M KL(x‖r)} b(M,C;x), and C is the mode of Bin(M,x), so b(M,C;x) >= 1/(M+1) = 1/s for every r.
Token choice loses less often: its failure given a hit is E(N_s - C)_+/(πs) = E(1 - C/(N_M + 1))_+ (N1, k b(s,k) = sπ b(M,k-1)),
and 1 - C/(j+1) lies between 1/(C+1) (at j = C) and 1 - C/s (at j = M). So

    e^{-M KL(C/M‖r)} / s       <= failure of ECR (r = q), of RES given a hit (r = ρπ)  <= e^{-M KL(C/M‖r)},
    e^{-M KL(C/M‖π)} / (s(C+1)) <= failure of TCR given a hit                          <= (1 - C/s) e^{-M KL(C/M‖π)},

and with C/s -> c above r the exponents are KL(c‖q), KL(c‖ρπ), KL(c‖π), with a remainder of at most ln(s(C+1))/(s-1). They hold at
one affinity: over a law of affinities the average of the bounds holds, and the worst affinity decides (failure_exponents_random).
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy.special import xlogy

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, expert_choice, resonance, token_choice

M, C, j = sp.symbols("M C j", positive=True)
r = sp.symbols("r", positive=True)


def side(shift: int) -> SimpleNamespace:
    """The exponents are claimed at (C + shift)/(s-1)."""

    def logs(tokens, capacity, rate, rule: str):
        """Natural logarithms of the lower and upper bound of the failure given a hit."""
        m, count = tokens - 1, capacity + shift
        # m KL(count/m ‖ rate), written out: the package's version is not used here
        decay = xlogy(count, count / (m * rate)) + xlogy(m - count, (m - count) / (m * (1 - rate)))
        if rule == "TCR":
            return -decay - np.log(tokens * (capacity + 1.0)), -decay + np.log1p(-capacity / tokens)
        return -decay - np.log(tokens), -decay

    return SimpleNamespace(shift=shift, logs=logs)


claim = Claim(
    title="Failure exponents of the three rules, two-sided at every number of tokens",
    statement=r"for $C/s\to c$ above each rate, $-\frac1s\ln(\mathrm{failure}|hit)$ tends to $KL(c\Vert\pi)$ (TCR), "
    r"$KL(c\Vert\rho\pi)$ (RES), $KL(c\Vert q)$ (ECR); for every $s$: $\frac1s\leq \mathrm{failure}\cdot e^{(s-1)KL(\frac{C}{s-1}"
    r"\Vert r)}\leq 1$ (RES with $r=\rho\pi$, ECR with $r=q$), between $\frac{1}{s(C+1)}$ and $1-\frac{C}{s}$ (TCR with $r=\pi$)",
    hypotheses=(
        r"$1\leq C\leq s-1$, $0<r<1$; the upper bounds for $C\geq r(s-1)$, the lower ones always",
        r"one fixed affinity (percentile $\rho=h/\pi$); failure given a hit for TCR and RES",
    ),
    source="new",
    tag="N13",
    kind="asymptotic",
    expected=Verdict.PROVED,
    truth=side(0),
    mutant=side(1),
    mutation="exponents at (C+1)/(s-1)",
    lemmas=("Chernoff's bound with the KL rate (chernoff_kl)", "N1 (token_choice_exact)"),
)


@claim.derivation(
    "one term of the tail is e^{-M KL} times a mass at the mode; the token-choice factor between its ends"
)
def one_term_tail_e_m(side: SimpleNamespace) -> Outcome:
    k = C + side.shift
    kl = k * sp.log(k / (M * r)) + (M - k) * sp.log((M - k) / (M * (1 - r)))
    # ln b(M,C;r) + M KL is free of r: its value is ln b(M,C;x) with x = C/M
    slope = (sp.diff(C * sp.log(r) + (M - C) * sp.log(1 - r), r), -sp.diff(kl, r))
    factor = 1 - C / (j + 1)
    return every(
        [
            identity(*slope, points=[{M: 9, C: 4, r: sp.Rational(1, 3)}], name="d/dr ln[b(M,C;r) e^{M KL}]"),
            value(kl, {r: k / M}, 0, points=[{M: 9, C: 4}], name="KL at r = x"),
            identity(factor - 1 / (C + 1), C * (j - C) / ((j + 1) * (C + 1)), name="1-C/(j+1) - 1/(C+1) - slack"),
            identity((1 - C / (M + 1)) - factor, C * (M - j) / ((M + 1) * (j + 1)), name="ends at j = M"),
        ]
    )


@claim.certificate("C is the mode of Bin(M, C/M): ratios of neighbouring masses on both sides of it, for all integers")
def c_mode_bin_m_c(side: SimpleNamespace) -> Outcome:
    # b(k+1)/b(k) = (M-k)x/((k+1)(1-x)) with x = (C+shift)/M; <= 1 from k = C on, >= 1 up to k = C-1. With M = C + e:
    e, step = sp.symbols("e step", nonnegative=True)

    def excess(k: sp.Expr, m: sp.Expr) -> sp.Expr:
        """(k+1)(M-x M) - (M-k) x M: non-negative where the masses do not grow."""
        return sp.expand((k + 1) * (m - C - side.shift) - (m - k) * (C + side.shift))

    falls = excess(C + step, C + e)
    # k = C-1-step >= 0, so C = 1 + step + rest
    rest = sp.symbols("rest", nonnegative=True)
    grows = -excess(C - 1 - step, C + e).subs(C, 1 + step + rest)
    return every(
        [
            nonnegative_polynomial(falls, {C: 1, e: side.shift, step: 0}, name="fall above C"),
            nonnegative_polynomial(sp.expand(grows), {rest: 0, e: side.shift, step: 0}, name="growth below C"),
        ]
    )


@claim.reference(
    "exact failures of the package at 4000 settings, s up to 10^6, inside the bounds; exponents at s = 10^8"
)
def exact_failures_package_settings_s(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(41)
    tokens = (10 ** rng.uniform(0.4, 6, 4000)).astype(np.int64) + 1
    experts = rng.integers(2, 40, 4000)
    capacity = np.clip(tokens / experts * 10 ** rng.uniform(-0.5, 1, 4000), 1, tokens - 1).astype(np.int64)
    fits = capacity + side.shift <= tokens - 1
    tokens, experts, capacity = tokens[fits], experts[fits], capacity[fits]
    rate = rng.uniform(0.01, 1, len(tokens)) / experts
    exact = {
        "TCR": (1 / experts, token_choice.log_failure(tokens, capacity, Rates(experts=experts))),
        "RES": (rate, resonance.log_failure(tokens, capacity, Rates(hit=1.0, candidate_tail=rate))),
        "ECR": (
            rate * 0.95 * experts,
            expert_choice.log_failure(tokens, capacity, Rates(false_positive=rate * 0.95 * experts)),
        ),
    }
    for rule, (each, wanted) in exact.items():
        low, high = side.logs(tokens, capacity, each, rule)
        slack = 1e-9 * (1 + abs(wanted))
        wrong = (wanted < low - slack) | ((capacity >= each * (tokens - 1)) & (wanted > high + slack))
        if wrong.any():
            k = int(np.argmax(wrong))
            return fails(
                f"{rule} s={tokens[k]}, C={capacity[k]}, rate {each[k]:.4f}: {wanted[k]:.6g} not in [{low[k]:.6g}, {high[k]:.6g}]"
            )
    s, n, rho, q, c = 10**8, 8, 0.4, 0.15, 0.2
    values = {
        1 / n: float(token_choice.log_failure(s, int(c * s), Rates(experts=n))),
        rho / n: float(resonance.log_failure(s, int(c * s), Rates(hit=1.0, candidate_tail=rho / n))),
        q: float(expert_choice.log_failure(s, int(c * s), Rates(false_positive=q))),
    }
    for r_, found in values.items():
        limit = c * np.log(c / r_) + (1 - c) * np.log((1 - c) / (1 - r_))
        if abs(-found / s - limit) > 2 * np.log(s) / s + 2 / s * abs(np.log(c / r_)):
            return fails(f"exponent at rate {r_}: {-found / s:.9f}, limit {limit:.9f}")
    return holds("no violation; exponents within 2 ln(s)/s of their limits")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, capacity: int, affinity: float
) -> dict[str, int]:
    """Uniform affinities through the three routers; the discriminative token hits expert 0 with a fixed affinity."""
    scores = rng.random((trials, tokens, experts))
    position = rng.integers(tokens, size=trials)
    scores[np.arange(trials), position] = 0.0
    scores[np.arange(trials), position, 0] = affinity
    rules = {"TCR": token_choice, "RES": resonance, "ECR": expert_choice}
    lost = {}
    for name, rule in rules.items():
        kept = rule.route(scores, capacity).contains(position, np.zeros_like(position))
        lost[name] = int(trials - np.count_nonzero(kept))
    return lost


def law(side: SimpleNamespace, *, tokens: int, experts: int, capacity: int, affinity: float) -> dict[str, float]:
    # of a uniform token: q = 1 - a, candidate above a = (1 - a^n)/n, candidate = 1/n
    rates = {"TCR": 1 / experts, "RES": (1 - affinity**experts) / experts, "ECR": 1 - affinity}
    return {name: float(np.exp(side.logs(tokens, capacity, rate, name)[1])) for name, rate in rates.items()}


claim.simulate(
    sample,
    cases=[{"tokens": 5, "experts": 5, "capacity": 2, "affinity": 0.8}],
    law=law,
    relation="at_most",
    trials=100_000,
)
