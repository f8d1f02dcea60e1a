"""G5. The three rules on planted tokens: exact success rates from signal, dimension, experts, tokens and capacity alone.

Write the token as X w_i + R v, R = |part across the gate|, v a unit vector across it: X, R and v are independent, v
uniform on the sphere S^{d-2}. Affinities are a = X/sqrt(X²+R²) and sqrt(1-a²) v_j, so given a the own gate is among the ℓ
best iff fewer than ℓ of n-1 coordinates of a uniform direction in R^{d-1} exceed b = a/sqrt(1-a²): G4, one dimension less.
Irrelevant tokens are isotropic, so with q (G1) and h (G4), and f_o the density of a (G3):

    P_ECR = ∫ f_o F(q),   P_RES = ∫ f_o P(hit|a) F(h),   P_TCR = p E min(1, C/(N+1)),   p = ∫ f_o P(hit|a) = G2's rate.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import special, stats

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.tokens import Rates, candidates, samplers, signals

d, k, r, y, s, theta = sp.symbols("d k r y s theta", positive=True)  # y = 1 - a²
a = sp.symbols("a", real=True)


def side(scale: Callable) -> SimpleNamespace:
    """Given affinity a, a rival's affinity over scale(1 - a²) is claimed to be a coordinate on S^{d-2}."""
    return SimpleNamespace(scale=scale)


claim = Claim(
    title="Success rates of the three rules on planted tokens",
    statement=r"$P_{RES}=\int f_o(a)\,P(hit|a)\,F(h(a))\,da$, $P_{ECR}=\int f_o(a)\,F(q(a))\,da$, "
    r"$P_{TCR}=p\,E\min(1,\frac{C}{N+1})$, where $P(hit|a)$ is the probability that at most $\ell-1$ of $n-1$ coordinates "
    r"of a uniform direction in $R^{d-1}$ exceed $a/\sqrt{1-a^2}$, and $p=\int f_o(a)\,P(hit|a)\,da$",
    hypotheses=(
        r"discriminative token $\theta w_i+\sigma z$, others $\sigma z$, all $z\sim N(0,I_d)$ independent",
        r"orthonormal gates, $1\leq\ell\leq n\leq d$, $d\geq 3$",
    ),
    source="new",
    tag="G5",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda square: square**0.5 if isinstance(square, np.ndarray) else sp.sqrt(square)),
    mutant=side(lambda square: 0 * square + 1),
    mutation="threshold a in place of a/sqrt(1-a²): rivals not shrunk by the own affinity",
)


@claim.derivation("lengths, thresholds, and the Jacobian of two rivals")
def lengths_thresholds_jacobian_two_rivals(side: SimpleNamespace) -> Outcome:
    length, v, w = sp.symbols("length v w", positive=True)
    own, across = length * a, length * sp.sqrt(1 - a**2)
    square = sp.symbols("square", positive=True)
    rest = sp.sqrt(1 - v**2 - w**2)
    # (Y_1, Y_2, W) = R (v, w, sqrt(1-v²-w²)): R² / sqrt(1 - |v|²), the case k = 2 of what the certificate uses
    matrix = sp.Matrix([across * v, across * w, across * rest]).subs(across, square)
    jacobian = sp.simplify(matrix.jacobian([square, v, w]).det())
    return every(
        [
            identity(own**2 + across**2, length**2, name="X² + R² - r²"),
            identity(jacobian**2, square**4 / (1 - v**2 - w**2), name="Jacobian² - R⁴/(1-|v|²)"),
            # a rival R v_j stays below X iff its statistic R v_j / (r scale) does below X / (r scale), claimed: v_j < X/R
            identity(
                own / (length * side.scale(1 - a**2)),
                own / across,
                points=[{a: sp.Rational(1, 3), length: 2}],
                name="threshold - X/R",
            ),
        ]
    )


