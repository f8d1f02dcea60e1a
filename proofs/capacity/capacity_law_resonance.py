"""N9, resonance. The least capacity at a fixed affinity percentile: one of two integers, by Zubkov and Serov's normal bounds.

With M = s-1, h = ρπ and H(k) = sgn(k/M - h) sqrt(2M KL(k/M ‖ h)), increasing in k, Zubkov and Serov (2013) prove
Φ(H(k)) <= P(Bin(M,h) <= k) <= Φ(H(k+1)). With k = C-1: success >= τ forces H(C) >= z = Φ^{-1}(τ), so C >= κ, the root of
H(κ) = z; and H(C-1) >= z, true at C = ⌈κ⌉+1, is enough. So C* is ⌈κ⌉ or ⌈κ⌉+1.

Closed form: KL(x ‖ h) <= (x-h)²/(2h(1-h)) for h <= x <= 1-h, as the difference D has D(h) = D'(h) = 0 and
D'' = 1/(h(1-h)) - 1/(x(1-x)) = (x-h)(1-h-x)/(...) >= 0 there. So κ >= Mh + z sqrt(Mh(1-h)) when that is at most M(1-h), z >= 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import flint
import numpy as np
import sympy as sp
from scipy import optimize, special, stats

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, resonance

x, h = sp.symbols("x h", positive=True)


def root(others: int, tail: float, goal: float) -> float:
    """κ: the root of H(κ) = Φ^{-1}(τ); 0 where even no rival is likelier than τ allows."""
    z = float(special.ndtri(goal))

    def excess(k: float) -> float:
        y = k / others
        kl = float(special.rel_entr(y, tail) + special.rel_entr(1 - y, 1 - tail))
        return float(np.sign(y - tail) * np.sqrt(2 * others * max(kl, 0.0))) - z

    if excess(0.0) >= 0:
        return 0.0
    return float(optimize.brentq(excess, 0.0, others, xtol=1e-9)) if excess(others) > 0 else float(others)


@dataclass(frozen=True)
class Side:
    """C* is claimed to lie in ⌈κ⌉..⌈κ⌉+extra, and KL(x‖h) below `part` (x-h)²/(h(1-h))."""

    extra: int
    part: sp.Rational


claim = Claim(
    title="Capacity law of resonance at a fixed percentile: one of two integers",
    statement=r"$C^*_{RES}(\tau)\in\{\lceil\kappa\rceil,\lceil\kappa\rceil+1\}$, $\kappa$ the root of "
    r"$\mathrm{sgn}(\frac kM-h)\sqrt{2M\,KL(\frac kM\Vert h)}=\Phi^{-1}(\tau)$; "
    r"$\lceil Mh+z\sqrt{Mh(1-h)}\rceil\leq C^*_{RES}$ for $\tau\geq\frac12$, $h+z\sqrt{h(1-h)/M}\leq 1-h$",
    hypotheses=(r"$M=s-1$, $h=\rho\pi\in(0,1)$, $z=\Phi^{-1}(\tau)$, $1\leq\kappa\leq M-1$",),
    source="new",
    tag="N9",
    kind="bound",
    expected=Verdict.PROVED,
    truth=Side(1, sp.Rational(1, 2)),
    mutant=Side(0, sp.Rational(2, 5)),
    mutation="C* = ⌈κ⌉ always, and 2/5 for 1/2 in the quadratic bound of KL",
    lemmas=("Zubkov and Serov (2013), Theorem 1",),
)


@claim.derivation("the quadratic bound of KL: value and slope at h, and curvature")
def quadratic_bound_of_kl(side: Side) -> Outcome:
    kl = x * sp.log(x / h) + (1 - x) * sp.log((1 - x) / (1 - h))
    gap = side.part * (x - h) ** 2 / (h * (1 - h)) - kl
    curvature = (x - h) * (1 - h - x) / (h * (1 - h) * x * (1 - x))
    return every(
        [
            value(gap, {x: h}, 0, name="D(h)"),
            value(sp.diff(gap, x), {x: h}, 0, name="D'(h)"),
            identity(sp.diff(gap, x, 2), curvature, name="D'' - (x-h)(1-h-x)/(h(1-h)x(1-x))"),
        ]
    )


@claim.reference("balls: Zubkov and Serov's bounds, and targets at which ⌈κ⌉ slots are one too few, for M = 2 to 40")
def targets_that_need_one_more(side: Side) -> Outcome:
    saved, flint.ctx.dps = flint.ctx.dps, 60
    try:
        return one_more(side)
    finally:
        flint.ctx.dps = saved


def one_more(side: Side) -> Outcome:
    arb, count = flint.arb, 0

    def normal(k: int, m: int, p: flint.arb) -> flint.arb:
        """Φ(H(k))."""
        y = arb(k) / m
        size = (2 * m * (y * (y / p).log() + (1 - y) * ((1 - y) / (1 - p)).log())).sqrt()
        return (-(size if y > p else -size) / arb(2).sqrt()).erfc() / 2

    for m in range(2, 41, 2):
        for eighth in (1, 3, 6):
            p, below = arb(eighth) / 8, (1 - arb(eighth) / 8) ** m  # below = P(X <= k - 1), from k = 1
            for k in range(1, m):
                if 8 * k == eighth * m:  # H(k) = 0
                    below += comb(m, k) * p**k * (1 - p) ** (m - k)
                    continue
                upto, at = below + comb(m, k) * p**k * (1 - p) ** (m - k), normal(k, m, p)
                if not below < at < upto:
                    return fails(f"M={m}, h={eighth}/8, k={k}: Φ(H(k)) is {at.str(6)}")
                # a target between P(X <= k-1) and Φ(H(k)) has ⌈κ⌉ = k; C slots reach it iff P(X <= C-1) does
                target, slots = (below + at) / 2, k + side.extra
                reached = upto if slots == k + 1 else below
                if not reached >= target:
                    return fails(
                        f"M={m}, h={eighth}/8: ⌈κ⌉ = {k}, and {slots} slots keep {reached.str(6)} of {target.str(6)}"
                    )
                count, below = count + 1, upto
    return holds(f"{count} targets that ⌈κ⌉ + 1 slots reach and ⌈κ⌉ do not")


@claim.reference("the package's least capacities; 336, 229, 64 at s = 4096; closed form; Zubkov-Serov on exact tails")
def package_s_least_capacities_s(side: Side) -> Outcome:
    rng = np.random.default_rng(24)
    tokens = (10 ** rng.uniform(1, 6, 1500)).astype(np.int64)
    tail = 10 ** rng.uniform(-3, -0.2, 1500)
    goal = rng.choice([0.5, 0.6, 0.9, 0.95, 0.99, 0.999], 1500)
    kappa = np.array([root(int(s) - 1, float(t), float(g)) for s, t, g in zip(tokens, tail, goal)])
    used = (kappa >= 1) & (kappa <= tokens - 2)
    tokens, tail, goal, kappa = tokens[used], tail[used], goal[used], kappa[used]
    least = resonance.least_capacity(goal, tokens, Rates(hit=1.0, candidate_tail=tail))
    outside = (least < np.ceil(kappa - 1e-7)) | (least > np.ceil(kappa + 1e-7) + side.extra)
    if outside.any():
        i = int(np.argmax(outside))
        return fails(f"s={tokens[i]}, h={tail[i]:.5f}, τ={goal[i]}: C* = {least[i]}, ⌈κ⌉ = {np.ceil(kappa[i]):.0f}")
    spread, z = tail * (1 - tail), special.ndtri(goal)
    closed = (tokens - 1) * tail + z * np.sqrt((tokens - 1) * spread)
    wrong = (closed <= (tokens - 1) * (1 - tail)) & (np.ceil(closed * (1 - 1e-12)) > least)
    if wrong.any():
        return fails(f"closed form above C* at s={tokens[np.argmax(wrong)]}")
    for rho, expected in ((0.6, 336), (0.4, 229), (0.1, 64)):  # s = 4096, n = 8, τ = .95, minimality by SciPy's tails
        ours = int(resonance.least_capacity(0.95, 4096, Rates(hit=1.0, candidate_tail=rho / 8)))
        enough = stats.binom.cdf(ours - 1, 4095, rho / 8) >= 0.95 > stats.binom.cdf(ours - 2, 4095, rho / 8)
        if ours != expected or not enough:
            return fails(f"ρ={rho}: C* = {ours}")
    m = np.floor(10 ** rng.uniform(0.5, 4, 4000))
    p = rng.uniform(0.01, 0.99, 4000)
    k = np.clip(np.round(m * p + rng.uniform(-6, 6, 4000) * np.sqrt(m * p * (1 - p))), 1, m - 2)

    def normal(count: np.ndarray) -> np.ndarray:
        y = count / m
        return special.ndtr(np.sign(y - p) * np.sqrt(2 * m * (special.rel_entr(y, p) + special.rel_entr(1 - y, 1 - p))))

    exact = stats.binom.cdf(k, m, p)
    if np.any(normal(k) > exact * (1 + 1e-9)) or np.any(exact > normal(k + 1) * (1 + 1e-9)):
        return fails("Zubkov-Serov fails numerically")
    above = int(np.count_nonzero(least > np.ceil(kappa)))
    return holds(f"{len(kappa)} inside, ⌈κ⌉+1 needed in {above}; C* = 336, 229, 64; Zubkov-Serov holds on 4000 tails")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, tail: float, capacity: int) -> dict[str, int]:
    return {"success": int(np.count_nonzero(rng.binomial(tokens - 1, tail, trials) < capacity))}


def law(side: Side, *, tokens: int, tail: float, capacity: int) -> dict[str, float]:
    """A side promises τ = .9 at ⌈κ⌉ + extra and above, and nothing below."""
    return {"success": 0.9 if capacity >= int(np.ceil(root(tokens - 1, tail, 0.9))) + side.extra else 0.0}


claim.simulate(
    sample,
    # ⌈κ⌉ and ⌈κ⌉ + 1 in two settings where the second one is needed
    cases=[
        {"tokens": 12, "tail": 0.12, "capacity": int(np.ceil(root(11, 0.12, 0.9))) + 1},
        {"tokens": 12, "tail": 0.12, "capacity": int(np.ceil(root(11, 0.12, 0.9)))},
        {"tokens": 40, "tail": 0.13, "capacity": int(np.ceil(root(39, 0.13, 0.9))) + 1},
        {"tokens": 40, "tail": 0.13, "capacity": int(np.ceil(root(39, 0.13, 0.9)))},
    ],
    law=law,
    relation="at_least",
)


def threshold(kind: str, tail: float) -> float:
    """The affinity at which h is `tail`: uniform affinities and Top-2 of 4, or loads (.5, .3, .15, .05)."""
    if kind == "skewed":  # scores log w + Gumbel, h = w (1 - e^{-v}) at the score -log v (_skewed)
        return float(-np.log(-np.log1p(-tail / _skewed.LOAD[1])))
    reach = optimize.brentq(
        lambda x: np.minimum(np.arange(5), 2) @ stats.binom.pmf(np.arange(5), 4, x) / 4 - tail, 0, 1
    )
    return 1 - float(reach)


def sample_router(
    rng: np.random.Generator, trials: int, *, kind: str, tokens: int, tail: float, capacity: int
) -> dict[str, int]:
    """The token of expert 1 at a fixed affinity, and at no other expert, among real competitors."""
    shape = (trials, tokens, 4)
    scores = rng.gumbel(size=shape) + np.log(_skewed.LOAD) if kind == "skewed" else rng.random(shape)
    position = rng.integers(tokens, size=trials)
    at = np.arange(trials)
    scores[at, position] = -50.0
    scores[at, position, 1] = threshold(kind, tail)
    routed = resonance.route(scores, capacity, top=1 if kind == "skewed" else 2)
    return {"success": int(np.count_nonzero(routed.contains(position, np.ones(trials, dtype=int))))}


claim.simulate(
    sample_router,
    cases=[
        {"kind": kind, "tokens": 12, "tail": 0.12, "capacity": int(np.ceil(root(11, 0.12, 0.9))) + extra}
        for kind in ("top 2", "skewed")
        for extra in (0, 1)
    ],
    law=lambda side, *, kind, tokens, tail, capacity: law(side, tokens=tokens, tail=tail, capacity=capacity),
    relation="at_least",
    trials=60_000,
    name="Monte Carlo through the router, Top-2 and unequal loads",
)
