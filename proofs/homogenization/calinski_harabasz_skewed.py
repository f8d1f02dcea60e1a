"""H3 with a common mean: what experts of unequal loads keep, by inner product, and how far apart that is.

Tokens N(μ, I), orthonormal gates, m_j = <μ,w_j>: projections g_j ~ N(m_j, 1), independent. Expert i's candidates have the own
projection U_i of density φ(u-m_i) Π_{j≠i} Φ(u-m_j), of mass π_i; it keeps the fraction f_i above the level t_i. Given U_i = u the
other projections are independent normals below u: with y = φ(u-m_j)/Φ(u-m_j)

    E[g_j | g_j < u] = m_j - y,   E[g_j² | g_j < u] = 1 + m_j² - (u + m_j) y,

and the d-n directions off the gates are untouched. So centroids c_i and mean squares q_i are averages over U_i > t_i, the kept
tokens have the shares s_i = π_i f_i/Σ π_j f_j (not 1/n), and

    between = Σ s_i |c_i - c|²,   c = Σ s_i c_i,   within = d - n + Σ s_i q_i - |c|² - between.

Without a mean this is H3, with f = 1 the Fisher information (scatter_fisher); a mean along Σ w_j or off the gates moves no token
to another expert, shifts every level alike, and changes nothing. A fixed capacity of cs slots is f_i = min(1, c/π_i): it trims
the busy experts first, so that the shares grow alike as c falls, which a common fraction f leaves as they are.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import integrate, optimize, special, stats

from proofs._isotropic import chunks, coin
from proofs.homogenization.scatter_fisher import facet_weights
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens.gaussian import Gaussian

u, m, t = sp.symbols("u m t", real=True)
p = sp.symbols("p", positive=True)


def normal(z: sp.Expr) -> sp.Expr:
    return sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)


def below(z: sp.Expr) -> sp.Expr:
    return (1 + sp.erf(z / sp.sqrt(2))) / 2


def side(share) -> SimpleNamespace:
    """`share(π, n)`: an expert's part in the scatter, of the mass π that it keeps (normalised later)."""
    return SimpleNamespace(share=share)


claim = Claim(
    title="Calinski-Harabasz of resonance under any common mean: experts of unequal loads",
    statement=r"$\mathrm{between}=\sum_is_i|c_i-\sum_js_jc_j|^2$, $s_i\propto\pi_if_i$, where the mean $c_{ij}$ of $g_j$ over "
    r"what expert $i$ keeps is $E[U_i]$ for $j=i$, else $m_j-E[\frac{\varphi(U_i-m_j)}{\Phi(U_i-m_j)}]$, $U_i$ of density "
    r"$\frac{1}{\pi_if_i}\varphi(u-m_i)\prod_{j\neq i}\Phi(u-m_j)$ above the level that leaves $\pi_if_i$; "
    r"only differences of the $m_j$ matter; a fixed capacity $cs$ is $f_i=\min\{1,\frac{c}{\pi_i}\}$",
    hypotheses=(
        r"$x\sim N(\mu,I_d)$, orthonormal gates, $m_j=\langle\mu,w_j\rangle$, Top-1, $2\leq n\leq d$, many tokens",
        r"expert $i$ keeps the fraction $0<f_i\leq 1$ of its candidates with the largest inner products",
    ),
    source="ETR eq. 13 evaluated for resonance under any mean and loads; new",
    tag="H3",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda kept, n: kept),
    mutant=side(lambda kept, n: kept * 0 + 1 / n),
    mutation="all experts weigh the same, as if their loads were equal",
    lemmas=("H3 (calinski_harabasz_resonance)", "H1 (scatter_fisher)"),
)


@claim.derivation("truncated moments about any mean; between by shares; two experts that keep all, in closed form")
def truncated_moments_about_any_mean(side: SimpleNamespace) -> Outcome:
    first = m * below(u - m) - normal(u - m)
    second = (1 + m**2) * below(u - m) - (u + m) * normal(u - m)
    s, c = sp.symbols("s1:4", positive=True), sp.symbols("c1:4", real=True)
    mean = sum(a * b for a, b in zip(s, c))
    spread = sum(a * (b - mean) ** 2 for a, b in zip(s, c))
    short = (sum(a * b**2 for a, b in zip(s, c)) - mean**2).subs(s[2], 1 - s[0] - s[1])
    # two experts, f = 1, along (w_1 - w_2)/√2: means φ/p and -φ/(1-p) about μ, p = Φ(t)
    density = sp.symbols("phi", positive=True)
    parts = side.share(p, 2), side.share(1 - p, 2)
    between = parts[0] * parts[1] / (parts[0] + parts[1]) ** 2 * (density / p + density / (1 - p)) ** 2
    return every(
        [
            identity(sp.diff(first, u), u * normal(u - m), name="(Φ E[g|g<u])' - uφ"),
            identity(sp.diff(second, u), u**2 * normal(u - m), name="(Φ E[g²|g<u])' - u²φ"),
            identity(spread.subs(s[2], 1 - s[0] - s[1]), short, name="Σ s|c - c̄|² - (Σ s|c|² - |c̄|²)"),
            identity(
                between,
                density**2 / (p * (1 - p)),
                points=[{p: sp.Rational(1, 3), density: 1}],
                name="two experts - φ²/(p(1-p)) of scatter_loads",
            ),
        ]
    )


