"""G4 beyond isotropy: the candidate tail of a token with any mean, as a two-dimensional integral.

Let x ~ N(μ, I_d) meet n orthonormal gates: its projections g_j ~ N(m_j, 1) are independent, and so is what lies off the gates,
of squared length χ'²_{d-n}(κ²), κ = the mean's length there. Let T be the length of x across gate i. The affinity with i is
tanh y where g_i = T sinh y, and i is a candidate if fewer than ℓ of the other g_j exceed u = g_i. As g_i is independent of the
rest, P(g_i >= T sinh y | T, u) gives the density in y

    f(y) = cosh y ∫ t φ(t sinh y - m_i) f_T(t; fewer than ℓ of the g_j, j ≠ i, exceed t sinh y) dt,

and h_i(a) = ∫_{artanh a} f. f_T is the inverse Laplace transform in p of t² of a product: with s² = 1 + 2p,

    E[exp(-p g²); g < u] = exp(-m²(1 - 1/s²)/2) Φ(su - m/s)/s   per gate,   s^{-(d-n)} exp(-κ²(1 - 1/s²)/2)   off the gates.

Without a mean this is G4's. The candidates must be counted together with T: a losing projection is part of the token's length.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import special, stats

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens.gaussian import Gaussian

p, t = sp.symbols("p t", positive=True)
u, m, y = sp.symbols("u m y", real=True)
s = sp.sqrt(1 + 2 * p)


def normal(z: sp.Expr) -> sp.Expr:
    return sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)


def below(z: sp.Expr) -> sp.Expr:
    return (1 + sp.erf(z / sp.sqrt(2))) / 2


WHOLE = sp.exp(-(m**2) * (1 - 1 / s**2) / 2) / s  # E exp(-p g²)


def panel(low: np.ndarray, high: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    x, w = special.roots_legendre(nodes)
    half = np.maximum(high - low, 0.0)[..., None] / 2
    return low[..., None] + half * (x + 1), half * w


def joint(a: float, gate: tuple[float, ...], off: float, dim: int, top: int) -> float:
    """h of gate 0 of two or three, a > 0: E[P(χ'² <= u²/a² - |g|²); fewer than top above], all projections by quadrature."""
    nodes = {2: 140, 3: 64}[len(gate)]
    near = np.sqrt((1 - a) * (1 + a)) / a  # |others, off|/u at the threshold
    own, w_own = panel(np.array(max(gate[0] - 9.0, 0.0)), np.array(max(gate[0], 0.0) + 9.0), nodes)
    weight = w_own * stats.norm.pdf(own - gate[0])

    def off_span(room: np.ndarray) -> np.ndarray:
        return special.chndtr(np.maximum(room, 0.0), dim - len(gate), off * off)

    room = (own * near) ** 2
    if len(gate) == 2:
        low = np.maximum(-np.sqrt(room), gate[1] - 9.0)
        v, w = panel(low, np.minimum(np.sqrt(room), np.minimum(own, gate[1] + 9.0)), nodes)
        return float(weight @ (w * stats.norm.pdf(v - gate[1]) * off_span(room[:, None] - v * v)).sum(axis=1))

    def others(above: bool) -> np.ndarray:
        """P(both others below u, or both above it, and T small enough) given u, by two quadratures."""

        def nodes_of(mean: float, left: np.ndarray, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            low, high = np.maximum(-np.sqrt(left), mean - 9.0), np.minimum(np.sqrt(left), mean + 9.0)
            z, w = panel(np.maximum(low, cut) if above else low, high if above else np.minimum(high, cut), nodes)
            return z, w * stats.norm.pdf(z - mean)

        v, w = nodes_of(gate[1], room, own)
        left = np.maximum(room[:, None] - v * v, 0.0)
        z, x = nodes_of(gate[2], left, own[:, None])
        return (w * (x * off_span(left[..., None] - z * z)).sum(axis=-1)).sum(axis=1)

    if top == 1:
        return float(weight @ others(False))
    rest = gate[1] ** 2 + gate[2] ** 2 + off * off
    return float(weight @ (special.chndtr(room, dim - 1, rest) - others(True)))


def apart(a: float, gate: tuple[float, ...], off: float, dim: int, top: int) -> float:
    """The same with the other heads independent of the token's length."""
    own, w = panel(np.array(max(gate[0] - 9.0, 0.0)), np.array(max(gate[0], 0.0) + 9.0), 300)
    few = np.ones((1, own.size))  # P(k above) of the gates so far
    for mean in gate[1:]:
        q = special.ndtr(mean - own)
        few = np.pad(few * (1 - q), ((0, 1), (0, 0))) + np.pad(few * q, ((1, 0), (0, 0)))
    rest = float(np.dot(gate[1:], gate[1:])) + off * off
    long = special.chndtr(own**2 * (1 - a * a) / (a * a), dim - 1, rest)
    return float((w * stats.norm.pdf(own - gate[0])) @ (few[:top].sum(axis=0) * long))


claim = Claim(
    title="Exact candidate tail of a token with any mean",
    statement=r"$h_i(a)=\int_{\mathrm{artanh}\,a}^\infty\cosh y\int_0^\infty t\,\varphi(t\sinh y-m_i)f_T(t;u=t\sinh y)\,dt\,dy$, "
    r"where for $\ell=1$ and $s^2=1+2p$ the transform of $f_T$ in $T^2$ is $s^{-(d-1)}e^{-\frac12(\kappa^2+\sum_{j\neq i}m_j^2)"
    r"(1-1/s^2)}\prod_{j\neq i}\Phi(su-\frac{m_j}{s})$",
    hypotheses=(
        r"token $N(\mu,\sigma^2I_d)$, in units of $\sigma$; $n$ orthonormal gates, $m_j=\langle\mu,w_j\rangle$, "
        r"$\kappa$ the norm of $\mu$ off the gates",
        r"$\ell>1$: the product becomes the sum over the sets of fewer than $\ell$ gates above $u$",
    ),
    source="new",
    tag="G4, V1",
    kind="equality",
    expected=Verdict.PROVED,
    truth=SimpleNamespace(below=WHOLE * below(s * u - m / s), tail=joint),
    mutant=SimpleNamespace(below=WHOLE * below(u - m), tail=apart),
    mutation="the other heads are independent of the token's length across gate i",
    lemmas=("Laplace inversion (Bromwich) of a function of bounded variation",),
)


@claim.derivation("transform of a truncated square; density in y; isotropic tokens; the loads")
def transform_truncated_square_density_y(side: SimpleNamespace) -> Outcome:
    points = [{p: 1, u: sp.Rational(1, 2), m: 1}, {p: sp.Rational(1, 3), u: -1, m: 2}]
    slope = sp.diff(side.below, u) / (sp.exp(-p * u**2) * normal(u - m))
    # P(g_i >= t sinh y) falls in y at the rate t cosh y φ(t sinh y - m_i)
    rate = (sp.diff(below(m - t * sp.sinh(y)), y), -(t * sp.cosh(y) * normal(t * sp.sinh(y) - m)))
    # G4 at R²/2 = p'... : without means a gate contributes Φ(su)/s
    central = (side.below.subs(m, 0), below(s * u) / s)
    odds = sp.tanh(y) ** 2, sp.sinh(y) ** 2 / (1 + sp.sinh(y) ** 2)  # of one sign
    return every(
        [
            identity(sp.simplify(sp.expand(sp.powsimp(slope))), 1, points=points, name="slope in u / density - 1"),
            value(side.below.subs({p: 1, m: 1}), {u: -sp.oo}, 0, name="its value at -∞"),
            identity(side.below.subs(p, 0), below(u - m), points=points, name="at p = 0: Φ(u-m)"),
            identity(*rate, points=points, name="density in y"),
            identity(*central, points=points, name="transform of G4"),
            identity(*(odd.rewrite(sp.exp) for odd in odds), name="squared affinity - tanh² y"),
        ]
    )


CASES = (
    ((1.0, 2.0), 3.0, 32, 1),
    ((-1.0, 1.0), 0.0, 40, 1),
    ((3.0, 2.5), 8.0, 64, 1),
    ((1.0, 1.5, 0.5), 3.0, 32, 2),
)


@claim.reference("the package's inversion against quadrature over all projections, two and three gates, top 1 and 2")
def package_s_inversion_quadrature_projections(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    for gate, off, dim, top in CASES:
        token = Gaussian(gate, off, dim)
        for a in (0.1, 0.3) if len(gate) == 2 else (0.3,):
            ours, other = float(token.candidate_tail(a, top=top)), side.tail(a, gate, off, dim, top)
            worst = max(worst, abs(ours - other))
            if worst > 1e-10:
                return fails(f"means {gate}, off {off}, d={dim}, ℓ={top}, a={a}: package {ours:.10g}, {other:.10g}")
    return holds(f"7 tails agree to {worst:.0e}")


def sample(
    rng: np.random.Generator, trials: int, *, gate: list[float], off: float, dim: int, top: int, bound: float
) -> dict[str, int]:
    """GrAP gates, the mean off the gates along a contrast within the first block."""
    n, block = len(gate), dim // len(gate)
    mean = np.repeat(gate, block) / np.sqrt(block)
    mean[:2] += np.array([1.0, -1.0]) * off / np.sqrt(2)
    delta = affinity(rng.standard_normal((trials, dim)) + mean, n)
    rank = (delta > delta[:, :1]).sum(axis=1)
    return {"candidates": int(np.count_nonzero((rank < top) & (delta[:, 0] >= bound)))}


def law(side: SimpleNamespace, *, gate: list[float], off: float, dim: int, top: int, bound: float) -> dict[str, float]:
    return {"candidates": side.tail(bound, tuple(gate), off, dim, top)}


claim.simulate(
    sample,
    cases=[
        {"gate": [1.0, 1.5], "off": 1.0, "dim": 6, "top": 1, "bound": 0.3},
        {"gate": [1.0, 1.5, 0.0], "off": 0.5, "dim": 9, "top": 1, "bound": 0.3},
        {"gate": [0.5, 1.5, 1.0], "off": 2.0, "dim": 9, "top": 2, "bound": 0.2},
    ],
    law=law,
    trials=200_000,
)