@claim.certificate(
    "for all d, n, θ: rivals over their scale are uniform on S^{d-2}, independent of a and of the length"
)
def d_n_rivals_their_scale(side: SimpleNamespace) -> Outcome:
    # k rivals with statistics w_j, |w|² = s; v = w scale/sqrt(y). Densities of X, Y, W (rest: chi_{d-1-k}) and Jacobians.
    scale = side.scale(y)
    inner = sp.simplify(s * scale**2 / y)  # |v|²
    across = r * sp.sqrt(y)
    rest = d - 1 - k

    def chi(freedom: sp.Expr, value: sp.Expr, square: sp.Expr) -> sp.Expr:
        return 2 ** (1 - freedom / 2) / sp.gamma(freedom / 2) * value ** (freedom - 1) * sp.exp(-square / 2)

    left = sp.exp(-((r * a - theta) ** 2) / 2 - across**2 * inner / 2) / (2 * sp.pi) ** ((k + 1) / 2)
    left = left * chi(rest, across * sp.sqrt(1 - inner), across**2 * (1 - inner))
    left = left * across**k / sp.sqrt(1 - inner) * r / sp.sqrt(y) * (scale / sp.sqrt(y)) ** k
    uniform = y ** ((d - 3) / 2) * sp.gamma(d / 2) / sp.gamma((d - 1) / 2) / sp.sqrt(sp.pi)
    right = uniform * chi(d, r, r**2) * sp.exp(theta * r * a - theta**2 / 2)
    right = right * sp.gamma((d - 1) / 2) / sp.gamma(rest / 2) / sp.pi ** (k / 2) * (1 - s) ** ((rest - 2) / 2)
    outcomes = []
    for sign in (1, -1):  # -(ra-θ)²/2 - r² y/2 and -r²/2 + θra - θ²/2 agree where a² = 1 - y
        ratio = (left / right).subs(a, sign * sp.sqrt(1 - y))
        ratio = sp.simplify(sp.powsimp(sp.expand_power_base(ratio, force=True), force=True))
        point = {r: 2, y: sp.Rational(3, 4), s: sp.Rational(1, 4), theta: 1, d: 7, k: 2}
        outcomes.append(identity(ratio, 1, points=[point], name=f"density/product - 1, sign of a {sign}"))
    return every(outcomes)


