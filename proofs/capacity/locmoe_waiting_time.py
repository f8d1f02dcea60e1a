"""What LocMoE Theorem 1 (ETR Remark 7) bounds: a waiting time, in exact and in high-probability form.

Tokens come independently; one is useful if its affinity reaches δ with some expert, with probability P = P(max_i δ_i >= δ)
= n h(δ) (G4). The number T until the first useful one is geometric: E T = 1/P, and P(T <= m) >= τ iff
m >= log(1-τ)/log(1-P). The printed argument puts n p_δ in the place of P, with p_δ = P(|cos| >= δ) = 2q(δ):

- usefulness is one-sided (the router takes the largest affinities, not the most negative), so half of p_δ counts;
- n q counts twice what reaches δ with two experts: n q - n h = E(N-1)_+ is positive exactly for 2δ² < 1, as the disc
  {x_1² + x_2² <= 1} holds an open set of points with both coordinates above δ then, and at most one point otherwise.

So E T >= 2/(n p_δ) > (2/n) exp(dδ²/(2-δ²)) for d >= 3, equal in the first place iff δ >= 1/√2. The printed bound says more
than E T >= 1 iff dδ²/(2-δ²) > ln n, that is δ² > 2 ln n/(d + ln n); it rises with δ, and knows no tokens per sample, no
capacity, no signal: whatever lets the capacity fall during training (q, h) is not in it.
"""

from __future__ import annotations

from types import SimpleNamespace

import flint
import numpy as np
import sympy as sp

from proofs.capacity import locmoe_capacity_bound as published
from proofs.geometry.candidate_tail import by_inversion
from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import candidates, caps

x, d, log_n, p = sp.symbols("x d L p", positive=True)
arb = flint.arb


def side(overlap: bool) -> SimpleNamespace:
    """P(max affinity >= δ); without the overlap it is the union bound n q, taken as an equality."""

    def reach(delta: float, dim: int, experts: int) -> float:
        return by_inversion(delta, dim, experts, 1) if overlap else experts * float(caps.cap(delta, dim))

    def in_plane(delta: sp.Expr) -> sp.Expr:
        both = (2 * sp.acos(delta) - sp.pi / 2) / (2 * sp.pi)
        return 2 * sp.acos(delta) / sp.pi - (both if overlap else 0)

    return SimpleNamespace(reach=reach, in_plane=in_plane)


claim = Claim(
    title="Waiting time for a useful token: exact, with confidence, and where LocMoE's bound says anything",
    statement=r"With $T$ the number of tokens until one reaches affinity $\delta$ with one of $n$ experts, "
    r"$E\,T=\frac{1}{n\,h(\delta)}=\frac{1}{P(\max_i\delta_i\geq\delta)}$, equal to $\frac{1}{n\,q(\delta)}$ iff "
    r"$\delta\geq 1/\sqrt 2$; $P(T\leq m)\geq\tau$ iff "
    r"$m\geq\lceil\frac{\ln(1-\tau)}{\ln(1-P(\max_i\delta_i\geq\delta))}\rceil$; "
    r"$E\,T\geq\frac{2}{n\,p_\delta}>\frac2n e^{d\delta^2/(2-\delta^2)}$ for $d\geq 3$. The printed "
    r"$\frac1n e^{d\delta^2/(2-\delta^2)}$ exceeds 1 iff $\delta^2>\frac{2\ln n}{d+\ln n}$, and rises with $\delta$",
    hypotheses=(
        r"independent isotropic tokens in $R^d$, orthonormal gates, $2\leq n\leq d$",
        r"$0<\delta<1$: at $\delta=1$ no token is useful",
    ),
    source="new, completing LocMoE Theorem 1 (arXiv 2401.13920), ETR Remark 7 (arXiv 2406.00023)",
    tag="G1, G4",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(True),
    mutant=side(False),
    mutation="the union bound n q taken as equality for every threshold",
)


@claim.derivation("geometric waiting time; the plane with two experts in closed form")
def geometric_waiting_time_plane_two(side: SimpleNamespace) -> Outcome:
    # E T and P(T > m) solve the first-step equations E = 1 + (1-p) E and G(m+1) = (1-p) G(m), G(0) = 1
    m = sp.symbols("m", positive=True, integer=True)
    delta = sp.symbols("delta", positive=True)
    # directions within arccos δ of one of two perpendicular gates: an arc of π/2 + 2 arccos δ for δ < 1/√2
    arc = (sp.pi / 2 + 2 * sp.acos(delta)) / (2 * sp.pi)
    return every(
        [
            identity(1 / p - 1, (1 - p) / p, name="E - 1 - (1-p) E"),
            identity(sp.expand((1 - p) ** (m + 1) / (1 - p) ** m), 1 - p, name="G(m+1)/G(m) - (1-p)"),
            identity(side.in_plane(delta), arc, points=[{delta: sp.Rational(1, 3)}], name="P - arc/2π"),
        ]
    )


