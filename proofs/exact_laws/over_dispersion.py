"""N11. Whether over-dispersed loads help or harm token choice turns at one load, which is not the mean load C/s.

At a load θ the kept fraction is K(θ) = E min(1, C/(Bin(s-1,θ)+1)) = (1/θ)∫_0^θ F, F(h) = P(Bin(s-1,h) <= C-1) (N5, thinning). A
load that varies about π with a small variance v gives K(π) + K''(π) v/2. With f = -F', the Beta(C, s-C) density,
D = θ³ K'' = 2∫_0^θ F - 2θF - θ²f and D' = -θ² f': D starts at 0, falls while f rises, up to θ = (C-1)/(s-2), and rises
from there to D(1) = 2C/s > 0. So for 2 <= C <= s-2 there is exactly one θ* in ((C-1)/(s-2), 1) with K concave below and
convex above: over-dispersion lowers success at loads below θ* and raises it above. (C = 1: convex everywhere; C = s-1:
concave everywhere.)
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import optimize, special, stats

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, dependence, token_choice
from resonance_theory.tokens import signals
from resonance_theory.tokens.samplers import Dependent

t, s, C = sp.symbols("theta s C", positive=True)
psi, tail, density = sp.Function("Psi")(t), sp.Function("F")(t), sp.Function("f")(t)


def excess(tokens: int, capacity: int, load: float) -> float:
    """D(θ), from SciPy's beta law: ∫_0^θ F = θF(θ) + ∫_0^θ x f(x) dx."""
    f = stats.beta.pdf(load, capacity, tokens - capacity)
    return 2 * capacity / tokens * special.betainc(capacity + 1, tokens - capacity, load) - load**2 * f


def crossing(tokens: int, capacity: int) -> float:
    return float(optimize.brentq(lambda x: excess(tokens, capacity, x), (capacity - 1) / (tokens - 2), 1.0))


claim = Claim(
    title="Over-dispersed loads: success falls at loads below one threshold and rises above it",
    statement=r"for $2\leq C\leq s-2$, $K(\theta)=E\min\{1,\frac{C}{\mathrm{Bin}(s-1,\theta)+1}\}$ is concave on "
    r"$[0,\theta^*]$, convex on $[\theta^*,1]$ with one $\theta^*\in(\frac{C-1}{s-2},1)$, the zero "
    r"of $2\int_0^\theta xf(x)dx-\theta^2f(\theta)$, $f$ the "
    r"$\mathrm{Beta}(C,s-C)$ density: a slightly over-dispersed load lowers token choice's success where $\pi<\theta^*$, raises "
    r"it where $\pi>\theta^*$",
    hypotheses=(
        "token choice; tokens independent given the sample's load, the discriminative token independent of it",
    ),
    source="new; corrects its rule of thumb, the mean load",
    tag="N11",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("planted_phases", "language_model"),
    truth=SimpleNamespace(decider=2 * psi - 2 * t * tail - t**2 * density, crossing=crossing, dispersed=True),
    mutant=SimpleNamespace(decider=t - C / s, crossing=lambda total, capacity: capacity / total, dispersed=False),
    mutation="the turn at the mean load, C = πs (and binomial counts in the simulation)",
    lemmas=("N5 (exchangeability_identity)",),
)


@claim.derivation("θ³K'' = D, D' = -θ²f', f' changes sign once, and D at the ends")
def k_d_d_f_f(side: SimpleNamespace) -> Outcome:
    def with_laws(e: sp.Expr) -> sp.Expr:
        """∫F and F by their derivatives: (∫F)' = F, F' = -f."""
        for _ in range(3):
            e = e.subs(sp.Derivative(psi, (t, 2)), sp.Derivative(tail, t)).subs(sp.Derivative(psi, t), tail)
            e = e.subs(sp.Derivative(tail, t), -density).doit()
        return sp.expand(e)

    curvature = with_laws(sp.expand(t**3 * sp.diff(psi / t, t, 2)))
    values = {
        psi: sp.Rational(1, 4),
        tail: sp.Rational(2, 3),
        density: sp.Rational(5, 2),
        t: sp.Rational(1, 3),
        s: 12,
        C: 3,
    }
    outcomes = [identity(side.decider, curvature, points=[values], name="decider - θ³K''")]
    outcomes.append(
        identity(with_laws(sp.diff(curvature, t)), -(t**2 * sp.diff(density, t)), name="D' + θ²f'", points=[])
    )
    shape = t ** (C - 1) * (1 - t) ** (s - C - 1)
    slope = (sp.diff(shape, t) / shape * t * (1 - t), (C - 1) - (s - 2) * t)
    outcomes.append(identity(*slope, name="θ(1-θ)f'/f - (C-1-(s-2)θ)", points=[]))
    # D(0) = 0 term by term (∫F, θF and θ²f vanish for C >= 2); at 1, F = f = 0 for C <= s-2 and ∫_0^1 F = E V = C/s
    top = (2 * psi - 2 * t * tail - t**2 * density).subs({psi: C / s, tail: 0, density: 0})
    outcomes.append(identity(top, 2 * C / s, name="D(1) - 2C/s"))
    return every(outcomes)


