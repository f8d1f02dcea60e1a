"""N12. Adaptive capacity by affinity mass: an exact criterion for one token, and the Lorenz equation it tends to.

An expert keeps the fewest best candidates whose affinities sum to τ of their total S (our reading of ETR's "threshold of the sum
of affinity scores"); none if S <= 0. Partial sums in falling order rise and then fall to S, so for S > 0 a candidate of
affinity a is kept exactly if those above it sum to less than τS. With B above it and W below, S = B + W + a, that reads
(1-τ)B - τW < τa:

    kept  iff  S > 0 and Σ_t Y_t < τa,   Y_t = 1{candidate} δ_t (1{δ_t > a} - τ),  independent over the other tokens.

E Y = m(a) - τ m(-1) with m(a) = E[δ; candidate, δ >= a] = a h(a) + ∫_a^1 h (both have slope a h'(a), both vanish at 1), and
m falls for a > 0. So the cut tends to the root of m(a) = τ m(-1), and the kept fraction f = h(a)/h(-1) solves the Lorenz equation
f E[δ | top f] = τ E[δ | candidate]. At every s Bernstein's inequality (|Y - EY| <= 1 + |EY|) bounds what the cut's fluctuation
changes:

    |P(kept | a) - 1{m(a) < τ m(-1)}| <= exp{-x²/(2(s-1) Var Y + 2x(1+|EY|)/3)} + P(S <= 0),  x = |(s-1) EY - τa|,

where x counts only if the sign of (s-1) EY - τa is the limit's; P(S <= 0) is bounded in the same way.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import flint
import numpy as np
import sympy as sp
from scipy import special

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import adaptive
from resonance_theory.tokens import affinity_mass, candidates, samplers, signals


@dataclass(frozen=True)
class Side:
    """A candidate weighs its affinity to this power: 1, or 0 for a mere count of candidates.

    Bernstein's bound takes `variance` times the variance of Y, and `empty` times P(S <= 0).
    """

    power: int
    variance: float = 1.0
    empty: float = 1.0


claim = Claim(
    title="Adaptive capacity by affinity mass: the kept fraction is a point of the Lorenz curve",
    statement=r"keeping the fewest best candidates with $\tau$ of the affinity's sum keeps, as $s\to\infty$, the fraction $f$ "
    r"with $f\,E[\delta|top\ f]=\tau E[\delta|candidate]$, the candidates above the root of $m(a)=\tau m(-1)$, "
    r"$m(a)=ah(a)+\int_a^1h$; success tends to $P(hit,\delta_o\geq a)$, with exponential bounds at every $s$",
    hypotheses=(
        r"background tokens independent of each other and of $o$; $m(-1)>0$; no ties; $0<\tau\leq 1$",
        "an expert whose candidates' affinities sum to at most 0 keeps none",
    ),
    source="new; a reading of the adaptive capacity of ETR (arXiv 2406.00023), which gives no rule",
    tag="N12",
    kind="asymptotic",
    expected=Verdict.PROVED,
    truth=Side(1),
    mutant=Side(0, 0.5, 0.0),
    mutation="a fraction τ of the candidates' number instead of their affinity; half the variance, and P(S <= 0) left out",
    lemmas=("Bernstein's inequality",),
)


@claim.derivation("the criterion of one token, and the slope of m")
def criterion_one_token_slope_m(side: Side) -> Outcome:
    above, below, a, tau = sp.symbols("B W a tau", real=True)
    h, integral = sp.Function("h"), sp.Function("I")  # I(a) = the integral of h over [a, 1], I' = -h
    own = a**side.power
    criterion = (above - tau * (above + below + own), (1 - tau) * above - tau * below - tau * a)
    mass = a**side.power * h(a) + side.power * integral(a)
    slope = sp.diff(mass, a).subs(sp.Derivative(integral(a), a), -h(a))
    point = {above: sp.Integer(3), below: sp.Rational(1, 2), a: sp.Rational(1, 3), tau: sp.Rational(4, 5)}
    return every(
        [
            identity(*criterion, points=[point], name="B - τS - [(1-τ)B - τW - τa]"),
            identity(slope.subs(h(a), 1 - a**2).doit(), -2 * a**2, name="m' - a h' at h = 1 - a²"),
            identity(slope, a * sp.Derivative(h(a), a), name="m' - a h' for every h"),
        ]
    )


def moment(order: int, low: float, dim: float, experts: int) -> float:
    """E[δ^order; candidate, δ >= low] from the joint density of affinity and choice, not from h; dim = inf: normal scores."""
    high = 12.0 if np.isinf(dim) else min(1.0, 9 / np.sqrt(dim))
    node, weight = special.roots_legendre(400)
    start = max(low, -high)
    x = start + (high - start) * (1 + node) / 2
    if np.isinf(dim):
        density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * special.ndtr(x) ** (experts - 1)
    else:
        density = signals.affinity_density(x, 0.0, int(dim)) * candidates.hit_given_affinity(x, int(dim), experts)
    return float((high - start) / 2 * (weight * x**order * density).sum())


@claim.reference("the package's cuts by another integral; f = .339996, .645395, .779761 for Gaussian scores, n = 8")
def package_s_cuts_another_integral(side: Side) -> Outcome:
    worst = 0.0
    for dim, experts in ((np.inf, 8), (64, 8), (16, 3)):
        whole, number = moment(side.power, -np.inf, dim, experts), moment(0, -np.inf, dim, experts)
        for share in (0.5, 0.8, 0.9):
            cut = float(affinity_mass.threshold(share, dim, experts))
            fraction = float(affinity_mass.kept_fraction(share, dim, experts))
            reached = moment(side.power, cut, dim, experts) / whole
            kept = moment(0, cut, dim, experts) / number
            worst = max(worst, abs(reached - share), abs(kept - fraction))
            if worst > 1e-9:
                return fails(
                    f"d={dim}, n={experts}, τ={share}: the part above the cut is {reached:.10f}, f {kept:.10f}"
                )
            if np.isinf(dim) and abs(kept - {0.5: 0.339996, 0.8: 0.645395, 0.9: 0.779761}[share]) > 5e-7:
                return fails(f"τ={share}: f = {kept:.7f}")
    return holds(f"9 cuts agree to {worst:.0e}")


@claim.certificate("balls: f to the printed digits for Gaussian scores, n = 8: .339996, .645395, .779761")
def fractions_enclosed(side: Side) -> Outcome:
    def best(x: flint.acb, _: bool, power: int = side.power) -> flint.acb:
        """Density of the best of 8 scores times its weight in the sum, over 8."""
        return x**power * (-(x**2) / 2).exp() / (2 * flint.acb.pi()).sqrt() * below(x) ** 7

    def below(x: flint.acb) -> flint.acb:
        return (-x / flint.acb(2).sqrt()).erfc() / 2

    whole, lines = flint.acb.integral(best, -20, 20).real, []
    for share, printed in (("0.5", 0.339996), ("0.8", 0.645395), ("0.9", 0.779761)):
        for end in (-1, 1):
            # f = 1 - Φ(u)^8 just inside the printed digit's half unit; the part of the sum above u against τ
            cut = float(special.ndtri((1 - printed - end * 4.99e-7) ** 0.125))
            fraction = (1 - below(flint.acb(cut)) ** 8).real
            part = flint.acb.integral(best, cut, 20).real / whole
            inside = abs(fraction - flint.arb(str(printed))) < flint.arb("5e-7")
            short = part < flint.arb(share) if end < 0 else part > flint.arb(share)
            if not (inside and short):
                return fails(f"τ={share}: the best {fraction.str(9)} hold {part.str(9)} of the sum")
        lines.append(f"{printed}")
    return holds(
        "f = " + ", ".join(lines) + " within half a unit of the last digit; beyond |x| = 20 less than 1e-80 is left out"
    )


@claim.reference("the criterion on the real router, token by token: 36000 tokens, negative affinities among them")
def criterion_real_router_token_token(side: Side) -> Outcome:
    rng = np.random.default_rng(51)
    empty = 0
    for dim, experts, top in ((6, 3, 1), (8, 4, 2), (4, 2, 1)):
        scores = samplers.isotropic_affinity(rng, 400, 10, dim, experts)
        candidate = np.argsort(np.argsort(-scores, axis=-1), axis=-1) < top
        weight = candidate * scores**side.power
        better = scores[:, None, :, :] > scores[:, :, None, :]  # [sample, token, other, expert]
        above = (better * weight[:, None]).sum(axis=2)
        total = weight.sum(axis=1)[:, None, :]
        for share in (0.3, 0.8, 1.0):
            routed = adaptive.route(scores, share, top=top)
            kept = routed.contains(np.arange(10)[None, :, None], np.arange(experts)[None, None, :])
            criterion = candidate & (total > 0) & (above < share * total)
            if np.any(kept != criterion):
                return fails(
                    f"d={dim}, n={experts}, l={top}, τ={share}: {int((kept != criterion).sum())} tokens differ"
                )
        empty += int(np.count_nonzero((total <= 0) & np.expand_dims(candidate.any(axis=1), 1)))
    return (
        holds(f"all agree; {empty} experts had candidates and a total of at most 0")
        if empty
        else fails("no such expert")
    )


@functools.lru_cache
def grids(dim: int, experts: int, signal: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Affinities, and the weights there of background candidates and of discriminative tokens that hit."""
    edges, step = np.linspace(-1, 1, 8001, retstep=True)
    a = edges[:-1] + step / 2
    chosen = candidates.hit_given_affinity(a, dim, experts) * step
    return a, chosen * signals.affinity_density(a, 0.0, dim), chosen * signals.affinity_density(a, signal, dim)


