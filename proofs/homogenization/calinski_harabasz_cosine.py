"""H3, selection by cosine affinity: Calinski-Harabasz of resonance as ETR routes, at any kept fraction.

The affinities of an isotropic token do not depend on its norm R, so selection by cosine leaves R unselected: E R² = d, and
a mean projection is E R times a mean cosine. With c = E[δ_i | kept], o = E[δ_j | kept], r = (E R)², the ratio is
r (c-o)²(1-1/n) / (d - r (c² + (n-1) o²)). The means come from the candidate tail h(a) (G4), at the threshold h(a) = f/n:

    c f/n = a h(a) + ∫_a^1 h,       (c + (n-1) o) f = E[Σ δ_k; some δ >= a] = -n E[δ_1; every δ < a],

the second because E Σ δ_k = 0 and "some δ >= a" is "the largest δ >= a", the winner's, over the n experts.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from proofs._isotropic import chunks, coin, unit_tokens
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

n, d, r, c, o, a, h, area = sp.symbols("n d r c o a h A", positive=True)


def side(select: str) -> SimpleNamespace:
    """Which closed form is claimed; selection by inner product also selects long tokens, by a surplus of E R²."""
    surplus = sp.Integer(0) if select == "cosine" else sp.Symbol("surplus", positive=True)
    return SimpleNamespace(select=select, surplus=surplus)


claim = Claim(
    title="Calinski-Harabasz of resonance by cosine affinity, at any kept fraction",
    statement=r"$\frac{\mathrm{between}}{\mathrm{within}}=\frac{r(c-o)^2(1-1/n)}{d-r(c^2+(n-1)o^2)}$, $r=(ER)^2$, "
    r"$c=a+\frac{n}{f}\int_a^1h(x)\,dx$, $c+(n-1)o=-\frac{n}{f}E[\delta_1;\max_k\delta_k<a]$, $h(a)=\frac{f}{n}$",
    hypotheses=(
        r"$x\sim N(0,I_d)$, orthonormal gates, Top-1, $2\leq n\leq d$, many tokens",
        r"each expert keeps the fraction $0<f\leq 1$ of its candidates with the largest cosines",
    ),
    source="ETR eq. 13 evaluated for resonance; new",
    tag="H3",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side("cosine"),
    mutant=side("inner"),
    mutation="the closed form of selection by inner product",
    lemmas=("radius and direction of a normal vector are independent", "candidate tail h (G4)"),
)


@claim.derivation("scatter from the mean cosines; the mean above a threshold from the tail")
def scatter_mean_cosines_mean_above(side: SimpleNamespace) -> Outcome:
    mean = (c + (n - 1) * o) / n
    between = r * ((c - mean) ** 2 + (n - 1) * (o - mean) ** 2)
    total = d + side.surplus - n * r * mean**2
    claimed = r * (c - o) ** 2 * (1 - 1 / n) / (d - r * (c**2 + (n - 1) * o**2))
    # -∫_a^1 x dh = a h(a) + ∫_a^1 h, as the derivative in a of both sides is a h'(a)
    tail, rest = sp.Function("h")(a), sp.Function("A")(a)
    parts = (sp.diff(a * tail + rest, a).subs(sp.Derivative(rest, a), -tail), a * sp.diff(tail, a))
    return every(
        [
            identity(*parts, name="(a h + ∫_a^1 h)' - a h'"),
            identity(between / (total - between), claimed, name="between/within - closed form"),
        ]
    )


def two_experts(dim: int, kept: float) -> float:
    """The ratio for n = 2 from the law of (δ_1, δ_2) in polar coordinates: density ~ r (1-r²)^{(d-4)/2}, uniform angle."""
    power = mpmath.mpf(dim - 4) / 2

    def moments(threshold: mpmath.mpf) -> list[mpmath.mpf]:
        def inside(z: mpmath.mpf, which: int) -> mpmath.mpf:
            # angles θ about the gate with δ_1 = z cos θ >= a and δ_2 = z sin θ <= δ_1: θ in [max(-w, -3π/4), min(w, π/4)]
            w = mpmath.acos(min(threshold / z, 1))
            low, high = -min(w, 3 * mpmath.pi / 4), min(w, mpmath.pi / 4)
            angle = (high - low, z * (mpmath.sin(high) - mpmath.sin(low)), z * (mpmath.cos(low) - mpmath.cos(high)))
            return angle[which] * z * (1 - z * z) ** power

        cuts = [threshold, min(threshold * mpmath.sqrt(2), 1), 1]
        norm = 2 * mpmath.pi / (dim - 2)
        return [mpmath.quad(lambda z, which=which: inside(z, which), cuts) / norm for which in range(3)]

    a = mpmath.findroot(lambda z: moments(z)[0] - mpmath.mpf(kept) / 2, (0.1, 0.5), tol=1e-25)
    mass, first, second = moments(a)
    c, o = first / mass, second / mass
    r = 2 * mpmath.gammaprod([mpmath.mpf(dim + 1) / 2] * 2, [mpmath.mpf(dim) / 2] * 2)
    return float(r * (c - o) ** 2 / 2 / (dim - r * (c * c + o * o)))


@claim.reference("the package against polar integrals for n = 2; .3474 at d=16, n=8, f=1/4 (inner product: .3102)")
def package_polar_integrals_n_d(side: SimpleNamespace) -> Outcome:
    ours = float(homogenization.resonance_scatter(16, 8, 0.25, select=side.select))
    if abs(ours - 0.3474) > 5e-5:
        return fails(f"d=16, n=8, f=1/4 gives {ours:.4f}")
    worst = 0.0
    with mpmath.workdps(18):
        for dim, kept in ((4, 0.5), (16, 0.25)):
            ours = float(homogenization.resonance_scatter(dim, 2, kept, select=side.select))
            error = abs(ours / two_experts(dim, kept) - 1)
            worst = max(worst, error)
            if error > 1e-10:
                return fails(f"d={dim}, n=2, f={kept}: {ours:.10g} in the package, off by {error:.1e}")
    return holds(f".3474, and ratios for n = 2 agree to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, experts: int, threshold: float) -> dict[str, int]:
    """How many candidates are kept, and coins of two cosines of the kept: the winning and a losing one."""
    counts = {"kept": 0, "winning": 0, "losing": 0}
    for count in chunks(trials):
        gates = unit_tokens(rng, count, dim)[:, :experts]
        rows = np.arange(count)
        winner = gates.argmax(axis=1)
        top, other = gates[rows, winner], gates[rows, (winner + rng.integers(1, experts, count)) % experts]
        kept = top >= threshold
        counts["kept"] += int(np.count_nonzero(kept))
        counts["winning"] += coin(rng, np.where(kept, top, 0.0))
        counts["losing"] += coin(rng, np.where(kept, other, 0.0))
    return counts


def law(side: SimpleNamespace, *, dim: int, experts: int, threshold: float) -> dict[str, float]:
    from resonance_theory.tokens import candidates

    kept = float(candidates.candidate_tail(threshold, dim, experts)) * experts
    winner, other = homogenization.kept_means(dim, experts, kept, select=side.select)
    scale = 1.0 if side.select == "cosine" else float(np.sqrt(dim))  # the mutant's are projections, over about √d
    return {
        "kept": kept,
        "winning": (1 + float(winner) / scale * kept) / 2,
        "losing": (1 + float(other) / scale * kept) / 2,
    }


claim.simulate(
    sample,
    cases=[
        {"dim": 4, "experts": 4, "threshold": 0.75},
        {"dim": 3, "experts": 2, "threshold": 0.5},
        {"dim": 16, "experts": 8, "threshold": 0.5},
    ],
    law=law,
    trials=300_000,
)
