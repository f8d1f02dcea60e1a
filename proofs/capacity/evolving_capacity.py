"""V1, N8, N9. When does the capacity needed fall by 40 % (60 %)? When the signal-to-noise ratio passes a fixed mark.

Planted flow: dx = -λ(x - μ) dt + σ_0 dB from N(0, b² I); background μ = 0, class token of expert i: μ = θ w_i. Its marginals are
the planted model with one number, r(t) = θ (1 - e)/sqrt(v), e = e^{-λt}, v = b² e² + g (1 - e²), g = σ_0²/(2λ): which
rises in t for all parameters, since -(1-e) v d(log r)/de = b² e + g (1 - e) > 0.

Everything is monotone in r. The affinity a has density (uniform direction) x e^{-r²/2} M(ra), M(x) = E e^{xR}, R ~ χ_d, so
∂²/∂r∂a log f = (xK')' at x = ra, K = log M. It is >= 0: for x >= 0 as K' > 0, K'' >= 0 (a variance); for x = -e^η < 0, with
L = log R the density of L times exp(-e^{η+L}) is log-concave in (η, L), so M(-e^η) is log-concave in η (Prékopa):
-xK' rises with η, xK' with x. P(hit|a) does not depend on r (planted_law), so a, and a given a hit, have monotone
likelihood ratio in r: they rise stochastically. h(a) and q(a) fall in a: so p, P_ECR, P_RES and P_RES/p rise with r, hence
C*_RES at the target τp falls, while token choice's C* at τp does not depend on r. The saving
S(r) = 1 - Q_ρ(τ|hit)/τ (capacity_saving) rises, and "40 % fewer tokens" is the condition r(t) >= r_40(d, n, τ):
r_40 = 2.2491, r_60 = 2.8209 at d = 64, n = 8, τ = .95. If b² = g = σ² (noise stationary from the start) it holds from
t_40 = -log(1 - r_40 σ/θ)/λ on, and never if θ/σ <= r_40.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import sympy as sp
from scipy import optimize, special

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import resonance, token_choice
from resonance_theory.tokens import Rates, candidates, signals
from resonance_theory.tokens.evolving import Evolving

theta, rate, start, noise, t = sp.symbols("theta lambda b sigma_0 t", positive=True)
MARKS = {0.4: 2.2491, 0.6: 2.8209}  # r at which S(r) is .4 and .6: d = 64, n = 8, τ = .95


def variance(memory, begin, end):
    return begin**2 * memory**2 + end * (1 - memory**2)


@dataclass(frozen=True)
class Side:
    """The condition is claimed to be on θ (1 - e)/sqrt(spread(e, b, g)), with these marks."""

    spread: Callable[..., Any]
    marks: Mapping[float, float]

    def square(self, signal, memory, begin, end):
        return (signal * (1 - memory)) ** 2 / self.spread(memory, begin, end)


claim = Claim(
    title="Resonance saves 40 % (60 %) of the capacity from the time on at which θ(t)/σ(t) passes a mark",
    statement=r"$r(t)=\theta(1-e^{-\lambda t})/\sqrt{v(t)}$, where "
    r"$v=b^2e^{-2\lambda t}+\frac{\sigma_0^2}{2\lambda}(1-e^{-2\lambda t})$, rises in $t$; "
    r"$p$, $P_{RES}$, $P_{ECR}$, $P_{RES}/p$ and the saving $1-Q_\rho(\tau|hit)/\tau$ rise with $r$; "
    r"at $d=64$, $n=8$, $\tau=.95$ the saving reaches 40 % at $r=2.2491$ and 60 % at $r=2.8209$",
    hypotheses=(
        r"background $dx=-\lambda x\,dt+\sigma_0dB$, class token $dx=-\lambda(x-\theta w_i)dt+\sigma_0dB$",
        r"$x(0)\sim N(0,b^2I_d)$ for every token",
        r"orthonormal gates, $\theta>0$; target $\tau p(t)$; saving in the limit $s\to\infty$",
    ),
    source="ETR abstract: 40 % fewer tokens per expert (v2, v3), 60 % (v1), and figure 13 (arXiv 2406.00023); new",
    tag="V1",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("evolution", "planted_phases"),
    truth=Side(variance, MARKS),
    mutant=Side(lambda memory, begin, end: end, {0.4: 2.2493, 0.6: 2.8211}),
    mutation="noise at its stationary value in place of its value at time t; marks larger by 2e-4",
    lemmas=(
        "Prékopa's theorem",
        "monotone likelihood ratio implies stochastic order",
        "capacity_saving",
        "planted_law",
    ),
)


@claim.derivation("the flow's moments, and the square of the ratio")
def flow_s_moments_square_ratio(side: Side) -> Outcome:
    memory, end = sp.exp(-rate * t), noise**2 / (2 * rate)
    mean, v = theta * (1 - memory), variance(memory, start, end)
    point = {theta: 2, rate: 1, start: 3, noise: 1, t: 1}
    return every(
        [
            identity(sp.diff(mean, t), -(rate * (mean - theta)), name="m' + λ(m - θ)"),
            identity(sp.diff(v, t) + 2 * rate * v, noise**2, name="v' + 2λv - σ_0²"),
            identity(v.subs(t, 0), start**2, name="v(0) - b²"),
            identity(side.square(theta, memory, start, end) * v, mean**2, points=[point], name="r² v - m²"),
        ]
    )


@claim.certificate("r rises in t, and the density's log has a non-negative mixed derivative, for all parameters")
def r_rises_t_density_s(side: Side) -> Outcome:
    e, g, part = sp.symbols("e g part", positive=True)
    v = variance(e, start, g)
    slope = sp.diff(sp.log(side.square(theta, e, start, g)), e) / 2
    rising = start**2 * e + g * (1 - e)
    # Hessian in (η, L) of  η-free log density dL - e^{2L}/2  minus e^{η+L}: minus [[w, w], [w, w + 2 z]], z = e^{2L}, w = e^{η+L}
    eta, log_r, d = sp.symbols("eta L d", real=True)
    hessian = -sp.hessian(d * log_r - sp.exp(2 * log_r) / 2 - sp.exp(eta + log_r), (eta, log_r))
    w, z = sp.exp(eta + log_r), sp.exp(2 * log_r)
    # mixed derivative of log M(ra)
    r, a = sp.symbols("r a", real=True)
    x, big_k = sp.symbols("x", real=True), sp.Function("K")
    mixed = sp.diff(big_k(r * a), r, a).doit()
    wanted = sp.diff(x * sp.diff(big_k(x), x), x).subs(x, r * a).doit()
    return every(
        [
            identity(
                -(1 - e) * v * slope,
                rising,
                points=[{e: sp.Rational(1, 3), start: 2, g: 1, theta: 1}],
                name="-(1-e) v d(log r)/de - (b² e + g(1-e))",
            ),
            # e = part/(part + 1) in (0, 1)
            nonnegative_polynomial(
                sp.expand(sp.simplify(rising.subs(e, part / (1 + part)) * (1 + part))),
                {part: 0, start: 0, g: 0},
                name="b² e + g(1-e), cleared",
            ),
            identity(hessian[0, 0], w, name="Hessian, ηη"),
            identity(hessian.det(), 2 * w * z, name="its determinant - 2wz, positive"),
            identity(hessian[1, 1] - w, 2 * z, name="Hessian, LL"),
            identity(mixed, wanted, name="∂²/∂r∂a K(ra) - (xK')'"),
        ]
    )


def saving(ratio: float, goal: float = 0.95) -> float:
    """1 - Q_ρ(τ|hit)/τ of the planted model; ρ falls along the nodes."""
    law = Rates.planted(ratio, 64, 8, nodes=4096)
    mass = (law.weight * law.hit)[::-1]
    below = np.cumsum(mass) - 0.5 * mass
    return 1 - float(np.interp(goal, below / mass.sum(), 8 * law.candidate_tail[::-1])) / goal


def above_given_hit(ratio: float, cut: float, dim: int = 64, experts: int = 8) -> float:
    """P(δ_o >= cut | hit) of planted tokens, by Gauss-Legendre panels from the cut on."""
    node, weight = special.roots_legendre(40)
    edges = np.linspace(cut, min(1.0, cut + 0.9), 33)
    a = (edges[:-1, None] + np.diff(edges)[:, None] * (1 + node) / 2).ravel()
    mass = (np.diff(edges)[:, None] * weight / 2).ravel()
    hit = signals.affinity_density(a, ratio, dim) * candidates.hit_given_affinity(a, dim, experts)
    return float(mass @ hit) / float(signals.hit_rate(ratio, experts))


@claim.reference("the marks to all printed digits: S is below the share 5e-5 before them and above it 5e-5 behind")
def marks_to_printed_digits(side: Side) -> Outcome:
    lines = []
    for share, mark in side.marks.items():
        # S = share iff Q_ρ(τ|hit) = (1 - share) τ iff P(δ_o >= a | hit) = τ at the a with ρ(a) = 8 h(a) = (1 - share) τ
        goal = (1 - share) * 0.95
        cut = optimize.brentq(
            lambda a, goal=goal: 8 * float(candidates.candidate_tail(a, 64, 8)) - goal, 0.01, 0.6, xtol=1e-14
        )
        before, behind = (above_given_hit(mark + e, cut) for e in (-5e-5, 5e-5))
        if not before < 0.95 < behind:
            return fails(
                f"r = {mark}: P(ρ <= {goal:.2f} | hit) is {before:.7f} and {behind:.7f} beside it, not below and above .95"
            )
        lines.append(f"{mark}: {before:.6f}, {behind:.6f}")
    return holds("P(ρ <= (1-S)τ | hit) beside the marks " + "; ".join(lines))


def crossing(side: Side, mark: float, flow: Evolving) -> float:
    """Time at which the side's ratio reaches the mark."""
    grid = np.linspace(0.0, 8.0, 80_001)
    square = side.square(flow.signal, np.exp(-flow.rate * grid), flow.start, flow.noise**2 / (2 * flow.rate))
    return float(np.interp(mark**2, square, grid))


