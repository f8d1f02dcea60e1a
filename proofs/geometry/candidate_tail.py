"""G4. The candidate tail of isotropic tokens, by exchanging the sphere for independent coordinates.

A token is a candidate of its ℓ best experts. With N_a = #{j: δ_j >= a}, those of its experts at which its affinity is
at least a are the min(N_a, ℓ) best: so n h(a) = E min(N_a, ℓ), by symmetry of the orthonormal gates.

For a standard normal vector the radius (R²/2 of law Gamma(d/2)) is independent of the direction. So, for any G,
E G(#{j: z_j >= a sqrt(2p)}) = p^{d/2}/Γ(d/2) ∫ u^{d/2-1} e^{-pu} g(a/√u) du with g(a) = E G(N_a) on the sphere (0 beyond 1
for k >= 1 coordinates): a Laplace transform, whose inversion at u = 1 is g(a). As Σ δ_j² <= 1, no more than ℓ coordinates
reach a once (ℓ+1) a² >= 1; there h = q.
"""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp
from scipy import special, stats

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import candidates, caps

d, k, v, s, p, u = sp.symbols("d k v s p u", positive=True)


def on_sphere(squares: list[sp.Expr]) -> sp.Expr:
    """Density of some coordinates of a uniform direction in R^d, by their squares."""
    count = len(squares)
    constant = sp.gamma(d / 2) / sp.gamma((d - count) / 2) / sp.pi ** sp.Rational(count, 2)
    return constant * (1 - sum(squares)) ** ((d - count - 2) / 2)


def independent(squares: list[sp.Expr]) -> sp.Expr:
    """The same coordinates, each with its own exact law, taken as independent."""
    return sp.prod([on_sphere([square]) for square in squares])


def by_inversion(a: float, dim: int, experts: int, top: int) -> float:
    """n h(a) by the inverse Laplace transform on a vertical line, 40 digits."""
    with mpmath.workdps(40):
        half, x = mpmath.mpf(dim) / 2, mpmath.mpf(a)
        c = half / (1 - x * x)
        scale, step, total = c / mpmath.sqrt(half), mpmath.mpf(1) / 24, mpmath.mpf(0)
        for i in range(150):
            point = mpmath.mpc(c, scale * mpmath.sinh(i * step))
            q = mpmath.erfc(x * mpmath.sqrt(point)) / 2
            # E min(Bin, ℓ) = ℓ - Σ_{j<ℓ} (ℓ-j) P(j)
            value = top - sum((top - j) * special.comb(experts, j, exact=True) * q**j * (1 - q) ** (experts - j)
                              for j in range(top))  # fmt: skip
            term = mpmath.exp(point - c - half * mpmath.log(point / c)) * value * mpmath.cosh(i * step)
            total += term.real * (mpmath.mpf(1) / 2 if i == 0 else 1)
        front = mpmath.exp(mpmath.loggamma(half) + c - half * mpmath.log(c)) * scale / mpmath.pi
        return float(front * total * step)


def by_package(a: np.ndarray, dim: int, experts: int, top: int) -> np.ndarray:
    return experts * candidates.candidate_tail(a, dim, experts, top=top)


def by_product(a: np.ndarray, dim: int, experts: int, top: int) -> np.ndarray:
    counts = np.arange(experts + 1)
    return stats.binom.pmf(counts, experts, caps.cap(a, dim)[..., None]) @ np.minimum(counts, top)


claim = Claim(
    title="Exact candidate tail of isotropic tokens",
    statement=r"$h(a)=\frac1nE[\min(N_a,\ell)]$, "
    r"$P(N_a\geq m)=\frac{\Gamma(d/2)}{2\pi i}\int_{c-i\infty}^{c+i\infty}"
    r"p^{-d/2}e^pP(\mathrm{Bin}(n,Q(a\sqrt{2p}))\geq m)\,dp$; "
    r"$h=q$ where $(\ell+1)a^2\geq 1$",
    hypotheses=(
        r"uniform direction in $R^d$, orthonormal gates, $1\leq\ell\leq n\leq d$",
        r"$Q=1-\Phi$, $c>0$, $0\leq a<1$; below 0 by $N_a=n-N'_{-a}$, $N'$ the reflected direction's count",
    ),
    source="new",
    tag="G4",
    kind="equality",
    expected=Verdict.PROVED,
    truth=SimpleNamespace(
        density=on_sphere,
        pair=lambda a: (2 * sp.acos(a) - sp.pi / 2) / (2 * sp.pi),  # both affinities >= a in the plane, a < 1/√2
        count=by_inversion,
        mean_count=by_package,
    ),
    mutant=SimpleNamespace(
        density=independent, pair=lambda a: (sp.acos(a) / sp.pi) ** 2, count=by_product, mean_count=by_product
    ),
    mutation="affinities taken as independent, each with its exact cap law",
    lemmas=("Laplace inversion (Bromwich) of a function of bounded variation",),
)