def curvature(tokens: int, capacity: int, load: Fraction) -> Fraction:
    """K''(θ), exactly: a Bernstein polynomial's second derivative has the second differences of its coefficients."""
    m = tokens - 1
    f = [min(Fraction(1), Fraction(capacity, k + 1)) for k in range(m + 1)]
    terms = (
        comb(m - 2, k) * load**k * (1 - load) ** (m - 2 - k) * (f[k + 2] - 2 * f[k + 1] + f[k]) for k in range(m - 1)
    )
    return m * (m - 1) * sum(terms, Fraction(0))


@claim.reference("the sign of K'' in exact rationals, 1e-8 of θ* to either side of it; .150482 at s = 128, C = 16")
def sign_of_curvature_at_the_turn(side: SimpleNamespace) -> Outcome:
    for tokens, capacity in ((4, 2), (8, 3), (8, 6), (40, 5), (40, 20), (40, 38), (128, 16)):
        turn = Fraction(side.crossing(tokens, capacity))
        low, high = (curvature(tokens, capacity, turn * (1 + Fraction(e, 10**8))) for e in (-1, 1))
        if not low < 0 < high:
            return fails(
                f"s={tokens}, C={capacity}: K'' is {float(low):.2g}, {float(high):.2g} beside {float(turn):.6f}"
            )
    shown = f"{side.crossing(128, 16):.6f}"
    return holds(f"seven turns; {shown}") if shown == "0.150482" else fails(f"θ* = {shown}")


@claim.reference(
    "the package's beta-binomial law on both sides of the turn; .849603 and .600410 at s = 128, n = 8, κ = 1/17"
)
def package_s_beta_binomial_law(side: SimpleNamespace) -> Outcome:
    checked = 0
    for tokens in (8, 40, 128, 600):
        for capacity in sorted({2, 3, max(2, tokens // 8), tokens // 2, 3 * tokens // 4}):
            turn = side.crossing(tokens, capacity)
            for load, sign in ((turn * 0.97, -1), (turn + 0.03 * (1 - turn), 1)):
                plain = token_choice.success(tokens, capacity, Rates(experts=8, load=load))
                mixed = token_choice.success(
                    tokens, capacity, Rates(experts=8, load=load, counts=dependence.BetaBinomial(1e-5))
                )
                # where success is 1 to rounding the sign cannot be seen
                if abs(mixed - plain) > 1e-13 and np.sign(mixed - plain) != sign:
                    return fails(f"s={tokens}, C={capacity}, π={load:.5f}: success changes by {mixed - plain:.1e}")
                checked += bool(abs(mixed - plain) > 1e-13)
    for capacity, over, alone in ((16, 0.849603, 0.907199), (8, 0.600410, 0.499344)):
        dispersed = token_choice.success(128, capacity, Rates(experts=8, counts=dependence.BetaBinomial(1 / 17)))
        independent = token_choice.success(128, capacity, Rates(experts=8))
        if abs(dispersed - over) > 1e-6 or abs(independent - alone) > 1e-6:
            return fails(f"C={capacity}: {dispersed} and {independent}")
    return holds(f"{checked} signs as stated; θ* = {crossing(128, 16):.6f} at s = 128, C = 16, not 16/128 = .125")


def sample(rng: np.random.Generator, trials: int, *, correlation: float, capacity: int) -> dict[str, int]:
    """Samples with loads of their own and a planted token, through the router."""
    model, done = Dependent(3.0, 16, 8, correlation=correlation), 0
    for start in range(0, trials, 5_000):
        drawn = model.affinity(rng, min(5_000, trials - start), 64)
        routed = token_choice.route(drawn.values, capacity)
        at = routed.sample
        done += int(np.count_nonzero((routed.token == drawn.position[at]) & (routed.expert == drawn.expert[at])))
    return {"success": done}


def law(side: SimpleNamespace, *, correlation: float, capacity: int) -> dict[str, float]:
    kind = dependence.BetaBinomial(correlation if side.dispersed else 0.0)
    rates = Rates(experts=8, hit=signals.hit_rate(3.0, 8), counts=kind)
    return {"success": float(token_choice.success(64, capacity, rates))}


claim.simulate(
    sample,
    cases=[{"correlation": 0.2, "capacity": 10}, {"correlation": 0.2, "capacity": 3}],
    law=law,
    trials=40_000,
)