FLOW = Evolving(64, 8, signal=4.0, rate=0.5, noise=1.0, start=2.0)  # g = 1, b² = 4: noise dies down


@claim.reference("about 40 % and 60 % at the marks; finite s = 16384 along a flow, by the law of the evolving tokens")
def marks_finite_s_along_flow(side: Side) -> Outcome:
    parts = []
    for share, mark in MARKS.items():
        if abs(saving(mark) - share) > 2e-4:
            return fails(f"the saving at r = {mark} is {saving(mark):.5f}, not {share}")
        time = crossing(side, mark, FLOW)
        law = FLOW.rates(time, nodes=4096)
        goal = 0.95 * float(law.weight @ law.hit)
        ours = resonance.least_capacity(goal, 16384, law)
        cut = 1 - int(ours) / int(token_choice.least_capacity(0.95, 16384, Rates(experts=8)))
        if abs(cut - share) > 0.01:
            return fails(f"at t = {time:.3f}, where {share} is claimed, the saving is {cut:.4f}")
        parts.append(f"{100 * cut:.1f} % at t = {time:.3f}")
    rates = [saving(r) for r in np.linspace(0.2, 5, 13)]
    rising = all(x < y for x, y in pairwise(rates))
    return holds("; ".join(parts) + "; S rises on 13 ratios") if rising else fails("S does not rise")


