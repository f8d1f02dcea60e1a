"""Learned gates at any angles: what closing up costs, one-sided and for any number of experts.

No closed form covers n gates with arbitrary inner products c_ij; a comparison does. The cosines of an isotropic token are
W u, u a uniform direction: elliptically contoured with the correlations c_ij. So by Slepian's inequality in the elliptical
form of Das Gupta et al. (1972), P(max_j δ_j < a) rises in every c_ij, and with it the mean candidate tail
(1/n) Σ_i h_i(a) = P(max_j δ_j >= a)/n falls (Top-1). Orthogonal gates (G4) therefore have the most candidates of affinity a or
more among gates with c_ij >= 0, and the fewest among gates with c_ij <= 0; in between lie q(a)/n (all gates equal) and q(a).

A planted token θ w_i + z hits if z_ij = <w_i - w_j, z>/|w_i - w_j| > -θ sin(α_ij/2) for all j ≠ i. Each of these has the
probability Φ(θ sin(α_ij/2)) (two_gates), so p_i is at most the least of them; and by Slepian at least their product where
<w_i - w_j, w_i - w_k> >= 0 for all j, k ≠ i: where no triangle of gates is obtuse at w_i, as for gates
at one common angle. If c_ij <= c throughout, sin(α_ij/2) >= sqrt((1-c)/2).

Gates at one common inner product c are exact: the margins <w_i - w_j, x> have 1-c times the means and the covariances of
orthogonal gates, so the hit rate is theirs at θ sqrt(1-c), for any Top-ℓ; a simplex (c = -1/(n-1)) acts like θ sqrt(n/(n-1)).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import sympy as sp
from scipy import special

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import candidates, signals

c, d, a, t = sp.symbols("c d a t", positive=True)


@dataclass(frozen=True)
class Side:
    """`sign` of the change of P(max >= a) as two gates close up (-1: it falls); the bounds of p_i times `product`, `least`."""

    sign: int
    product: float = 1.0
    least: float = 1.0


claim = Claim(
    title="Learned gates: closing angles cost candidates; one-sided bounds for any number of experts",
    statement=r"$\frac1n\sum_ih_i(a)=\frac1nP(\max_j\delta_j\geq a)$ falls in every $\langle w_i,w_j\rangle$: at most G4's "
    r"value of orthogonal gates if all are $\geq 0$, at least it if all are $\leq 0$; "
    r"$p_i\leq\min_{j\neq i}\Phi(\frac{\theta}{\sigma}\sin\frac{\alpha_{ij}}{2})$, and "
    r"$p_i\geq\prod_{j\neq i}\Phi(\frac{\theta}{\sigma}\sin\frac{\alpha_{ij}}{2})$ if $\langle w_i-w_j,w_i-w_k\rangle\geq 0$; "
    r"if all $\langle w_i,w_j\rangle=c$, $p$ is that of orthogonal gates at $\theta\sqrt{1-c}$",
    hypotheses=(
        r"unit gates, $\alpha_{ij}$ the angle of $w_i$ and $w_j$; Top-1",
        r"$h$: isotropic tokens, $n\leq d$; $p$: tokens $\theta w_i+\sigma z$",
    ),
    source="new for learned gates",
    tag="G2, G4",
    kind="bound",
    expected=Verdict.PROVED,
    truth=Side(-1),
    mutant=Side(1, 1.001, 0.999),
    mutation="gates that close up gain candidates and keep the hit rate of orthogonal ones; bounds times 1.001 and .999",
    lemmas=(
        "Slepian (1962); Das Gupta, Eaton, Olkin, Perlman, Savage and Sobel (1972), for elliptically contoured laws",
    ),
)


@claim.derivation("two gates: the slope in the inner product has a sign; margins of equally inclined gates")
def two_gates_slope_inner_product(side: Side) -> Outcome:
    # two_gates: P(max >= a) = 2h has the slope (1/2π) (1 - a²/cos²(α/2))_+^{(d-2)/2} in α
    alpha, inside = sp.symbols("alpha inside", positive=True)
    slope = inside ** ((d - 2) / 2) / (2 * sp.pi) / sp.diff(sp.cos(alpha), alpha)
    claimed = side.sign * inside ** ((d - 2) / 2) / (2 * sp.pi * sp.sin(alpha))
    x, y, z = sp.symbols("c_ij c_ik c_jk", real=True)
    # <w_i - w_j, w_i - w_k> of unit gates, from its bilinear terms
    inner = 1 - x - y + z
    theta = sp.symbols("theta", positive=True)
    # squared mean over variance of a margin: θ²(1-c)²/(2-2c), orthogonal gates at θ': θ'²/2; correlations (1-c)/(2-2c) = 1/2
    seen = theta * (sp.sqrt(1 - c) if side.sign < 0 else 1)
    return every(
        [
            identity(
                slope,
                claimed,
                points=[{alpha: 1, inside: sp.Rational(1, 2), d: 5}],
                name="dP(max >= a)/dc - sign (1 - a²/cos²(α/2))^{(d-2)/2}/(2π sin α)",
            ),
            identity(inner.subs({x: c, y: c, z: c}), 1 - c, name="inner product of margins - (1 - c)"),
            identity(
                (theta * (1 - c)) ** 2 / inner.subs({x: c, y: c, z: 1}),
                seen**2 / 2,
                points=[{theta: 2, c: sp.Rational(1, 3)}],
                name="(mean/deviation)² of a margin - that of orthogonal gates",
            ),
            identity(sp.sin(alpha / 2) ** 2, (1 - sp.cos(alpha)) / 2, name="sin²(α/2) - (1-c)/2"),
        ]
    )


def equal_gates(n: int, dim: int, inner: float) -> np.ndarray:
    """n unit gates with one common inner product, by the root of their Gram matrix."""
    value, vector = np.linalg.eigh((1 - inner) * np.eye(n) + inner)
    root = (vector * np.sqrt(np.maximum(value, 0.0))) @ vector.T
    return np.pad(root, ((0, 0), (0, dim - n)))


def hit_bounds(gates: np.ndarray, signal: float, i: int = 0) -> tuple[float, float]:
    """Product and minimum of Φ(θ sin(α_ij/2)) over j, sin(α/2) = |w_i - w_j|/2."""
    rates = special.ndtr(signal * np.linalg.norm(gates[i] - np.delete(gates, i, axis=0), axis=1) / 2)
    return float(rates.prod()), float(rates.min())


@claim.reference("equally inclined gates by quadrature, c from 0 to 0.9: their order in c, hit rates in bounds")
def equally_inclined_gates_quadrature_c(side: Side) -> Outcome:
    node, mass = np.polynomial.hermite_e.hermegauss(80)
    mass = mass / mass.sum()
    rates = []
    for inner in (0.0, 0.3, 0.6, 0.9):
        # <w_j,x> = sqrt(c) g_0 + sqrt(1-c) g_j: the hit rate depends on θ sqrt(1-c) only, exactly that of orthogonal gates
        exact = float(signals.hit_rate(2.0 * math.sqrt(1 - inner), 8))
        low, high = hit_bounds(equal_gates(8, 8, inner), 2.0)
        if not low <= exact <= high:
            return fails(f"c={inner}: hit rate {exact:.6f} outside [{low:.6f}, {high:.6f}]")
        # P(max_j <w_j,x> >= level): the chance that an expert's projection reaches a level, of the same sign as for cosines
        level, root = 1.5, math.sqrt(1 - inner)
        rates.append(1 - float(mass @ special.ndtr((level - math.sqrt(inner) * node) / root) ** 8))
    orders = [side.sign * (y - x) for x, y in itertools.pairwise(rates)]
    if min(orders) <= 0:
        return fails(f"P(max >= 1.5) is {', '.join(f'{r:.4f}' for r in rates)} at c = 0, .3, .6, .9")
    text = ", ".join(f"{rate:.4f}" for rate in rates)
    return holds(f"P(max >= 1.5) falls: {text}; four hit rates lie between their bounds")


def margins(c_12: float, c_13: float, c_23: float, signal: float) -> tuple[np.ndarray, float]:
    """θ sin(α_1j/2) for j = 2, 3 and the correlation of the two margins."""
    widths = np.sqrt([2 - 2 * c_12, 2 - 2 * c_13])
    return signal * widths / 2, (1 - c_12 - c_13 + c_23) / float(widths.prod())


def both(reach: np.ndarray, correlation: float) -> float:
    """P(z_1 > -reach_1, z_2 > -reach_2), an integral over the first."""
    node, mass = special.roots_legendre(300)
    low, high = -reach[0], 9.0
    x = low + (high - low) * (1 + node) / 2
    inside = special.ndtr((reach[1] + correlation * x) / math.sqrt(1 - correlation**2))
    return float((high - low) / 2 * (mass * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)) @ inside)


@claim.reference(
    "two gates, where both bounds are equal; 300 triples at any angles, where an obtuse one breaks the product"
)
def any_two_and_three_gates(side: Side) -> Outcome:
    rng, obtuse = np.random.default_rng(57), 0
    for inner in (-0.9, 0.0, 0.5, 0.95):  # one margin of deviation sqrt(2-2c) and mean θ(1-c)
        exact = float(special.ndtr(2.0 * (1 - inner) / math.sqrt(2 - 2 * inner)))
        value = float(special.ndtr(margins(inner, inner, inner, 2.0)[0][0]))
        low, high = side.product * value, side.least * value
        if not low - 1e-14 <= exact <= high + 1e-14:
            return fails(f"two gates, c={inner}: {exact:.6f}, bounds {low:.6f}, {high:.6f}")
    for _ in range(300):
        gates = rng.standard_normal((3, 3))
        gates /= np.linalg.norm(gates, axis=1, keepdims=True)
        inners = gates[0] @ gates[1], gates[0] @ gates[2], gates[1] @ gates[2]
        reach, correlation = margins(*inners, float(rng.uniform(0.2, 4)))
        exact, rates = both(reach, correlation), special.ndtr(reach)
        low, high = side.product * rates.prod(), side.least * rates.min()
        if correlation < 0:
            obtuse += exact < low - 1e-9
            low = 0.0
        if not low - 1e-9 <= exact <= high + 1e-9:
            return fails(f"inner products {np.round(inners, 3).tolist()}: {exact:.6f}, bounds {low:.6f}, {high:.6f}")
    text = f"bounds hold; the product is too large for {obtuse} triples that are obtuse at w_1"
    return holds(text) if obtuse else fails(text)


def sample(
    rng: np.random.Generator, trials: int, *, inner: float, experts: int, dim: int, signal: float, bound: float
) -> dict[str, int]:
    """Isotropic tokens with some affinity of `bound` or more, and planted tokens of expert 0 that miss."""
    gates = equal_gates(experts, dim, inner)
    best = affinity(rng.standard_normal((trials, dim)), gates=gates).max(axis=1)
    planted = affinity(rng.standard_normal((trials, dim)) + signal * gates[0], gates=gates)
    return {
        "candidates": int(np.count_nonzero(best >= bound)),
        "misses": int(np.count_nonzero(planted.argmax(axis=1) != 0)),
    }


def law(side: Side, *, inner: float, experts: int, dim: int, signal: float, bound: float) -> dict[str, float]:
    """What the side says is the most; 1 where it says nothing."""
    orthogonal = experts * float(candidates.candidate_tail(bound, dim, experts))
    low, _ = hit_bounds(equal_gates(experts, dim, inner), signal)
    return {"candidates": orthogonal if side.sign * inner < 0 else 1.0, "misses": 1 - low}


claim.simulate(
    sample,
    cases=[
        {"inner": 0.5, "experts": 8, "dim": 16, "signal": 1.5, "bound": 0.3},
        {"inner": 0.2, "experts": 4, "dim": 32, "signal": 2.0, "bound": 0.2},
        {"inner": -0.3, "experts": 4, "dim": 4, "signal": 1.5, "bound": 0.6},  # only the mutant bounds these from above
    ],
    law=law,
    relation="at_most",
)


def sample_hits(
    rng: np.random.Generator, trials: int, *, inner: float, experts: int, signal: float, top: int
) -> dict[str, int]:
    gates = equal_gates(experts, experts, inner)
    planted = affinity(rng.standard_normal((trials, experts)) + signal * gates[0], gates=gates)
    return {"hits": int(np.count_nonzero((planted > planted[:, :1]).sum(axis=1) < top))}


def law_hits(side: Side, *, inner: float, experts: int, signal: float, top: int) -> dict[str, float]:
    seen = signal * math.sqrt(1 - inner) if side.sign < 0 else signal
    return {"hits": float(signals.hit_rate(seen, experts, top=top))}


claim.simulate(
    sample_hits,
    cases=[
        {"inner": 0.5, "experts": 6, "signal": 2.0, "top": 1},
        {"inner": 0.5, "experts": 6, "signal": 1.5, "top": 2},
        {"inner": -0.25, "experts": 5, "signal": 1.5, "top": 1},
    ],
    law=law_hits,
    name="Monte Carlo, gates at one common angle",
)