def kept_by(own: float, other: float, part: float) -> tuple[float, float, float, float]:
    """Mass that an expert keeps, means of its own and of the losing projection, mean square: losers integrated last."""

    def beyond(level: float, power: int = 0) -> float:
        low = max(level, (own + other) / 2 - 10)

        def weight(z: float) -> float:
            return float(z**power * stats.norm.pdf(z - own) * special.ndtr(z - other))

        return float(integrate.quad(weight, low, low + 20, epsabs=1e-13)[0])

    mass = part * float(special.ndtr((own - other) / np.sqrt(2)))
    level = -np.inf if part == 1 else float(optimize.brentq(lambda z: beyond(z) - mass, own - 12, own + 12))

    def losing(power: int) -> float:
        def weight(v: float) -> float:  # P(the winner is above v and above the level)
            return float(v**power * stats.norm.pdf(v - other) * special.ndtr(own - max(v, level)))

        cuts = [other - 10, *([level] if other - 10 < level < other + 10 else []), other + 10]
        return sum(float(integrate.quad(weight, a, b, epsabs=1e-13)[0]) for a, b in itertools.pairwise(cuts))

    return mass, beyond(level, 1) / mass, losing(1) / mass, (beyond(level, 2) + losing(2)) / mass


def pair(side: SimpleNamespace, gate: tuple[float, float], dim: int, kept: tuple[float, float]) -> float:
    """Between/within of two experts."""
    first, second = kept_by(gate[0], gate[1], kept[0]), kept_by(gate[1], gate[0], kept[1])
    s = np.array([side.share(first[0], 2), side.share(second[0], 2)])
    s, c = s / s.sum(), np.array([[first[1], first[2]], [second[2], second[1]]])
    middle = s @ c
    between = float(s @ np.square(c - middle).sum(axis=1))
    return between / (float(s @ np.array([first[3], second[3]]) - middle @ middle) + dim - 2 - between)


@claim.reference(
    "two experts in the other order of integration; the Fisher information; H3; shifts; capacity and fraction"
)
def two_experts_other_order_integration(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    for gate, dim, kept in (((0.8, -0.4), 2, (0.3, 0.3)), ((1.5, 0.0), 8, (0.2, 1.0)), ((-0.5, 0.5), 64, (1.0, 1.0))):
        ours = homogenization.skewed_scatter(gate, dim, kept=kept)
        worst = max(worst, abs(pair(side, gate, dim, kept) / ours - 1))
        if worst > 1e-8:
            return fails(f"m={gate}, d={dim}, f={kept}: package {ours:.8g}, formula {pair(side, gate, dim, kept):.8g}")
    for means in ([1.0, 0.5, -0.3], [2.0, 1.5, 0.0, 1.0, -1.0]):
        weights = facet_weights(np.array(means))
        moments = np.diag(weights.sum(axis=1)) - weights
        fisher = float((moments**2).sum(axis=1) @ (1 / Gaussian(tuple(means), 0.0, 32).load()))
        ours = homogenization.skewed_scatter(means, 9)
        if abs(ours / (fisher / (9 - fisher)) - 1) > 1e-9:
            return fails(f"m={means}: {ours:.10g} is not the Fisher information's")
    for shift in (0.0, 4.0):
        ours, equal = (
            homogenization.skewed_scatter(np.full(8, shift), 64, kept=0.25),
            homogenization.resonance_scatter(64, 8, 0.25),
        )
        if abs(ours / float(equal) - 1) > 1e-11:
            return fails(f"eight means of {shift}: {ours:.10g}, H3 has {float(equal):.10g}")
    skewed = (2.0, 1.0, 0.0, -1.0)
    load = Gaussian(skewed, 0.0, 64).load()
    fixed = np.minimum(1.0, 0.1 / load)
    rates = [homogenization.skewed_scatter(skewed, 64, kept=f) for f in (1.0, float(fixed @ load), fixed)]
    if not rates[0] < rates[1] < rates[2]:
        return fails(f"m={skewed}: all, a fraction, a capacity give {rates}")
    return holds(
        f"agree to {worst:.0e}; loads {', '.join(f'{v:.3f}' for v in load)}: all {rates[0]:.4f}, the best "
        f"{100 * float(fixed @ load):.0f} % of each {rates[1]:.4f}, as many by a fixed capacity {rates[2]:.4f}"
    )


SCALE = 10.0  # coins of projections over 10, clipped: beyond every normal here


def sample(rng: np.random.Generator, trials: int, *, gate: list[float], level: float) -> dict[str, int]:
    """Coins of the winning and of the next projection, 0 where expert 0 does not win above the level."""
    counts = {"winning": 0, "losing": 0}
    for count in chunks(trials):
        g = rng.standard_normal((count, len(gate))) + gate
        kept = (g.argmax(axis=1) == 0) & (g[:, 0] > level)
        for key, j in (("winning", 0), ("losing", 1)):
            counts[key] += coin(rng, np.clip(np.where(kept, g[:, j], 0.0) / SCALE, -1, 1))
    return counts


def law(side: SimpleNamespace, *, gate: list[float], level: float) -> dict[str, float]:
    """Means times the share that the side gives expert 0."""
    z = np.linspace(level, max(gate) + 12, 40_001)
    density = stats.norm.pdf(z - gate[0]) * np.prod([special.ndtr(z - v) for v in gate[1:]], axis=0)
    mass = integrate.simpson(density, x=z)
    losing = gate[1] - stats.norm.pdf(z - gate[1]) / special.ndtr(z - gate[1])
    part = side.share(mass, len(gate)) / mass
    means = {"winning": integrate.simpson(density * z, x=z), "losing": integrate.simpson(density * losing, x=z)}
    return {key: (1 + float(value * part) / SCALE) / 2 for key, value in means.items()}


claim.simulate(
    sample,
    cases=[{"gate": [1.5, -0.5, 0.0], "level": 1.0}, {"gate": [0.0, 1.0, 0.5, -1.0], "level": -0.5}],
    law=law,
    trials=600_000,
)