def sample(rng: np.random.Generator, trials: int, *, share: float, capacity: int, tokens: int) -> dict[str, int]:
    """Resonance at the time at which the true ratio passes the mark."""
    time, kept = crossing(claim.truth, MARKS[share], FLOW), 0
    for begin in range(0, trials, 2000):
        drawn = FLOW.affinity(rng, min(2000, trials - begin), tokens, time)
        kept += int(np.count_nonzero(resonance.route(drawn.values, capacity).contains(drawn.position, drawn.expert)))
    return {"resonance": kept}


def law(side: Side, *, share: float, capacity: int, tokens: int) -> dict[str, float]:
    time = crossing(claim.truth, MARKS[share], FLOW)
    square = side.square(FLOW.signal, np.exp(-FLOW.rate * time), FLOW.start, FLOW.noise**2 / (2 * FLOW.rate))
    nodes = Rates.planted(float(np.sqrt(square)), 64, 8)
    joint = {"candidate_tail": nodes.candidate_tail, "weight": nodes.weight}
    return {"resonance": float(resonance.success(tokens, capacity, Rates(hit=nodes.hit, **joint)))}


claim.simulate(
    sample,
    cases=[{"share": 0.4, "capacity": 9, "tokens": 128}, {"share": 0.6, "capacity": 6, "tokens": 128}],
    law=law,
    trials=16_000,
    full=500_000,
)