def pieces(cuts: list[float], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes and weights between the cuts, by a cubic that turns square roots at the cuts into smooth functions."""
    x, w = np.polynomial.legendre.leggauss(count)
    t = (x + 1) / 2
    edges = np.array(cuts)
    width = np.diff(edges)[:, None]
    return (edges[:-1, None] + width * t * t * (3 - 2 * t)).ravel(), (width * 3 * w * t * (1 - t)).ravel()


@claim.reference("three dimensions, two experts: closed forms and one quadrature, against the package")
def three_dimensions_two_experts_closed(side: SimpleNamespace) -> Outcome:
    tokens, capacity, signal, root = 30, 4, 1.5, np.sqrt(0.5)
    x, weight = pieces([-1.0, -root, 0.0, root, 1.0], 80)
    m = signal * x  # E exp(m chi_3) in closed form
    tilt = np.sqrt(2 / np.pi) * m + 2 * (1 + m * m) * np.exp(m * m / 2) * special.ndtr(m)
    f = weight * 0.5 * tilt * np.exp(-(signal**2) / 2)
    q = (1 - x) / 2
    size = np.abs(x)
    both = np.zeros_like(x)  # P(both affinities >= |a|): the second one lies on a circle
    for i in np.flatnonzero(size < root):
        at, w = pieces([size[i], np.sqrt((1 - size[i]) * (1 + size[i]))], 60)
        both[i] = w @ np.arccos(np.minimum(1, size[i] / np.sqrt((1 - at) * (1 + at)))) / (2 * np.pi)
    h = np.where(x >= 0, q - both / 2, (1 - both) / 2)
    hit = 1 - np.arccos(np.clip(x / side.scale((1 - x) * (1 + x)), -1, 1)) / np.pi
    kept = np.minimum(1, capacity / (np.arange(tokens) + 1)) @ stats.binom.pmf(np.arange(tokens), tokens - 1, 0.5)
    direct = np.array(
        [
            f @ hit * kept,
            f @ (hit * stats.binom.cdf(capacity - 1, tokens - 1, h)),
            f @ stats.binom.cdf(capacity - 1, tokens - 1, q),
        ]
    )
    law = Rates.planted(signal, 3, 2)
    ours = np.array(
        [
            token_choice.success(tokens, capacity, Rates(experts=2, hit=signals.hit_rate(signal, 2))),
            resonance.success(tokens, capacity, law),
            expert_choice.success(tokens, capacity, law),
        ]
    )
    error = np.abs(ours / direct - 1).max()
    text = f"TCR, RES, ECR = {', '.join(f'{v:.10f}' for v in direct)}, the package differs by {error:.1e}"
    return holds(text) if error < 1e-10 else fails(text)


def rates(side: SimpleNamespace, tokens: int, dim: int, experts: int, top: int, signal: float, capacity: int) -> dict:
    """Success rates on the package's nodes."""
    nodes = Rates.planted(signal, dim, experts, top=top)
    x = nodes.affinity
    scale = side.scale((1 - x) * (1 + x))  # threshold x/scale is that of affinity x/sqrt(x² + scale²)
    hit = candidates.hit_given_affinity(x / np.hypot(x, scale), dim, experts, top=top)
    kept = np.minimum(1, capacity / (np.arange(tokens) + 1.0))
    kept = kept @ stats.binom.pmf(np.arange(tokens), tokens - 1, top / experts)
    place = stats.binom.cdf(capacity - 1, tokens - 1, nodes.candidate_tail)
    return {
        "token choice": float(nodes.weight @ hit * kept),
        "resonance": float(nodes.weight @ (hit * place)),
        "expert choice": float(nodes.weight @ stats.binom.cdf(capacity - 1, tokens - 1, nodes.false_positive)),
    }


@claim.reference("d = 64, n = 8: .3131985, .7581594, .7800494; mean hits are G2's rates")
def d_n_mean_hits_g2(side: SimpleNamespace) -> Outcome:
    values = rates(side, 256, 64, 8, 1, 2.5, 12)
    known = (0.3131985257630, 0.7581593753703, 0.7800494397366)
    error = max(abs(v - w) for v, w in zip(values.values(), known))
    if error > 1e-12:
        return fails(f"the rates {values} differ from the known ones by {error:.1e}")
    for dim, experts, top, signal in ((5, 5, 2, 1.0), (64, 8, 3, 0.5), (1000, 40, 1, 4.0)):
        mean = rates(side, 1, dim, experts, top, signal, 1)["token choice"]
        error = max(error, abs(mean / float(signals.hit_rate(signal, experts, top=top)) - 1))
    return (
        holds(f"rates and mean hits agree to {error:.0e}") if error < 1e-11 else fails(f"mean hit off by {error:.0e}")
    )


def sample(
    rng: np.random.Generator,
    trials: int,
    *,
    tokens: int,
    dim: int,
    experts: int,
    top: int,
    signal: float,
    capacity: int,
) -> dict[str, int]:
    """Token vectors through the extractor and the three routers."""
    counts = dict.fromkeys(("token choice", "resonance", "expert choice"), 0)
    step = max(1, 2_000_000 // (tokens * dim))
    for start in range(0, trials, step):
        drawn = samplers.planted(rng, min(step, trials - start), tokens, dim, experts, signal)
        scores = affinity(drawn.values, experts)
        routed = {
            "token choice": token_choice.route(scores, capacity, top=top),
            "resonance": resonance.route(scores, capacity, top=top),
            "expert choice": expert_choice.route(scores, capacity),
        }
        for name, assignment in routed.items():
            counts[name] += int(np.count_nonzero(assignment.contains(drawn.position, drawn.expert)))
    return counts


claim.simulate(
    sample,
    cases=[
        {"tokens": 16, "dim": 3, "experts": 3, "top": 1, "signal": 1.5, "capacity": 3},
        {"tokens": 24, "dim": 12, "experts": 4, "top": 2, "signal": 1.0, "capacity": 4},
    ],
    law=rates,
    trials=30_000,
)
