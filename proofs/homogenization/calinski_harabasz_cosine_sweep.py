"""H3, selection by cosine, three experts and more: no exception found.

Proved of it (calinski_harabasz_cosine_monotone): n = 2 in d >= 3; any n while the kept cosines are at least 1/√2; the mean
kept token for all n, d; and in general the ratio rises if D(x) = E[δ_1 - δ_2 | δ_1 = x is the largest] does. Not proved:
n >= 3, for which this claim searches. Two routes: the ratio itself from the package's mean cosines; and the slope of D by the
divergence theorem on the sphere, with b the density of one coordinate at s over P_{k,N}(s) = P(k coordinates in R^N all below s),

    (N-1) m = -b ((1-s²) - (k-1) s μ),   m' = b (s + (k-1) μ - k m),   μ = sqrt(1-s²) m_{k-1,N-1}(s/sqrt(1-s²)),

a recursion from n experts in R^d (k = n-1, N = d-1) down to one coordinate. D is found to rise where d >= n + 2: there the
cosines' joint density (1-|δ|²)^{(d-n-2)/2} is log-concave. Nearer to d = n it falls in places, without harm to the ratio.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy import special

from resonance_theory import homogenization
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.tokens import candidates, caps


def side(pairs: tuple[tuple[int, int], ...], room: int) -> SimpleNamespace:
    """pairs (n, d) at which the ratio is claimed to fall in f; room: D rises where d >= n + room."""
    return SimpleNamespace(pairs=pairs, room=room)


PAIRS = ((2, 3), (3, 3), (3, 5), (5, 5), (8, 9), (8, 64))

claim = Claim(
    title="Resonance by cosine sharpens any number of experts in three or more dimensions, as far as a search can tell",
    statement=r"between/within of the tokens kept by resonance (by cosine) falls in $f\in(0,1]$ for $2\leq n\leq d$, $d\geq 3$, "
    r"and on the unit sphere for $d=2$ too; $E[\delta_1-\delta_2|\delta_1=x\,\mathrm{largest}]$ rises in $x$ for $d\geq n+2$",
    hypotheses=(r"$x\sim N(0,I_d)$ or uniform on the sphere, orthonormal gates, Top-1, many tokens",),
    source="new",
    tag="H3",
    kind="empirical",
    expected=Verdict.SUPPORTED,
    truth=side(PAIRS, 2),
    mutant=side((*PAIRS, (2, 2)), 1),
    mutation="normal tokens in the plane as well; D rising for d = n + 1 too",
)


@claim.reference("the ratio at six kept fractions, from two experts to eight, normal tokens and the unit sphere")
def ratio_six_kept_fractions_two(side: SimpleNamespace) -> Outcome:
    kept = np.array([0.02, 0.2, 0.5, 0.6, 0.8, 1.0])
    steepest = -np.inf
    for n, dim in dict.fromkeys([*side.pairs, (2, 2)]):
        c, o = homogenization.kept_means(dim, n, kept, select="cosine")
        between, centroid = (c - o) ** 2 * (1 - 1 / n), c * c + (n - 1) * o * o
        square = 2 * np.exp(2 * (special.gammaln((dim + 1) / 2) - special.gammaln(dim / 2)))  # (E R)²
        ratios = {"sphere": between / (1 - centroid)}
        if (n, dim) in side.pairs:
            ratios["normal"] = square * between / (dim - square * centroid)
        for name, ratio in ratios.items():
            change = np.diff(ratio) / ratio[1:]
            steepest = max(steepest, float(change.max()))
            if change.max() >= 0:
                where = kept[int(change.argmax())]
                return fails(
                    f"{name}, n={n}, d={dim}: the ratio rises from f={where} on, {np.round(ratio, 5).tolist()}"
                )
    return holds(
        f"the ratio falls by at least {-100 * steepest:.2g} % a step for {len(side.pairs)} (n, d), and on the circle"
    )


def below(k: int, dim: int, s: np.ndarray) -> np.ndarray:
    """P(k coordinates of a uniform direction in R^dim are all below s), s > 0."""
    if k == 0:
        return np.ones_like(s)
    at = np.minimum(s, 1.0)
    tail = caps.cap(at, dim) if k == 1 else candidates.candidate_tail(at, dim, k)
    return np.where(s >= 1, 1.0, 1 - k * tail)


def mean_and_slope(k: int, dim: int, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m and m' for 0 < s < 1, both 0 from 1 on."""
    if k == 0:
        return np.zeros_like(s), np.zeros_like(s)
    at = np.minimum(s, 1 - 1e-12)
    rest = np.sqrt(1 - at * at)
    front = special.gamma(dim / 2) / special.gamma((dim - 1) / 2) / np.sqrt(np.pi)
    b = front * rest ** (dim - 3) * below(k - 1, dim - 1, at / rest) / below(k, dim, at)
    others = (k - 1) * rest * mean_and_slope(k - 1, dim - 1, at / rest)[0]
    m = -b * (rest * rest - at * others) / (dim - 1)
    return np.where(s >= 1, 0.0, m), np.where(s >= 1, 0.0, b * (at + others - k * m))


@claim.reference("the slope of D by the divergence theorem, n = 2 to 16 at the least d and beyond, 60 values of s")
def slope_d_divergence_theorem_n(side: SimpleNamespace) -> Outcome:
    s = np.linspace(0.01, 0.995, 60)
    least = np.inf
    for n in (2, 3, 4, 6, 10, 16):
        for dim in (n + side.room, n + 3, n + 12):
            m, slope = mean_and_slope(n - 1, dim - 1, s)
            rise = 1 + s * m - (1 + s * s) * slope
            least = min(least, float(rise.min()))
            if rise.min() <= 0:
                return fails(f"n={n}, d={dim}: dD/dx = {rise.min():.4f} at s = {s[int(rise.argmin())]:.3f}")
    return holds(f"dD/dx >= {least:.4f} at 18 (n, d)")
