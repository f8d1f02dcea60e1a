"""Two gates at any angle α, learned or not: load, hit rate and candidate tail in closed form; orthogonal is α = π/2.

Gate 1 wins where <w_1 - w_2, x> > 0, of mean <w_1 - w_2, μ> and standard deviation |w_1 - w_2|: so its load is a Φ, and for the
planted token θ w_1 (unit gates: <w_1 - w_2, w_1> = 1 - cos α, |w_1 - w_2| = 2 sin(α/2)) the hit rate is Φ(θ sin(α/2)).
Ties have probability 0 unless the gates coincide, where every token ties.

For an isotropic token in R^d the projection on the gates' plane has a uniform angle ψ and a radius z of survival function
P(z > r) = (1-r²)^{(d-2)/2}. Gate 1 wins with affinity a >= 0 where z cos ψ >= a and ψ <= α/2 on the side of w_2, ψ measured from
w_1. Hence, by the plane's sectors,

    h(a) = q(a)/2 + (1/2π) ∫_0^{α/2} P(z > a/cos ψ) dψ,

and the same integral up to π/2 is q(a)/2. So h rises in the angle, from q/2 at α = 0 to q where cos α/2 <= a, and the load
stays 1/2: gates that close up halve the candidates of high affinity.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import special

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.homogenization import cells
from resonance_theory.rules import resonance
from resonance_theory.tokens import candidates, caps

alpha, psi, r, z, d, theta = sp.symbols("alpha psi r z d theta", positive=True)


def side(seen) -> SimpleNamespace:
    """`seen`: the angle that enters the formulas, for gates at the angle α."""
    return SimpleNamespace(seen=seen)


def tail(angle: float, a: float, dim: int) -> float:
    node, mass = np.polynomial.legendre.leggauss(200)
    top = min(angle / 2, math.acos(a))
    turn = math.pi / 4 * (node + 1)  # ψ = top sin(turn): the root at the end is smoothed away
    x = top * np.sin(turn)
    inside = np.maximum(1 - (a / np.cos(x)) ** 2, 0.0) ** ((dim - 2) / 2)
    return float(caps.cap(a, dim)) / 2 + float(mass @ (inside * np.cos(turn))) * top / 8


claim = Claim(
    title="Two gates at any angle: load, hit rate and candidate tail in closed form",
    statement=r"$\pi_1=\Phi(\frac{\langle w_1-w_2,\mu\rangle}{|w_1-w_2|})$; $p=\Phi(\frac{\theta}{\sigma}\sin\frac{\alpha}{2})$; "
    r"$h(a)=\frac{q(a)}{2}+\frac{1}{2\pi}\int_0^{\alpha/2}(1-\frac{a^2}{\cos^2\psi})_+^{(d-2)/2}d\psi$ for $a\geq 0$, "
    r"which rises in $\alpha$ from $\frac q2$ until it is $q$ where $\cos\frac{\alpha}{2}\leq a$",
    hypotheses=(
        r"Top-1; gates at the angle $0<\alpha\leq\pi$; token: $N(\mu,I_d)$ for $\pi_1$, $\theta w_1+\sigma z$ for $p$, "
        r"isotropic for $h$",
        r"unit gates for $p$ and $h$, $d\geq 2$",
    ),
    source="new for learned gates",
    tag="G2, G4",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda angle: angle),
    mutant=side(lambda angle: angle * 0 + (sp.pi / 2 if isinstance(angle, sp.Basic) else math.pi / 2)),
    mutation="the gates are taken as orthogonal",
)


@claim.derivation("margin of a planted token; law of the radius in the plane; sectors; orthogonal gates in the plane")
def margin_planted_token_law_radius(side: SimpleNamespace) -> Outcome:
    seen = side.seen(alpha)
    # w_1 = (1, 0), w_2 = (cos α, sin α)
    margin, length = 1 - sp.cos(alpha), sp.sqrt((1 - sp.cos(alpha)) ** 2 + sp.sin(alpha) ** 2)
    hit = ((margin / length) ** 2, sp.sin(seen / 2) ** 2)
    # two coordinates of a uniform direction have density (d-2)/(2π) (1-z²)^{(d-4)/2}: over the circle of radius z
    density = (d - 2) * z * (1 - z**2) ** ((d - 4) / 2)
    survival = (sp.diff((1 - z**2) ** ((d - 2) / 2), z), -(density))
    # gate 1 wins at the angle ψ from it towards w_2: <w_1,x> >= <w_2,x> is cos ψ >= cos(α - ψ)
    wall = seen / 2
    # d = 2: arc of length arccos a on the far side, min(arccos a, α/2) on the other; here a < cos(α/2)
    a = sp.symbols("a", positive=True)
    arc = (sp.acos(a) + seen / 2) / (2 * sp.pi)
    points = [{alpha: sp.Rational(1, 2)}, {alpha: 2}]
    return every(
        [
            identity(*hit, points=points, name="(margin/length)² - sin²(α/2)"),
            identity(*survival, name="survival function of the radius"),
            identity(sp.cos(wall), sp.cos(alpha - wall), points=points, name="affinities at the wall"),
            identity(
                arc,
                sp.acos(a) / (2 * sp.pi) + sp.integrate(1, (psi, 0, alpha / 2)) / (2 * sp.pi),
                points=[{alpha: 1, a: sp.Rational(1, 2)}],
                name="the plane: arcs - formula",
            ),
        ]
    )


def pair(angle: float, a: float, dim: int) -> float:
    """P(both affinities >= a), by the token's angle β to the bisector: |<x,v>| <= (cos β cos α/2 - a)/sin α/2 across it."""
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    if a >= c:
        return 0.0
    widest = math.acos(a / c)
    certain = max(math.acos(a) - angle / 2, 0.0)  # nearer to the bisector both are reached whatever the direction
    node, mass = np.polynomial.legendre.leggauss(200)
    total = 0.0
    for low, high in ((0.0, certain), (certain, widest)):
        beta = low + (high - low) * (node + 1) / 2
        across = 1 - 2 * caps.cap(np.clip((np.cos(beta) * c - a) / (s * np.sin(beta)), 0, 1), dim - 1)
        total += (high - low) / 2 * float(mass @ (np.sin(beta) ** (dim - 2) * across))
    return total * special.gamma(dim / 2) / special.gamma((dim - 1) / 2) / math.sqrt(math.pi)


