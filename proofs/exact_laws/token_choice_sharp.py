"""N2. A sharp two-sided bound of token choice's success rate, from two moments of the C-th candidate's position.

With T the position of the C-th candidate (negative binomial, mean a = C/π, variance v = C(1-π)/π²), P/p = E min(T,s)/s (N1)
and min(T,s) = (T + s - |T-s|)/2. Above, Jensen: E min(T,s) <= min(a,s). Below, E|T-s| <= sqrt(v + (a-s)²).

How sharp: with Δ = |a-s| the relative gap is D = (sqrt(v+Δ²) - Δ)/(2 min(a,s)).
  s >= a: sqrt(v+Δ²) - Δ <= sqrt(v), so D <= sqrt(v)/(2a) = ½ sqrt((1-π)/C).
  C <= s < a: D = v/(2h), h(u) = (a-u)(sqrt(v+u²)+u), u = a-s. h' has the sign of (a-u) - sqrt(v+u²), which changes once
  from + to -: h is least at an end, u = 0 (D as above) or s = C, where sqrt(v+u²) >= u = C(1-π)/π gives D <= 1/(4πC).
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, token_choice

C, a, z, v, u = sp.symbols("C a z v u", positive=True)
pi = sp.symbols("pi", positive=True)


def side(factor: str, half: str) -> SimpleNamespace:
    """`factor` multiplies the variance in the lower bound; `half` is the constant of the relative gap."""
    scale = float(sp.Rational(factor))

    def lower(tokens: np.ndarray, share: np.ndarray, capacity: np.ndarray) -> np.ndarray:
        mean, variance = capacity / share, scale * capacity * (1 - share) / share**2
        return np.maximum((mean + tokens - np.sqrt(variance + (mean - tokens) ** 2)) / (2 * tokens), 0.0)

    return SimpleNamespace(factor=sp.Rational(factor), half=sp.Rational(half), lower=lower)


claim = Claim(
    title="Sharp two-sided bound of token choice's success rate",
    statement=r"$\frac{1}{2s}\{\frac{C}{\pi}+s-\sqrt{\frac{C(1-\pi)}{\pi^2}+(\frac{C}{\pi}-s)^2}\}\leq\frac{P_{TCR}}{p}\leq"
    r"\min\{1,\frac{C}{\pi s}\}$, with lower/upper $\geq 1-\max\{\frac{1}{2}\sqrt{(1-\pi)/C},\frac{1}{4\pi C}\}$",
    hypotheses=(r"$1\leq C\leq s$, $0<\pi\leq 1$",),
    source="new",
    tag="N2",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side("1", "1/2"),
    mutant=side("1/2", "3/10"),
    mutation="half the variance under the root, and 3/10 for 1/2 in the relative gap",
    lemmas=("Jensen's inequality", "E|X| <= sqrt(E X²)"),
    formal=("scalar_lemmas.v: root_of_squares",),
)


@claim.derivation("mean and variance of the C-th candidate's position, from its generating function")
def mean_variance_c_th_candidate(side: SimpleNamespace) -> Outcome:
    generating = (pi * z / (1 - (1 - pi) * z)) ** C
    first = sp.simplify(sp.diff(generating, z).subs(z, 1))
    second = sp.simplify(sp.diff(generating, z, 2).subs(z, 1))
    variance = second + first - first**2
    return every(
        [
            identity(first, C / pi, name="mean - C/π"),
            identity(variance, side.factor * C * (1 - pi) / pi**2, name="variance - C(1-π)/π²"),
        ]
    )


@claim.derivation("relative gap: unimodal between s = C and s = a, and its values at both ends")
def relative_gap_unimodal_between_s(side: SimpleNamespace) -> Outcome:
    root = sp.sqrt(v + u**2)
    h = (a - u) * (root + u)
    variance = side.factor * C * (1 - pi) / pi**2
    return every(
        [
            identity(sp.diff(h, u), (root + u) * ((a - u) / root - 1), name="h' - (root+u)((a-u)/root - 1)"),
            # D(s=a)² = v/(4a²)
            identity(variance / (4 * (C / pi) ** 2), side.half**2 * (1 - pi) / C, name="D² - half²(1-π)/C at s = a"),
            # v/(2 C 2u) with u = C(1-π)/π bounds D at s = C
            identity(variance / (4 * C * C * (1 - pi) / pi), 1 / (4 * pi * C), name="end s = C: v/(4Cu) - 1/(4πC)"),
        ]
    )


@claim.certificate("sqrt(v+Δ²) <= sqrt(v) + Δ, and the gap's constant is not smaller")
def sqrt_v_sqrt_v_gap(side: SimpleNamespace) -> Outcome:
    r, d = sp.symbols("r d", positive=True)  # r = sqrt(v)
    # at Δ = 0 the inequality is an equality: the constant of the gap is half the root's factor, and no less
    attained = side.half**2 >= side.factor / 4
    constant = f"half² is {side.half**2}, factor/4 is {side.factor / 4}"
    return every(
        [
            nonnegative_polynomial((r + d) ** 2 - (r**2 + d**2), {r: 0, d: 0}, name="(sqrt v + Δ)² - (v + Δ²)"),
            holds(constant) if attained else fails(constant),
        ]
    )


@claim.reference("the package's exact law and bounds on 4000 settings, s up to 10^9")
def package_s_exact_law_bounds(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(12)
    experts = np.floor(10 ** rng.uniform(0, 5, 4000)).astype(np.int64)
    capacity = np.floor(10 ** rng.uniform(0, 4, 4000)).astype(np.int64)
    tokens = np.maximum(np.ceil(experts * capacity * 10 ** rng.uniform(-0.7, 0.7, 4000)), capacity).astype(np.int64)
    tokens[::4] = (experts * capacity)[::4]  # the corner s = a, where the gap is widest
    low = side.lower(tokens, 1 / experts, capacity)
    exact = token_choice.success(tokens, capacity, Rates(experts=experts))
    high = np.minimum(1.0, experts * capacity / tokens)
    gap = np.maximum(float(side.half) * np.sqrt((1 - 1 / experts) / capacity), experts / (4 * capacity))
    for bad, what in (
        (low > exact * (1 + 1e-9), "lower bound above the law"),
        (exact > high * (1 + 1e-9), "law above the upper bound"),
        (low < high * (1 - gap) - 1e-9, "gap wider than stated"),
    ):
        if bad.any():
            i = int(np.argmax(bad))
            return fails(
                f"s={tokens[i]}, n={experts[i]}, C={capacity[i]}: {what} ({low[i]:.6f}, {exact[i]:.6f}, {high[i]:.6f})"
            )
    ours = token_choice.bounds(tokens, capacity, Rates(experts=experts))[0]
    if np.abs(ours - low).max() > 1e-12:
        return fails(f"the package's lower bound differs by {np.abs(ours - low).max():.2g}")
    return holds(f"all between the bounds; largest relative gap {np.max(1 - low / high):.4f}")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, experts: float, capacity: int) -> dict[str, int]:
    """Position order: the token at a uniform position has Bin(position, π) rivals before it, π = 1/experts."""
    rivals = rng.binomial(rng.integers(tokens, size=trials), 1 / experts)
    return {"kept": int(np.count_nonzero(rivals < capacity))}


claim.simulate(
    sample,
    cases=[{"tokens": 128, "experts": 8, "capacity": 16}, {"tokens": 400, "experts": 8 / 3, "capacity": 150}],
    law=lambda side, *, tokens, experts, capacity: {
        "kept": float(side.lower(np.float64(tokens), np.float64(1 / experts), np.float64(capacity)))
    },
    relation="at_least",
)
