"""LocMoE figure 6: does the capacity grow exponentially as the angle θ between token and gate falls?

With δ = cos θ the printed bound is exp(d δ²/(2-δ²))/n, and it saturates: it is below e^d/n and flat at θ = 0. The exact waiting
time grows without limit, as a power. For θ <= π/4 no token reaches cos θ with two experts, so E T = 1/(n q), with the cap
q = (1/B) ∫_0^θ sin^{d-2}, B = B((d-1)/2, 1/2), and for all d >= 2

    sin^{d-1}θ/((d-1) B) <= q <= sin^{d-1}θ/((d-1) B cos θ),

as both sides vanish at 0 and their slopes in θ are sin^{d-2}θ cos θ/B and (sin^{d-2}θ + sin^dθ/((d-1) cos²θ))/B, on either side
of sin^{d-2}θ/B. So E T ~ (d-1) B/(n θ^{d-1}): d = 64, n = 8, from 1° to 0.1°: 63 decades, where the printed bound grows by 1.04.
"""

from __future__ import annotations

from dataclasses import dataclass

import flint
import numpy as np
import sympy as sp
from scipy import special

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import candidates

arb = flint.arb


@dataclass(frozen=True)
class Side:
    """E T is claimed to grow like θ^-(d - less); `exponential`: like the printed bound instead."""

    less: int
    exponential: bool = False

    def growth(self, dim: int, near: float, far: float) -> float:
        """log10 of E T(near)/E T(far), angles in degrees."""
        a, b = np.radians(near), np.radians(far)
        if self.exponential:
            exponents = [dim * np.cos(x) ** 2 / (2 - np.cos(x) ** 2) for x in (a, b)]
            return float((exponents[0] - exponents[1]) / np.log(10))
        return float((dim - self.less) * np.log10(np.sin(b) / np.sin(a)))


claim = Claim(
    title="As the angle falls the waiting time grows like a power of it, and LocMoE's bound stops growing",
    statement=r"$\frac{(d-1)B\cos\theta}{n\sin^{d-1}\theta}\leq E\,T\leq\frac{(d-1)B}{n\sin^{d-1}\theta}$ for "
    r"$\theta\leq\frac\pi4$, $B=B(\frac{d-1}2,\frac12)$, while $\frac1n e^{d\delta^2/(2-\delta^2)}<\frac{e^d}n$",
    hypotheses=(r"isotropic tokens, orthonormal gates, $2\leq n\leq d$, useful: affinity of at least $\cos\theta$",),
    source="LocMoE figure 6 and its text: exponentially with the angle (arXiv 2401.13920)",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=Side(1),
    mutant=Side(0),
    mutation="the power d in place of d - 1",
    printed=Side(1, exponential=True),
    correction=r"Printed: capacity grows exponentially with the decrease of $\theta$. The printed bound grows by 1.04 from 1° to "
    r"0.1° ($d=64$), and not beyond $e^d/n$; the waiting time grows by 63 decades, like $\theta^{-(d-1)}$.",
)


@claim.derivation("the slopes of both sides against the cap's, for all d and θ")
def slopes_enclose_the_cap(side: Side) -> Outcome:
    d, theta = sp.symbols("d theta", positive=True)
    power = d - side.less
    cap = sp.sin(theta) ** (d - 2)  # times 1/B
    lower = sp.diff(sp.sin(theta) ** power / power, theta)
    upper = sp.diff(sp.sin(theta) ** power / (power * sp.cos(theta)), theta)
    point = {d: 5, theta: sp.Rational(1, 3)}
    above = cap + sp.sin(theta) ** d / ((d - 1) * sp.cos(theta) ** 2)
    return every(
        [
            identity(lower, cap * sp.cos(theta), points=[point], name="lower slope - sin^{d-2}θ cos θ"),
            identity(upper, above, points=[point], name="upper slope - sin^{d-2}θ (1 + sin²θ/((d-1)cos²θ))"),
        ]
    )


@claim.certificate("balls: E T between the two sides, d = 2 to 4096, 45° to 0.001°")
def balls_between_both_sides(side: Side) -> Outcome:
    saved, flint.ctx.dps, worst = flint.ctx.dps, 60, arb(1)
    try:
        for dim in (2, 3, 8, 64, 4096):
            a, half = arb(dim - 1) / 2, arb(1) / 2
            beta = (a.lgamma() + half.lgamma() - (a + half).lgamma()).exp()
            for degrees in ("45", "10", "1", "0.1", "0.001"):
                theta = arb(degrees) * arb.pi() / 180
                cap = (theta.sin() ** 2).beta_lower(a, half, regularized=True) / 2
                ratio = cap * (dim - 1) * beta / theta.sin() ** (dim - side.less)
                if not 1 < ratio < 1 / theta.cos():
                    return fails(f"d={dim}, θ={degrees}°: (d-1) B q / sin^(d-{side.less})θ is {ratio.str(8)}")
                worst = ratio if ratio > worst else worst
    finally:
        flint.ctx.dps = saved
    return holds(
        f"25 caps between sin^(d-1)θ/((d-1)B) and 1/cos θ times it, at most {worst.str(6, radius=False)} times"
    )


@claim.counterexample("d = 64, n = 8: from 1° to 0.1°")
def decades_of_waiting(side: Side) -> Outcome:
    times = [float(candidates.waiting_tokens(np.cos(np.radians(x)), 64, 8)) for x in (0.1, 1.0)]
    found, claimed = float(np.log10(times[0] / times[1])), side.growth(64, 0.1, 1.0)
    text = f"{found:.3f} decades, claimed {claimed:.3f}"
    return holds(text) if abs(found - claimed) < 0.01 else fails(text)


@claim.reference(
    "the package's waiting times, d = 4 to 64, grow by the claimed power between 4° and 1°, to the cosine's factor"
)
def package_grows_by_the_power(side: Side) -> Outcome:
    rows = []
    for dim, experts in ((4, 2), (16, 8), (64, 8)):
        times = [float(candidates.waiting_tokens(np.cos(np.radians(x)), dim, experts)) for x in (1.0, 4.0)]
        found, claimed = float(np.log10(times[0] / times[1])), side.growth(dim, 1.0, 4.0)
        if abs(found - claimed) > -np.log10(np.cos(np.radians(4.0))):
            return fails(f"d={dim}: {found:.5f} decades, claimed {claimed:.5f}")
        rows.append(f"{found:.3f}")
    return holds(", ".join(rows) + " decades")


def sample(rng: np.random.Generator, trials: int, *, dim: int, degrees: float) -> dict[str, int]:
    best = affinity(rng.standard_normal((trials, dim)), 2).max(axis=1)
    return {"useful": int(np.count_nonzero(best >= np.cos(np.radians(degrees))))}


def law(side: Side, *, dim: int, degrees: float) -> dict[str, float]:
    """Least chance claimed: n sin^(d - less)θ/((d-1) B)."""
    beta = special.beta((dim - 1) / 2, 0.5)
    return {"useful": 2 * float(np.sin(np.radians(degrees)) ** (dim - side.less) / ((dim - 1) * beta))}


claim.simulate(
    sample,
    cases=[{"dim": 4, "degrees": 40.0}],
    # the mutant's power d would make a token rarer: at most its chance
    law=lambda side, *, dim, degrees: {
        "useful": law(side, dim=dim, degrees=degrees)["useful"] / np.cos(np.radians(degrees))
    },
    relation="at_most",
    trials=200_000,
)