def strays(x: np.ndarray, variance: np.ndarray, width: np.ndarray, terms: int) -> np.ndarray:
    """Bernstein: P(a sum of so many terms lies x >= 0 beyond its mean on one side); 1 for x < 0."""
    x = np.maximum(x, 0.0)
    return np.exp(-(x**2) / (2 * terms * variance + 2 * x * width / 3))


def deviations(side: Side, tokens: int, dim: int, experts: int, mass: float) -> tuple[np.ndarray, np.ndarray, float]:
    """At each affinity bounds of P(Σ Y >= τa) and P(Σ Y < τa), 1 where they say nothing, and one of P(S <= 0)."""
    a, density, _ = grids(dim, experts, 1.0)

    def above(order: int) -> np.ndarray:
        """Moments of candidates above each node, by the midpoint rule."""
        part = a**order * density
        return np.cumsum(part[::-1])[::-1] - part / 2

    first, second, m = side.power, 2 * side.power, tokens - 1
    whole, square = float((a**first * density).sum()), float((a**second * density).sum())
    mean = above(first) - mass * whole  # E Y, and Var Y
    variance = side.variance * ((1 - 2 * mass) * above(second) + mass**2 * square - mean**2)
    gap, width = (
        mass * a**first - m * mean,
        1 + np.abs(mean),
    )  # gap > 0: kept unless the sum strays above its mean by it
    spread = side.variance * (square - whole**2)
    empty = strays(np.asarray(m * whole - 1.0), np.asarray(spread), np.asarray(1 + whole), m)
    return strays(gap, variance, width, m), strays(-gap, variance, width, m), side.empty * float(empty)