@claim.reference("G4 at α = π/2; P(both reach a) by another integral; loads by the cells' angles; order in α")
def g4_p_reach_another_integral(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    for dim in (3, 16, 64):
        for a in (0.05, 0.2, 0.4):
            right = float(candidates.candidate_tail(a, dim, 2))
            worst = max(worst, abs(tail(math.pi / 2, a, dim) - right))
            q, rates = float(caps.cap(a, dim)), []
            for angle in (0.4, 1.2, 2.4):
                mine = tail(side.seen(angle), a, dim)
                rates.append(mine)
                both = pair(angle, a, dim)
                if abs(mine - (q - both / 2)) > 1e-6:
                    return fails(f"d={dim}, a={a}, α={angle}: h = {mine:.8f}, q - P(both)/2 = {q - both / 2:.8f}")
            if not (q / 2 < rates[0] <= rates[1] <= rates[2] <= q * (1 + 1e-14)):
                return fails(f"d={dim}, a={a}: h falls with the angle")
    if worst > 1e-12:
        return fails(f"orthogonal gates differ from G4 by {worst:.0e}")
    parts = cells.cells(np.array([[1.0, 0.0], [math.cos(0.7), math.sin(0.7)]]))
    if np.abs(parts.share - 0.5).max() > 1e-14:
        return fails(f"loads {parts.share} of isotropic tokens")
    return holds(f"G4 to {worst:.0e}; 27 tails agree with q - P(both)/2; h rises with the angle")


def _gates(angle: float, dim: int) -> np.ndarray:
    gates = np.zeros((2, dim))
    gates[0, 0], gates[1, :2] = 1.0, (math.cos(angle), math.sin(angle))
    return gates


def sample(
    rng: np.random.Generator, trials: int, *, angle: float, dim: int, signal: float, bound: float
) -> dict[str, int]:
    gates = _gates(angle, dim)
    noise = rng.standard_normal((trials, 1, dim))
    background = affinity(noise, gates=gates)[:, 0]
    planted = affinity(rng.standard_normal((trials, 1, dim)) + signal * gates[0], gates=gates)
    routed = resonance.route(planted, 1)
    mine = background[:, 0] > background[:, 1]
    return {
        "candidates": int(np.count_nonzero(mine & (background[:, 0] >= bound))),
        "hit": int(np.count_nonzero(routed.contains(np.zeros(trials, int), np.zeros(trials, int)))),
    }


def law(side: SimpleNamespace, *, angle: float, dim: int, signal: float, bound: float) -> dict[str, float]:
    seen = float(side.seen(angle))
    return {"candidates": tail(seen, bound, dim), "hit": float(special.ndtr(signal * math.sin(seen / 2)))}


claim.simulate(
    sample,
    cases=[
        {"angle": 0.5, "dim": 3, "signal": 1.0, "bound": 0.3},
        {"angle": 2.4, "dim": 6, "signal": 1.5, "bound": 0.2},
    ],
    law=law,
    trials=60_000,
)