@claim.certificate("overlap iff 2δ² < 1; binding threshold and monotony for all d, n; LocMoE's inequality for d >= 3")
def overlap_iff_binding_threshold_monotony(side: SimpleNamespace) -> Outcome:
    room = sp.symbols("room", positive=True)  # 1/2 - δ²
    # the point (t, t) with t² halfway between δ² and 1/2 lies beyond both thresholds and inside the disc
    square = (sp.Rational(1, 2) - room + sp.Rational(1, 2)) / 2
    witness = [sp.simplify(square - (sp.Rational(1, 2) - room)), sp.simplify(1 - 2 * square)]
    overlaps = all(v.is_positive for v in witness)
    outcomes = [holds("open overlap for 2δ² < 1") if overlaps else fails(f"witness margins {witness}")]
    for delta in (0.1, 0.4):  # the side must show it
        excess = 4 * float(caps.cap(delta, 40)) - side.reach(delta, 40, 4)
        text = f"n q - P is {excess:.3g} at δ={delta}, d=40, n=4"
        outcomes.append(holds(text) if excess > 0 else fails(text))
    exponent = d * x / (2 - x)
    threshold = 2 * log_n / (d + log_n)
    outcomes += [
        identity(
            exponent - log_n,
            (d + log_n) * (x - threshold) / (2 - x),
            name="exponent - ln n - (d + ln n)(x - threshold)/(2-x)",
        ),
        identity(sp.diff(exponent, x), 2 * d / (2 - x) ** 2, name="slope of the exponent, positive"),
    ]
    for check in published.claim.checks:
        if check.kind == "certificate" and "d = 2" not in check.name:
            outcomes.append(check.run(published.claim.truth))
    return every(outcomes)


@claim.reference("d = 4096 and 5120, n = 8 and 16: where the bound binds, and the exact time there")
def d_n_bound_binds_exact(side: SimpleNamespace) -> Outcome:
    rows = []
    for dim, experts, printed in (
        (4096, 8, 0.0318565),
        (4096, 16, 0.0367816),
        (5120, 8, 0.0284948),
        (5120, 16, 0.0329007),
    ):
        log_count = arb(experts).log()
        for delta, binds in ((printed - 1e-6, False), (printed + 1e-6, True)):
            square = arb(delta) ** 2
            excess = dim * square / (2 - square) - log_count
            if not (excess > 0 if binds else excess < 0):
                return fails(f"d={dim}, n={experts}: the bound does not start to exceed 1 at δ={printed}")
        exact = 1 / side.reach(printed, dim, experts)
        ours = float(candidates.waiting_tokens(printed, dim, experts))
        if abs(ours / exact - 1) > 1e-12:
            return fails(
                f"d={dim}, n={experts}, δ={printed}: E T is {ours:.8g} in the package, {exact:.8g} by the side"
            )
        if not ours > 2:  # (2/n) exp(ln n)
            return fails(f"E T = {ours:.6g} is not above twice the bound")
        rows.append(f"δ={printed}: {exact:.4f}")
    return holds(
        "the bound reaches 1, and E T is, for (4096, 8), (4096, 16), (5120, 8), (5120, 16) at " + ", ".join(rows)
    )


@claim.reference("least numbers with confidence τ, by the exact distribution function")
def least_numbers_confidence_exact_distribution(side: SimpleNamespace) -> Outcome:
    for dim, experts, delta in ((32, 8, 0.2), (64, 64, 0.3), (4096, 16, 0.05)):
        none = 1 - side.reach(delta, dim, experts)
        for goal in (0.5, 0.95, 0.999):
            count = float(candidates.waiting_tokens(delta, dim, experts, target=goal))
            if not (1 - none**count >= goal > 1 - none ** (count - 1)):
                return fails(f"d={dim}, n={experts}, δ={delta}, τ={goal}: {count:.0f} is not the least number")
    return holds("nine least numbers reach their confidence, one token fewer does not")


def sample(
    rng: np.random.Generator, trials: int, *, dim: int, experts: int, delta: float, count: int
) -> dict[str, int]:
    best = affinity(rng.standard_normal((trials, count, dim)), experts).max(axis=2)
    return {
        "useful": int(np.count_nonzero(best[:, 0] >= delta)),
        "within count": int(np.count_nonzero((best >= delta).any(axis=1))),
    }


def law(side: SimpleNamespace, *, dim: int, experts: int, delta: float, count: int) -> dict[str, float]:
    reach = min(side.reach(delta, dim, experts), 1.0)
    return {"useful": reach, "within count": 1 - (1 - reach) ** count}


claim.simulate(
    sample,
    cases=[
        {"dim": 32, "experts": 8, "delta": 0.2, "count": 3},
        {"dim": 40, "experts": 4, "delta": 0.25, "count": 8},
    ],
    law=law,
    trials=50_000,
)