def bracket(side: Side, tokens: int, dim: int, experts: int, signal: float, mass: float) -> tuple[float, float]:
    """(lower, upper) bound of the success rate of planted tokens at `tokens` tokens."""
    hit = grids(dim, experts, signal)[2]
    over, under, empty = deviations(side, tokens, dim, experts, mass)
    return float((hit * np.maximum(1 - over - empty, 0.0)).sum()), float((hit * under).sum())


def chance_below(values: np.ndarray, chances: np.ndarray, terms: int, level: float) -> float:
    """P(a sum of independent terms < level), by a Fourier transform around its mean.

    The window has 2^17 cells over 24 deviations (or the whole range); a term is split between two cells so that its mean stays.
    """
    mean, cells = float(values @ chances), 2**17
    spread = float(np.sqrt(terms * ((values - mean) ** 2 @ chances)))
    step = max(24 * spread, 4.0) / cells
    place = (values - mean) / step
    down = np.floor(place).astype(int)
    one = np.bincount(down % cells, weights=chances * (down + 1 - place), minlength=cells)
    one += np.bincount((down + 1) % cells, weights=chances * (place - down), minlength=cells)
    whole = np.fft.irfft(np.fft.rfft(one) ** terms, cells)
    index = np.arange(cells)
    signed = np.where(index < cells // 2, index, index - cells) * step
    return float(np.clip(whole[signed < level - terms * mean - step / 2].sum(), 0.0, 1.0))


@claim.reference(
    "both bounds and that of P(S <= 0) against the law of the sums by Fourier transform, 20 to 10^6 tokens"
)
def bounds_hold_at_every_affinity(side: Side) -> Outcome:
    least, slip = 0.0, 1e-10  # what a transform leaves
    for tokens, dim, experts, mass in ((21, 16, 4, 0.5), (10**4, 16, 4, 0.8), (10**6, 16, 4, 0.5)):
        a, density, _ = grids(dim, experts, 1.0)
        over, under, empty = deviations(side, tokens, dim, experts, mass)
        chances = np.append(density, 1 - density.sum())
        # nodes at which either bound is between 1e-7 and 1/2
        telling = [np.flatnonzero((bound > 1e-7) & (bound < 0.5) & (a > 0)) for bound in (over, under)]
        for node in [i for nodes in telling for i in nodes[:: max(1, len(nodes) // 8)]]:
            values = np.append(a * ((a > a[node]) - mass), 0.0)
            below = chance_below(values, chances, tokens - 1, mass * a[node])
            for found, bound in ((1 - below, over[node]), (below, under[node])):
                if found > bound + slip:
                    return fails(f"s={tokens}, d={dim}, n={experts}, a={a[node]:.4f}: {found:.3g}, bound {bound:.3g}")
                least = max(least, found / bound if bound < 0.5 and found > 1e-8 else 0.0)
        none = chance_below(np.append(a, 0.0), chances, tokens - 1, 0.0)
        if none > empty + slip:
            return fails(f"s={tokens}, d={dim}, n={experts}: P(S < 0) is {none:.3g}, bound {empty:.3g}")
    return holds(f"no violation; up to {least:.2f} of a bound below 1/2")


@claim.reference("the bounds are Bernstein's with mean and variance of one term's own law, to 1e-9")
def variance_of_one_term(side: Side) -> Outcome:
    worst = 0.0
    for tokens, dim, experts, mass in ((21, 16, 4, 0.5), (10**3, 64, 8, 0.8)):
        a, density, _ = grids(dim, experts, 1.0)
        found = deviations(side, tokens, dim, experts, mass)
        for node in range(4000, 8000, 250):
            # a term is a(1 - τ) above the node, -τa below; the node's own cell lies half above it
            half = np.where(np.arange(len(a)) == node, 0.5, 1.0) * density
            values = np.concatenate([a[node:] * (1 - mass), -mass * a[: node + 1], [0.0]])
            chances = np.concatenate([half[node:], half[: node + 1], [1 - density.sum()]])
            mean, m = float(values @ chances), tokens - 1
            variance = float((values - mean) ** 2 @ chances)
            for bound, sign in zip(found[:2], (1, -1)):
                beyond = max(sign * (mass * a[node] - m * mean), 0.0)
                direct = math.exp(-(beyond**2) / (2 * m * variance + 2 * beyond * (1 + abs(mean)) / 3))
                worst = max(worst, abs(float(bound[node]) / direct - 1) if direct > 1e-200 else 0.0)
        own = float(a @ density), float(a**2 @ density)
        short = max((tokens - 1) * own[0] - 1, 0.0)
        spread = 2 * (tokens - 1) * (own[1] - own[0] ** 2) + 2 * short * (1 + own[0]) / 3
        worst = max(worst, abs(found[2] / math.exp(-(short**2) / spread) - 1))
    if worst > 1e-9:
        return fails(f"a bound differs from that with the variance of one term by {worst:.2g} relatively")
    return holds(f"both bounds and P(S <= 0) agree to {worst:.0e}")


@claim.reference("the package's limit of the success rate lies inside the bounds, which close as s grows")
def package_s_limit_success_rate(side: Side) -> Outcome:
    lines = []
    for dim, experts, signal, mass in ((64, 8, 2.5, 0.5), (16, 4, 2.0, 0.8)):
        limit = float(affinity_mass.success(mass, signal, dim, experts))
        widths = []
        for tokens in (10**3, 10**4, 10**5):
            lower, upper = bracket(side, tokens, dim, experts, signal, mass)
            if not lower <= limit <= upper:
                return fails(
                    f"d={dim}, n={experts}, τ={mass}, s={tokens}: {limit:.6f} not in [{lower:.6f}, {upper:.6f}]"
                )
            widths.append(upper - lower)
        if not widths[2] < widths[1] < widths[0] or widths[2] > 0.01:
            return fails(f"the bounds are {widths} apart")
        lines.append(
            f"{limit:.6f}, bounds {widths[0]:.3f}, {widths[1]:.4f}, {widths[2]:.4f} apart at s = 10^3, 10^4, 10^5"
        )
    return holds("; ".join(lines))


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, dim: int, experts: int, signal: float, mass: float
) -> dict[str, int]:
    done, step = 0, max(1, 2_000_000 // (tokens * experts))
    for start in range(0, trials, step):
        drawn = samplers.planted_affinity(rng, min(step, trials - start), tokens, dim, experts, signal)
        done += int(np.count_nonzero(adaptive.route(drawn.values, mass).contains(drawn.position, drawn.expert)))
    return {"success": done, "failure": trials - done}


def law(side: Side, *, tokens: int, dim: int, experts: int, signal: float, mass: float) -> dict[str, float]:
    """Success and failure are each at least what the bounds leave around the limit."""
    lower, upper = bracket(side, tokens, dim, experts, signal, mass)
    return {"success": lower, "failure": 1 - upper}


claim.simulate(
    sample,
    cases=[{"tokens": 400, "dim": 8, "experts": 2, "signal": 1.5, "mass": 0.5}],
    law=law,
    relation="at_least",
    trials=6_000,
    full=100_000,
)