@claim.derivation("h = E min(N, ℓ)/n: every order of up to four affinities, and the plane in closed form")
def h_e_min_n_n(side: SimpleNamespace) -> Outcome:
    # Expert 0 counts if its rank is below ℓ and below N; ranks are uniform given N, for any n
    for n, top in ((2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (4, 3), (4, 4)):
        for above in range(n + 1):
            orders = list(permutations(range(n)))
            if n * sum(order[0] < min(top, above) for order in orders) != len(orders) * min(above, top):
                return fails(f"n={n}, ℓ={top}, N={above}")
    # d = n = 2, a < 1/√2: angles with cos >= a and cos >= sin lie between -arccos(a) and π/4
    a = sp.symbols("a", positive=True)
    direct = (sp.acos(a) + sp.pi / 4) / (2 * sp.pi)
    q = sp.acos(a) / sp.pi
    return identity((2 * q - side.pair(a)) / 2, direct, points=[{a: sp.Rational(1, 3)}], name="h - arc")


@claim.certificate("for all d and k: radius times direction has independent normal coordinates")
def d_k_radius_times_direction(side: SimpleNamespace) -> Outcome:
    # With r² = |y|² + v: density of the k coordinates y/r and of r, change of variables r -> v at fixed y (dr = dv/2r),
    # against the product of k normal densities and of v = chi²_{d-k}. Pointwise, so it holds for every k-dimensional set.
    squares = list(sp.symbols("y1:3", positive=True))  # the squares of two coordinates
    total = sum(squares) + v
    chi = 2 ** (1 - d / 2) / sp.gamma(d / 2) * total ** ((d - 1) / 2) * sp.exp(-total / 2)
    left = side.density([q / total for q in squares])
    left = left.subs(1 - sum(q / total for q in squares), v / total) * chi * total ** sp.Rational(-3, 2) / 2
    half = (d - 2) / 2
    right = sp.exp(-sum(squares) / 2) / (2 * sp.pi) * v ** (half - 1) * sp.exp(-v / 2) / 2**half / sp.gamma(half)
    two = sp.powsimp(sp.expand_power_base(sp.powsimp(sp.expand(left / right)), force=True), force=True)
    point = {v: 2, d: 7} | dict(zip(squares, (sp.Rational(1, 2), sp.Rational(1, 3))))
    outcomes = [identity(two, 1, points=[point], name="density/product - 1, two coordinates")]
    # symbolic k: the same ratio, with s = |y|²
    ratio = (sp.gamma(d / 2) / sp.gamma((d - k) / 2) / sp.pi ** (k / 2) * (v / (s + v)) ** ((d - k - 2) / 2)
             * 2 ** (1 - d / 2) / sp.gamma(d / 2) * (s + v) ** ((d - k - 2) / 2) * sp.exp(-(s + v) / 2) / 2)  # fmt: skip
    half = (d - k) / 2
    ratio = ratio / (sp.exp(-s / 2) / (2 * sp.pi) ** (k / 2) * v ** (half - 1) * sp.exp(-v / 2) / 2**half)
    ratio = sp.powsimp(sp.expand_power_base(ratio * sp.gamma(half), force=True), force=True)
    outcomes.append(identity(sp.simplify(ratio), 1, points=[{v: 2, s: 1, d: 7, k: 2}], name="the same, symbolic k"))
    return every(outcomes)


@claim.certificate("Laplace form for all d: the substitution, the transforms of one and two coordinates, h = q")
def laplace_form_d_substitution_transforms(side: SimpleNamespace) -> Outcome:
    # R²/2 = pu turns the threshold a sqrt(2p)/R into a/√u, and its law Gamma(d/2) into the transform's kernel
    y = p * u
    kernel = y ** (d / 2 - 1) * sp.exp(-y) / sp.gamma(d / 2) * sp.diff(y, u)
    wanted = p ** (d / 2) / sp.gamma(d / 2) * u ** (d / 2 - 1) * sp.exp(-p * u)
    outcomes = [identity(sp.simplify(sp.powsimp(sp.expand_power_base(kernel / wanted, force=True))), 1, name="kernel")]
    for count in (1, 2):
        # The density of k coordinates x at radius √u, u^{d/2-1-k/2} f(x/√u), is (u-|x|²)^{(d-k-2)/2} times a constant;
        # its transform e^{-p|x|²} Γ((d-k)/2) p^{-(d-k)/2} times it must be Γ(d/2) p^{-d/2} (p/π)^{k/2} e^{-p|x|²}.
        squares = list(sp.symbols(f"x1:{count + 1}", positive=True))
        half, room = sp.Rational(count, 2), 1 - sum(x / u for x in squares)
        first = side.density([x / u for x in squares]) * u ** (d / 2 - 1 - half)
        constant = first.subs(room, v / u) / v ** ((d - count - 2) / 2)  # v = u - |x|²
        transform = constant * sp.gamma((d - count) / 2) * p ** (-(d - count) / 2)
        ratio = transform / (sp.gamma(d / 2) * p ** (half - d / 2) / sp.pi**half)
        ratio = sp.powsimp(sp.expand_power_base(sp.simplify(ratio), force=True), force=True)
        points = [{p: 2, d: 7, u: 3, v: 2} | {x: sp.Rational(1, 2) for x in squares}]
        outcomes.append(identity(sp.simplify(ratio), 1, points=points, name=f"transform of {count} coordinates"))
    for top in (1, 2, 3):
        # ℓ+1 affinities of a or more have squares that sum to (ℓ+1) a² or more, so (ℓ+1) a² >= 1 leaves N <= ℓ
        a, *more = sp.symbols(f"a t0:{top + 1}")
        slack = sp.expand(sum((a + m) ** 2 for m in more) - (top + 1) * a**2)
        outcomes.append(nonnegative_polynomial(slack, {a: 0} | dict.fromkeys(more, 0), name=f"Σδ² - {top + 1} a²"))
    return every(outcomes)


@claim.reference("the package against the inversion in 40 digits, d = 32 to 10^4")
def package_inversion_digits_d(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    for dim, experts, top, a in (
        (32, 32, 1, 0.3), (32, 5, 3, 0.2), (64, 8, 1, 0.25), (64, 64, 2, 0.2), (1000, 16, 2, 0.1), (10_000, 1000, 1, 0.03),
    ):  # fmt: skip
        exact = side.count(a, dim, experts, top)
        ours = experts * float(candidates.candidate_tail(a, dim, experts, top=top))
        worst = max(worst, abs(ours / exact - 1))
        if worst > 1e-12:
            return fails(f"d={dim}, n={experts}, ℓ={top}, a={a}: E min(N, ℓ) is {ours:.12g}, by the side {exact:.12g}")
    known = 8 * float(candidates.candidate_tail(0.25, 64, 8))
    if abs(known - 0.16725251085899525) > 1e-15:
        return fails(f"P(max >= .25) at d=64, n=8 is {known!r}")
    rare = np.array([0.5774, 0.6, 0.7072, 0.9])
    if np.any(candidates.candidate_tail(rare, 9, 9, top=2) != caps.cap(rare, 9)):
        return fails("h differs from q where 3 a² >= 1, ℓ = 2")
    return holds(f"six tails agree to {worst:.0e}; h = q where (ℓ+1) a² >= 1")


@claim.reference("mixed over the radius, the package gives the binomial of independent normals")
def mixed_radius_package_gives_binomial(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    x, w = np.polynomial.legendre.leggauss(300)
    for dim, experts, top in ((40, 8, 1), (64, 64, 5), (3000, 100, 3)):
        low, high = stats.chi(dim).ppf(1e-18), stats.chi(dim).isf(1e-18)
        r = (low + high) / 2 + (high - low) / 2 * x
        weight = w * (high - low) / 2 * stats.chi(dim).pdf(r)
        for threshold in (-0.5, 0.5, 2.0):
            counts = np.arange(experts + 1)
            binomial = stats.binom.pmf(counts, experts, special.ndtr(-threshold)) @ np.minimum(counts, top)
            mixture = float(weight @ side.mean_count(np.clip(threshold / r, -1, 1), dim, experts, top))
            worst = max(worst, abs(mixture / binomial - 1))
            if worst > 1e-10:
                return fails(f"d={dim}, n={experts}, ℓ={top}, t={threshold}: {mixture:.10g}, binomial {binomial:.10g}")
    return holds(f"nine means agree to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, experts: int, top: int, bound: float) -> dict[str, int]:
    scores = affinity(rng.standard_normal((trials, dim)), experts)
    rank = (scores > scores[:, :1]).sum(axis=1)
    return {"candidates": int(np.count_nonzero((rank < top) & (scores[:, 0] >= bound)))}


def law(side: SimpleNamespace, *, dim: int, experts: int, top: int, bound: float) -> dict[str, float]:
    return {"candidates": float(side.mean_count(np.array([bound]), dim, experts, top)[0]) / experts}


claim.simulate(
    sample,
    cases=[
        {"dim": 4, "experts": 4, "top": 1, "bound": 0.45},
        {"dim": 8, "experts": 8, "top": 2, "bound": 0.3},
        {"dim": 32, "experts": 8, "top": 1, "bound": -0.05},
    ],
    law=law,
)
