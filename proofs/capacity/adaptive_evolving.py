"""V1, N12. Does a capacity chosen by affinity mass follow the one that evolving tokens need? On an isotropic background never.

A background token of the flow is N(0, v(t) I): √v (g, R) in gate coordinates and the rest, so its cosine √v g/(√v |(g, R)|)
and its best expert do not depend on v. Hence h(a), m(a) = a h(a) + ∫_a^1 h, the cut a_τ and the fraction f(τ) = ρ(a_τ) that the
share τ of the affinity keeps (adaptive_capacity) are the same at every time, whatever rate, noise and start are: an expert keeps
about f π s tokens early and late. (At finite s too: the law of Σ Y_t does not change either, adaptive_exact.)

What a success of κ p(t) needs is the fraction Q_ρ(κ | hit) (capacity_saving). As ρ(a) falls in a,

    f >= Q_ρ(κ | hit)  iff  P(δ_o >= a_τ | hit) >= κ,

and that probability rises with r(t), the signal over the noise (evolving_capacity), from f at r = 0, where ρ given a hit is
uniform, to 1. So for f < κ there is exactly one mark r_{τκ}: before it the rule provides too little, after it too much,
the more the longer the tokens evolve: κp(t) would do with Q -> 0. d = 64, n = 8, τ = .8: f = .6484,
and r_{.8, .95} = 1.9844, r_{.5, .95} = 2.9281.

Where f = τ or more would be needed (Q_ρ(κ|hit) > τ) no flow helps: f <= τ always (adaptive_exact).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sympy as sp

from proofs.capacity.evolving_capacity import above_given_hit
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.rules import Rates, adaptive, resonance
from resonance_theory.tokens import affinity_mass, candidates
from resonance_theory.tokens.evolving import Evolving

FLOW = Evolving(64, 8, signal=4.0, rate=0.5, noise=1.0, start=2.0)  # variance 4 at first, 1 at last
MARKS = {0.5: 2.9281, 0.8: 1.9844}  # τ -> r at which it is enough for κ = .95


@dataclass(frozen=True)
class Side:
    """The cut is claimed to move with the noise σ(t) to this power, and to be enough for κ = .95 from these marks on."""

    power: int
    marks: Mapping[float, float]


claim = Claim(
    title="Affinity mass does not follow evolving tokens: its capacity stands still while the one needed falls",
    statement=r"the share $\tau$ of affinity keeps the fraction $f(\tau)$ at every time, while a success of $\kappa p(t)$ "
    r"needs $Q_\rho(\kappa|hit)$, which falls; for $f<\kappa$ the rule provides too little until $r(t)=\theta(t)/\sigma(t)$ "
    r"passes one mark $r_{\tau\kappa}$ and too much from then on; $d=64,n=8$: $r_{.8,.95}=1.9844$, $r_{.5,.95}=2.9281$",
    hypotheses=(
        r"background $dx=-\lambda x\,dt+\sigma_0dB$, class token $dx=-\lambda(x-\theta w_i)dt+\sigma_0dB$",
        r"$x(0)\sim N(0,b^2I_d)$ for every token; orthonormal gates, $\theta>0$, $0<\tau\leq 1$",
        r"the limit $s\to\infty$ (at finite $s$ the number kept is constant as well)",
    ),
    source="new; on the adaptive capacity of ETR (arXiv 2406.00023)",
    tag="V1, N12",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("adaptive_evolution",),
    truth=Side(0, MARKS),
    mutant=Side(1, {0.5: 2.9283, 0.8: 1.9846}),
    mutation="a cut that moves in proportion to the noise; marks larger by 2e-4",
    lemmas=("adaptive_capacity", "adaptive_exact", "capacity_saving", "evolving_capacity"),
)


@claim.derivation("a token's cosine does not see the noise")
def token_s_cosine_does_not(side: Side) -> Outcome:
    noise, rest = sp.symbols("sigma R", positive=True)
    g = sp.symbols("g", real=True)

    def cosine(u, other):
        return u / sp.sqrt(u**2 + other**2)

    gap = (cosine(noise * g, noise * rest), noise**side.power * cosine(g, rest))
    point = {noise: 2, rest: 3, g: 1}
    return identity(*gap, points=[point], name="cosine of σ(g, R) against that of (g, R)")


@functools.cache
def isotropic(mass: float) -> float:
    return float(affinity_mass.threshold(mass, 64, 8))


def cut(side: Side, time: float, mass: float) -> float:
    """The cut at a time, claimed from its value at time 0."""
    noise = np.sqrt(FLOW.mean(time)[2] / FLOW.mean(0.0)[2])
    return float(isotropic(mass) * noise**side.power)


def ratio(time: float) -> float:
    return FLOW.signal * (1 - np.exp(-FLOW.rate * time)) / float(np.sqrt(FLOW.mean(time)[2]))


def passing(mark: float) -> float:
    """Time at which r(t) passes a mark."""
    grid = np.linspace(0.0, 12.0, 48_001)
    return float(np.interp(mark, [ratio(t) for t in grid[::40]], grid[::40]))


@claim.reference(
    "the marks to all printed digits: P(δ_o >= a_τ | hit) is below κ 5e-5 before them and above it 5e-5 behind"
)
def marks_to_printed_digits(side: Side) -> Outcome:
    lines = []
    for mass, mark in side.marks.items():
        before, behind = (above_given_hit(mark + e, isotropic(mass)) for e in (-5e-5, 5e-5))
        if not before < 0.95 < behind:
            return fails(f"τ={mass}, r={mark}: {before:.7f} and {behind:.7f}, not below and above .95")
        lines.append(f"{mark}: {before:.6f}, {behind:.6f}")
    return holds("beside the marks " + "; ".join(lines))


@claim.reference(
    "the evolving law's cuts at four times; success given a hit at the marks; chosen and needed slots at s = 4096"
)
def evolving_law_s_cuts_four(side: Side) -> Outcome:
    for time in (0.0, 0.5, 2.0, 8.0):
        law = FLOW.adaptive(time, 0.8)
        if abs(law.threshold[0] - cut(side, time, 0.8)) > 1e-9:
            return fails(f"t={time}: the cut is {law.threshold[0]:.6f}, claimed {cut(side, time, 0.8):.6f}")
    for mass, mark in MARKS.items():
        time = passing(mark)
        token = FLOW.rates(time, nodes=4096)
        above = token.weight @ (token.hit * (token.affinity >= cut(side, time, mass))) / (token.weight @ token.hit)
        if abs(above - 0.95) > 2e-3:
            return fails(f"τ={mass}, r={mark}: success given a hit is {above:.4f}, not .95")
    rows, chosen = [], 512 * float(affinity_mass.kept_fraction(0.8, 64, 8, tokens=4096))
    for time in (0.5, passing(MARKS[0.8]), 4.0):
        token = FLOW.rates(time, nodes=4096)
        joint = {"hit": token.hit, "candidate_tail": token.candidate_tail, "weight": token.weight}
        needed = int(resonance.least_capacity(0.95 * float(token.weight @ token.hit), 4096, Rates(**joint)))
        rows.append((ratio(time), needed))
    if not rows[0][1] > 1.2 * chosen or abs(rows[1][1] - chosen) > 0.06 * chosen or not rows[2][1] < 0.5 * chosen:
        return fails(f"chosen {chosen:.0f}, needed {rows}")
    shown = ", ".join(f"{needed} at r = {r:.2f}" for r, needed in rows)
    return holds(f"cut and marks as claimed; s = 4096: {chosen:.0f} kept throughout, needed {shown}")


def sample(rng: np.random.Generator, trials: int, *, time: float, tokens: int, mass: float) -> dict[str, int]:
    """Tokens of the flow at one time through the router: the class token, and one other at its best expert."""
    done = other = 0
    for begin in range(0, trials, 4000):
        drawn = FLOW.affinity(rng, min(4000, trials - begin), tokens + 1, time)
        row = np.arange(len(drawn.values))
        planted = drawn.position > 0
        background = drawn.values[np.arange(tokens + 1) != drawn.position[:, None]].reshape(-1, tokens, FLOW.experts)
        done += int(np.count_nonzero(adaptive.route(background, mass).contains(0, background[:, 0].argmax(-1), row)))
        # a sample of `total` tokens, the class token among them: leave out one of the others
        keep = np.arange(tokens + 1) != np.where(planted, 0, 1)[:, None]
        values = drawn.values[keep].reshape(-1, tokens, FLOW.experts)
        place = np.where(planted, drawn.position - 1, 0)
        other += int(np.count_nonzero(adaptive.route(values, mass).contains(place, drawn.expert, row)))
    return {"background kept": done, "success": other}


def law(side: Side, *, time: float, tokens: int, mass: float) -> dict[str, float]:
    """The exact rates at `total` tokens, moved by what the claimed cut changes in the limit."""
    exact = FLOW.adaptive(time, mass, tokens=tokens)
    right, claimed = cut(claim.truth, time, mass), cut(side, time, mass)
    token = FLOW.rates(time, nodes=4096)
    moved = token.weight @ (token.hit * ((token.affinity >= claimed) * 1.0 - (token.affinity >= right)))
    more = 8 * (candidates.candidate_tail(claimed, 64, 8) - candidates.candidate_tail(right, 64, 8))
    return {
        "background kept": float(np.clip(exact.kept[0] + more, 0, 1)),
        "success": float(np.clip(exact.success + moved, 0, 1)),
    }


claim.simulate(
    sample,
    cases=[{"time": 0.5, "tokens": 64, "mass": 0.8}, {"time": 4.0, "tokens": 64, "mass": 0.8}],
    law=law,
    trials=8_000,
    full=200_000,
)
