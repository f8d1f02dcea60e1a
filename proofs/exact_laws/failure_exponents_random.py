"""N13 over a law of affinities: the worst affinity that still hits decides the exponent, not a mean percentile.

At a fixed h the chance f(h) = P(Bin(s-1,h) >= C) of no place rises with h (expert_choice_exact). With h* the essential supremum
of h(δ_o) given a hit, f(h*-ε) P(h >= h*-ε | hit) <= failure given a hit = E[f(h)|hit] <= f(h*) for every ε > 0, and only f
moves with s. By failure_exponents, for C/s -> c > h*,

    -(1/s) ln(failure | hit) -> KL(c‖h*),   and for c < h* the failure stays: it tends to P(h(δ_o) > c | hit) (at a point where
                                            that is continuous).

Expert choice: the same with q* over all tokens. KL(c‖h) falls in h < c, by (c-h)/(h(1-h)), so every mean promises too much.

Planted tokens reach every affinity: a token can hit with the worst one of all candidates, -1/√n, so h* = π and q* = 1. Resonance
then has token choice's exponent KL(c‖π), at any signal, and is ahead by a factor only; expert choice has none for any c < 1: it
fails with P(q(δ_o) > c) in the limit, where both others, given a hit, fail exponentially seldom once c > π. The signal moves the
weight of the bad affinities, not the exponent: n = 8, d = 64, θ = 2.5, c = .2 has 1 - P_ECR -> .0493.
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
from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.tokens import Rates, caps, signals

c, h, gap, w = sp.symbols("c h gap w", positive=True)


def kl(x, y):
    return x * sp.log(x / y) + (1 - x) * sp.log((1 - x) / (1 - y))


def side(decides) -> SimpleNamespace:
    """`decides(tails, weights)`: the candidate tail whose exponent a law of affinities has."""
    return SimpleNamespace(decides=decides)


claim = Claim(
    title="Failure exponents over a law of affinities: the worst affinity decides, and planted tokens reach the worst of all",
    statement=r"with $h^*=\mathrm{ess\,sup}\,h(\delta_o)$ given a hit and $C/s\to c$: $-\frac1s\ln(\mathrm{failure}|hit)\to "
    r"KL(c\Vert h^*)$ for $c>h^*$, and the failure tends to $P(h(\delta_o)>c|hit)$ for $c<h^*$; for expert choice the same with "
    r"$q^*=\mathrm{ess\,sup}\,q(\delta_o)$. Planted tokens: $h^*=\pi$, the exponent of token choice, and $q^*=1$",
    hypotheses=(
        r"background tokens independent of each other and of $o$; no ties",
        r"$P(h(\delta_o)=c|hit)=0$ in the second part; planted: any $\theta\geq 0$, orthonormal gates",
    ),
    source="new",
    tag="N13",
    kind="asymptotic",
    expected=Verdict.PROVED,
    truth=side(lambda tails, weights: max(tails)),
    mutant=side(lambda tails, weights: sum(t * v for t, v in zip(tails, weights))),
    mutation="the exponent at the mean candidate tail",
    lemmas=("failure_exponents", "F falls in h (expert_choice_exact)", "fluid limits (corollary_6)"),
)


@claim.derivation("two tails: the exponent of the mixture; KL falls below c")
def two_tails_exponent_mixture_kl(side: SimpleNamespace) -> Outcome:
    # tails h + gap and h of weights w, 1 - w: (1/s) ln of w e^{-sA} + (1-w) e^{-s(A+D)}, D > 0 as KL falls, tends to -A
    tokens, exponent, further = sp.symbols("s A D", positive=True)
    mixture = -exponent + sp.limit(sp.log(w + (1 - w) * sp.exp(-tokens * further)) / tokens, tokens, sp.oo)
    excess = (kl(c, side.decides((h + gap, h), (w, 1 - w))), -(mixture.subs(exponent, kl(c, h + gap))))
    point = {c: sp.Rational(1, 2), h: sp.Rational(1, 8), gap: sp.Rational(1, 8), w: sp.Rational(1, 3)}
    return every(
        [
            identity(*excess, points=[point], name="exponent - KL(c‖larger tail)"),
            identity(sp.diff(kl(c, h), h), -((c - h) / (h * (1 - h))), name="d/dh KL(c‖h) + (c-h)/(h(1-h))"),
        ]
    )


def lost(tokens: int, capacity: int, chance: Fraction) -> Fraction:
    """f(h), exactly."""
    m = tokens - 1
    return sum((comb(m, j) * chance**j * (1 - chance) ** (m - j) for j in range(capacity, m + 1)), Fraction(0))


@claim.reference("random laws in exact rationals: failure between the weight of the worst affinity and 1, times f(h*)")
def random_laws_exact_rationals_failure(side: SimpleNamespace) -> Outcome:
    rng, least = np.random.default_rng(71), 1.0
    for _ in range(60):
        tokens, size = int(rng.integers(3, 40)), int(rng.integers(2, 5))
        tails = [Fraction(int(v), 64) for v in rng.integers(1, 32, size)]
        weights = [Fraction(int(v), 40) for v in rng.multinomial(40 - size, np.full(size, 1 / size)) + 1]
        capacity = int(rng.integers(max(1, tokens // 2), tokens))
        failure = sum(v * lost(tokens, capacity, t) for t, v in zip(tails, weights))
        worst = side.decides(tails, weights)
        weight = sum(v for t, v in zip(tails, weights) if t >= worst)
        at = lost(tokens, capacity, worst)
        if not weight * at <= failure <= at:
            return fails(
                f"s={tokens}, C={capacity}, h={[str(t) for t in tails]}: failure {float(failure):.3g}, f {float(at):.3g}"
            )
        least = min(least, float(failure / at))
    return holds(f"60 laws inside; failure down to {least:.3f} of f(h*)")


@claim.reference(
    "planted tokens, d = 64, n = 8: exponents of the package up to s = 10^7, at two signals; expert choice"
)
def planted_tokens_d_n_exponents(side: SimpleNamespace) -> Outcome:
    limit = 0.2 * np.log(0.2 * 8) + 0.8 * np.log(0.8 / 0.875)  # KL(.2‖1/8)
    lines = []
    for signal in (0.5, 2.5):
        law = Rates.planted(signal, 64, 8, nodes=4096)
        given = law.weight * law.hit / (law.weight @ law.hit)
        decided = float(side.decides(law.candidate_tail, given))
        claimed = 0.2 * np.log(0.2 / decided) + 0.8 * np.log(0.8 / (1 - decided))
        if abs(claimed - limit) > 1e-9:
            return fails(f"θ={signal}: exponent KL(.2‖{decided:.5f}) = {claimed:.6f}, not {limit:.6f}")
        before = np.inf
        for tokens in (10**4, 10**5, 10**6, 10**7):
            capacity = tokens // 5
            joint = {"candidate_tail": law.candidate_tail, "weight": given}
            exponent = -float(resonance.log_failure(tokens, capacity, Rates(hit=1.0, **joint))) / tokens
            other = -float(token_choice.log_failure(tokens, capacity, Rates(experts=8))) / tokens
            # both are above the limit, by the weight of the bad affinities and powers of s: at most 60 nats
            if not 0 < other - limit < exponent - limit < min(before, 60 / tokens):
                return fails(
                    f"θ={signal}, s={tokens}: exponents {exponent:.8f} and {other:.8f}, the limit is {limit:.8f}"
                )
            before = exponent - limit
        stays = 1 - float(signals.affinity_tail(caps.cap_quantile(0.2, 64), signal, 64))
        rate = float(expert_choice.failure(10**5, 20_000, law))
        if abs(rate - stays) > 1e-3:
            return fails(f"θ={signal}: expert choice fails with {rate:.5f}, P(q > c) = {stays:.5f}")
        lines.append(f"θ={signal}: {exponent:.7f} and {other:.7f}, expert choice fails with {stays:.4f}")
    return holds(f"KL = {limit:.7f}; at s = 10^7 " + "; ".join(lines))


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, capacity: int, affinities: list[float], weights: list[float]
) -> dict[str, int]:
    """Two experts, uniform affinities; the discriminative token hits with one of two affinities."""
    scores = rng.random((trials, tokens, 2))
    position, at = rng.integers(tokens, size=trials), np.arange(trials)
    scores[at, position] = 0.0
    scores[at, position, 0] = rng.choice(affinities, trials, p=weights)
    kept = resonance.route(scores, capacity).contains(position, np.zeros_like(position))
    return {"failure": trials - int(np.count_nonzero(kept))}


def law(
    side: SimpleNamespace, *, tokens: int, capacity: int, affinities: list[float], weights: list[float]
) -> dict[str, float]:
    """At most f(h*), e^{-M KL(C/M‖h*)} by Chernoff."""
    worst = float(side.decides([(1 - a * a) / 2 for a in affinities], weights))
    x, m = capacity / (tokens - 1), tokens - 1
    decay = x * np.log(x / worst) + (1 - x) * np.log((1 - x) / (1 - worst))
    return {"failure": float(np.exp(-m * decay)) if x > worst else 1.0}


claim.simulate(
    sample,
    cases=[{"tokens": 20, "capacity": 14, "affinities": [0.2, 0.9], "weights": [0.25, 0.75]}],
    law=law,
    relation="at_most",
    trials=60_000,
)
