"""N13. Log-normal loads: the dropped share is a call-option price, and one reported drop rate fixes the scale.

X = exp(σZ - σ²/2) has mean 1, X > c where Z > ln c/σ + σ/2 = -d, d = (-σ²/2 - ln c)/σ, and x φ-weights shift Z by σ, so
    E(X - c)_+ = Φ(d + σ) - c Φ(d).
As φ(d + σ) = c φ(d), the derivatives are -Φ(d) = -P(X > c) in c and φ(d + σ) > 0 in σ. With the limits max(0, 1-c) at σ = 0
and 1 at infinity exactly one σ gives a drop between them. Finite counts, N ~ Bin(s, mX/s) with m the mean load: by
capacity_factor_drops and E sqrt(X) = exp(-σ²/8),
    0 <= E(N - cm)_+/m - E(X - c)_+ <= exp(-σ²/8)/(2 sqrt(m)).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import flint
import mpmath
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, positive
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import token_choice
from resonance_theory.tokens import LogNormalLoads

c, sigma = sp.symbols("c sigma", positive=True)


def side(half: int) -> SimpleNamespace:
    """`half`: 1 where X has mean 1, location -σ²/2; 0 where its median is 1, location 0."""

    def price(cdf: Any, log: Any, exp: Any, factor: Any, scale: Any) -> Any:
        below = (-half * scale * scale / 2 - log(factor)) / scale
        return exp((1 - half) * scale * scale / 2) * cdf(below + scale) - factor * cdf(below)

    def ball(factor: flint.arb, scale: flint.arb) -> flint.arb:
        def cdf(x: flint.arb) -> flint.arb:
            return (-x / flint.arb(2).sqrt()).erfc() / 2

        return price(cdf, lambda x: x.log(), lambda x: flint.arb(x).exp(), factor, scale)

    return SimpleNamespace(
        symbolic=price(lambda x: (1 + sp.erf(x / sp.sqrt(2))) / 2, sp.log, sp.exp, c, sigma),
        value=lambda factor, scale: price(mpmath.ncdf, mpmath.log, mpmath.exp, mpmath.mpf(factor), mpmath.mpf(scale)),
        ball=ball,
    )


claim = Claim(
    title="Log-normal loads: the drop rate is a call-option price, fixed by one reported drop rate",
    statement=r"$E(X-c)_+=\Phi(\frac{\sigma^2/2-\ln c}{\sigma})-c\,\Phi(\frac{-\sigma^2/2-\ln c}{\sigma})$, which "
    r"grows in $\sigma$ from $\max\{0,1-c\}$ to 1 at rate $\phi(\frac{\sigma^2/2-\ln c}{\sigma})$: one drop rate fixes "
    r"$\sigma$. A drop of 9.68 % at $c=1$ gives $\sigma=.2432$ and 7.16 % at 1.0625. With $m$ candidates of an expert on "
    r"average the drop rate is higher by at most $\frac{e^{-\sigma^2/8}}{2\sqrt{m}}$, never lower",
    hypotheses=(
        r"an expert's share over the mean share is $X=e^{\sigma Z-\sigma^2/2}$, $Z$ standard normal, $c>0$, $\sigma>0$",
        r"finite counts: $N\sim\mathrm{Bin}(s,mX/s)$ given $X$, $mX\leq s$",
    ),
    source="new; measured: marin-community/marin issue 7279, 9.6786 % dropped at 1.0 and 7.2507 % at 1.0625",
    tag="N13",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="loads of median 1 in place of mean 1",
    lemmas=("capacity_factor_drops",),
)


@claim.derivation("the derivatives in c and in σ, for all c and σ; the value as c goes to 0")
def derivatives(side: SimpleNamespace) -> Outcome:
    d = (-(sigma**2) / 2 - sp.log(c)) / sigma
    cdf = (1 + sp.erf(d / sp.sqrt(2))) / 2
    density = sp.exp(-((d + sigma) ** 2) / 2) / sp.sqrt(2 * sp.pi)
    t = sp.symbols("t", real=True)
    plain = side.symbolic.subs(c, sp.exp(t))

    def same(left: sp.Expr, right: sp.Expr, name: str) -> Outcome:
        sides = (sp.powsimp(sp.expand(sp.expand_log(sp.expand(sp.simplify(e)), force=True))) for e in (left, right))
        return identity(*sides, name=name)

    start = sp.limit(side.symbolic.subs(sigma, sp.Rational(1, 2)), c, 0, "+")
    return every(
        [
            same(sp.diff(plain, t) / sp.exp(t), -cdf.subs(c, sp.exp(t)), "dE(X-c)_+/dc + P(X > c)"),
            same(sp.diff(plain, sigma), density.subs(c, sp.exp(t)), "dE(X-c)_+/dσ - φ"),
            identity(start, 1, name="the value at c = 0, less the mean 1"),
        ]
    )


@claim.certificate("9.68 % at factor 1 and 7.16 % at 1.0625 enclose one scale; on a box the price is above 1 - c and 0")
def one_report_fixes_the_other(side: SimpleNamespace) -> Outcome:
    def between(factor: str, scale: str, low: str, high: str) -> list[Outcome]:
        box = [(factor, factor), (scale, scale)]

        def number(text: str) -> flint.arb:
            return flint.arb(flint.fmpq(*map(int, text.split("/"))))

        return [
            positive(lambda a, b: side.ball(a, b) - number(low), box, name=f"drop({factor}, {scale}) - {low}"),
            positive(lambda a, b: number(high) - side.ball(a, b), box, name=f"{high} - drop({factor}, {scale})"),
        ]

    outcomes = between("1", "2432/10000", "9678/100000", "9680/100000")
    outcomes += between("1", "2433/10000", "9680/100000", "9685/100000")
    for scale in ("2432/10000", "2433/10000"):
        outcomes += between("17/16", scale, "7155/100000", "7175/100000")
    outcomes.append(
        positive(lambda a, b: side.ball(a, b), [("9/10", "3/2"), ("1/4", "3/2")], name="drop for c in [.9, 1.5]")
    )
    return every(outcomes)


@claim.reference("the package to 1e-12, both tails and the inverse, against 50-digit integrals over Z")
def package_against_integrals(side: SimpleNamespace) -> Outcome:
    worst, cases = 0.0, 0
    with mpmath.workdps(60):
        for scale in (0.01, 0.2432, 1.0, 4.0):
            for place in (-6, -1, 0, 0.5, 3, 12):
                factor = float(np.exp(place * min(scale, 1.0)))
                at = mpmath.log(mpmath.mpf(factor)) / mpmath.mpf(scale) + mpmath.mpf(scale) / 2

                def part(z: Any, scale: float = scale, factor: float = factor) -> Any:
                    return (mpmath.exp(scale * z - mpmath.mpf(scale) ** 2 / 2) - factor) * mpmath.npdf(z)

                points = (
                    [at]
                    + [at + mpmath.mpf(k) / 4 for k in range(1, 9)]
                    + [max(at, mpmath.mpf(scale)) + k for k in (3, 6, 10, 20)]
                )
                exact = mpmath.quad(part, sorted(set(points)), maxdegree=8)
                claimed = side.value(factor, scale)
                if abs(claimed / exact - 1) > mpmath.mpf(10) ** -25:
                    return fails(f"c={factor:.4g}, σ={scale}: {mpmath.nstr(exact, 8)}, not {mpmath.nstr(claimed, 8)}")
                ours = float(LogNormalLoads(scale).log_drop(factor))
                worst, cases = max(worst, abs(float(mpmath.expm1(ours - mpmath.log(exact))))), cases + 1
                if factor >= 1:
                    again = float(LogNormalLoads.from_drop(float(exact), factor).sigma)
                    worst = max(worst, abs(again / scale - 1))
    return holds(f"{cases} prices and scales to {worst:.0e}") if worst < 1e-12 else fails(f"off by {worst:.1e}")


@claim.reference("drop rates of finite counts lie between the price and the price plus exp(-σ²/8)/(2 sqrt(m))")
def finite_counts(side: SimpleNamespace) -> Outcome:
    tight = 0.0
    for scale in (0.1, 0.2432, 0.5):
        for tokens in (64, 1024, 65536):
            rates = LogNormalLoads(scale).rates(64, 4, tokens)
            for factor in (1, 1.25, 2):
                capacity = int(factor * tokens * 4 / 64)
                low = float(side.value(factor, scale))
                room = float(np.exp(-(scale**2) / 8) / (2 * np.sqrt(tokens * 4 / 64)))
                found = float(token_choice.drop_rate(tokens, capacity, rates))
                tight = max(tight, (found - low) / room)
                if not low * (1 - 1e-9) <= found <= low + room:
                    return fails(
                        f"σ={scale}, s={tokens}, c={factor}: {found:.6f} outside [{low:.6f}, {low + room:.6f}]"
                    )
    return holds(f"27 settings; at most {tight:.2f} of the room is used")


def sample(rng: np.random.Generator, trials: int, *, scale: float, factor: float) -> dict[str, int]:
    """A token of an expert, which has the load X of its expert weighted by X: is it among the share that is dropped?"""
    load = np.exp(scale * rng.standard_normal(trials) + scale**2 / 2)
    return {"dropped": int(np.count_nonzero(rng.random(trials) * load < load - factor))}


def law(side: SimpleNamespace, *, scale: float, factor: float) -> dict[str, float]:
    return {"dropped": float(side.value(factor, scale))}


claim.simulate(
    sample,
    cases=[{"scale": 0.2432, "factor": 1.0625}, {"scale": 1.5, "factor": 2.0}],
    law=law,
    trials=500_000,
)
