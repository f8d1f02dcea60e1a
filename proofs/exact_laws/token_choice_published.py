"""ETR Theorem 5, eq. 11, in its proof: is token choice's success rate between C Σp/(5s) and 10 C Σp/s from C = 48 on?

The theorem prints Θ(C Σp/s) for a fixed number of experts, and that is true: C <= s, so min(1, nC/s) is between C/s and nC/s. The
constants 1/5 and 10 stand in the appendix, which asks for C >= 48. That is not enough. Since P_TCR = p E min(N_s, C) n/s with
N_s ~ Bin(s, 1/n) (N1), the printed lower bound p nC/(5s) says exactly

    E min(N_s, C) >= C/5:  the expert's kept tokens fill a fifth of its capacity on average.

The left side grows with s, so for every (n, C) it holds from some s on and fails before. It needs E N_s = s/n >= C/5, so
it fails whenever nC > 5s, where the printed bound exceeds 1. It holds whenever s >= nC ln(5/4) = .2231.. nC, for all n, C:
  1. min(., C) is concave, so a Bernoulli variable may be replaced by a Poisson one of the same mean, lowering the mean of
     min: f(k) <= f(0) + k (f(1) - f(0)). Hence E min(N_s, C) >= E min(Poi(s/n), C).
  2. Poi(cC) is a sum of C copies of Poi(c), and min(Σ x_j, C) >= Σ min(x_j, 1): E min(Poi(cC), C) >= C (1 - exp(-c)).
  3. 1 - exp(-c) >= 1/5 exactly from c = ln(5/4) on.
At nC = 5s it says E (N_s - C)_+ <= 0: true only if s <= C, that is at s = C and n = 5. For n <= 5 it is always true, since
the left side is already C/n >= C/5 at s = C, the least s allowed.
Above s = nC/5 there is an exceptional strip, where E (N_s - C)_+ > s/n - C/5. It is exponentially thin: with ρ = exp(4/5)/5 =
.4451.., the bound holds from s/n = C/5 + ε, ε = (3/10) ρ^C, on:
  4. y_+ <= 5^y/(e ln 5) (as z exp(-z) <= 1/e), so E (X - C)_+ <= 5^-C E 5^X/(e ln 5) = ρ^C exp(4ε)/(e ln 5) for X = Poi(C/5 + ε).
     For C >= 2 this is at most ε because exp(4 (3/10) ρ²) <= (3/10) e ln 5; C = 1 is case 3, as ln(5/4) <= 1/5 + (3/10) ρ.
So nC < 5s is enough while n <= (2/3) ρ^-C (5s >= nC + 1): up to n = 5e16 at C = 48. It is not enough for every n: as n grows,
E (N_s - C)_+ at s = (nC+1)/5 tends to a positive number and s/n - C/5 = 1/(5n) to 0. Example: C = 48, n = 10^25 + 3.

What is true for every n, s and C: (1 - 1/e) min(1, nC/s) <= P_TCR/p <= min(1, nC/s). The upper bound is Jensen's. For the
lower one, m(λ) = E min(Poi(λ), C) is concave in λ (m' = P(Poi(λ) <= C-1) falls), so m(λ)/λ falls and m rises: for λ <= C,
m(λ)/λ >= m(C)/C; for λ >= C, m(λ) >= m(C); and m(C) >= C (1 - 1/e) by 2. Both constants are sharp (C = 1, s = n large). Nothing
here asks for π = 1/n: with 1/π in place of n these two bounds hold for Top-ℓ and for any unequal loads.
"""

from __future__ import annotations

import math
from fractions import Fraction
from math import comb
from types import SimpleNamespace

import flint
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds, undecided
from resonance_theory.rules import Rates, token_choice

lam = sp.symbols("lambda", positive=True)
k = sp.symbols("k", integer=True, positive=True)


RHO = sp.exp(sp.Rational(4, 5)) / 5


def side(constant: sp.Expr, threshold: sp.Expr, strip: sp.Expr) -> SimpleNamespace:
    """`constant` of the lower bound; the printed one is claimed from s/n = C threshold and from C/5 + strip ρ^C on."""
    c = float(constant)
    return SimpleNamespace(constant=constant, threshold=threshold, strip=strip, lower=lambda share: c * min(1.0, share))


claim = Claim(
    title="The printed bounds of token choice's success rate, where they hold, and constants that always do",
    statement=r"$(1-\frac{1}{e})\min\{1,\frac{nC}{s}\}\leq\frac{P_{TCR}}{p}\leq\min\{1,\frac{nC}{s}\}$; the printed lower bound "
    r"$\frac{C\sum p_i}{5s}$ holds if and only if $E\min(N_s,C)\geq C/5$: never if $nC>5s$; if $nC=5s$ only at "
    r"$s=C$; always if $n\leq 5$, if $s\geq nC\ln\frac{5}{4}$, or if "
    r"$s\geq n\{\frac{C}{5}+\frac{3}{10}\rho^C\}$ with $\rho=e^{4/5}/5$",
    hypotheses=(
        r"$s,n,C\geq 1$ integers, $C\leq s$, Top-1, uniform loads, $N_s\sim\mathrm{Bin}(s,1/n)$",
        r"the bounds with $1-\frac{1}{e}$ and $1$: for any load $\pi$ (Top-$l$, unequal loads), $\frac{1}{\pi}$ in place of $n$",
    ),
    source="ETR Theorem 5, eq. 11, and its proof (arXiv 2406.00023)",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=side(1 - sp.exp(-1), sp.log(sp.Rational(5, 4)), sp.Rational(3, 10)),
    mutant=side(sp.Rational(16, 25), sp.Rational(11, 50), sp.Rational(1, 25)),
    mutation="constant .64 for 1 - 1/e, threshold .22 for ln(5/4), and strip 1/25 for 3/10",
    printed=SimpleNamespace(lower=lambda share: share / 5),
    correction=r"The proof in the appendix prints $P_{TCR}\geq C\sum p_i/(5s)$ for $C\geq 48$. At $s=100$, $n=8$, $C=90$ that is "
    r"$1.44\,p$, more than the hit rate. It holds exactly where $E\min(N_s,C)\geq C/5$, which $C\geq 48$ and $nC<5s$ do not "
    r"imply ($C=48$, $n=10^{25}+3$), unless $n\leq\frac{2}{3}\rho^{-C}$. The theorem itself, $\Theta(C\sum p_i/s)$ for a "
    r"fixed number of experts, is true. For every $s,n,C$ the success rate lies between "
    r"$(1-1/e)$ and $1$ times $p\min(1,nC/s)$, in place of $1/5$ and $10$.",
    lemmas=("Jensen's inequality", "convex order: Bernoulli below Poisson of the same mean"),
    formal=(
        "scalar_lemmas.v: threshold",
        "scalar_lemmas.v: strip_one",
        "numeric_lemmas.v: strip_many",
        "scalar_lemmas.v: largest_value_of_z_exp",
    ),
)


@claim.derivation("unit pieces: E min(Poi(c),1) = 1 - exp(-c), at c = 1 and at the printed bound's threshold")
def unit_pieces_e_min_poi(side: SimpleNamespace) -> Outcome:
    unit = sp.summation(lam**k * sp.exp(-lam) / sp.factorial(k), (k, 1, sp.oo))  # min(k, 1) = 1 for k >= 1
    return every(
        [
            identity(unit, 1 - sp.exp(-lam), name="E min(Poi(λ),1) - (1 - exp(-λ))"),
            identity(unit.subs(lam, 1), side.constant, name="E min(Poi(1),1) - constant"),
            identity(sp.simplify(unit.subs(lam, side.threshold)), sp.Rational(1, 5), name="1 - exp(-threshold) - 1/5"),
        ]
    )


@claim.derivation("m(λ) = E min(Poi(λ),C) is concave, and the bound at λ = C carries over to every λ")
def m_e_min_poi_c(side: SimpleNamespace) -> Outcome:
    def mass(j: sp.Expr) -> sp.Expr:
        return lam**j * sp.exp(-lam) / sp.factorial(j)

    # d/dλ b(k) = b(k-1) - b(k), so Q_j = P(Poi(λ) <= j) has slope -b(j). With m = λ Q_{C-2} + C (1 - Q_{C-1}), from
    # k b(k) = λ b(k-1): m' = Q_{C-2} - λ b(C-2) + C b(C-1), which is Q_{C-2} + b(C-1) = P(Poi <= C-1) in [0, 1]: m rises,
    # and m'' = -b(C-1) < 0: m is concave. Below, k stands for C.
    slope = (sp.diff(mass(k), lam), mass(k - 1) - mass(k))
    rise = (-lam * mass(k - 2) + k * mass(k - 1), mass(k - 1))
    # smallest ratio over C and λ is at C = 1, λ = 1: m(1) with C = 1 is the claimed constant
    return every(
        [
            identity(*slope, unit=mass(k), name="d/dλ b(k) - b(k-1) + b(k)"),
            identity(*rise, unit=mass(k), name="m' - P(Poi(λ) <= C-1)"),
            identity((1 - mass(sp.Integer(0))).subs(lam, 1), side.constant, name="m(1) at C = 1 minus the constant"),
        ]
    )


@claim.certificate("the exceptional strip: E (X - C)_+ <= ε for X = Poi(C/5 + ε), ε = strip ρ^C, all C >= 1")
def exceptional_strip_e_x_c(side: SimpleNamespace) -> Outcome:
    strip = flint.arb(int(side.strip.p)) / int(side.strip.q)
    rho = (flint.arb(4) / 5).exp() / 5

    def compare(slack: flint.arb, name: str) -> Outcome:
        text = f"{name}: slack {float(slack.mid()):.5f}"
        return holds(text) if slack >= 0 else fails(text) if slack < 0 else undecided(text)

    # 4 above: ρ^C exp(4ε)/(e ln 5) <= ε = strip ρ^C, and ε <= strip ρ² for C >= 2.
    many = strip * flint.arb(1).exp() * flint.arb(5).log() - (4 * strip * rho**2).exp()
    # C = 1, exactly: E min(Poi(λ), 1) = 1 - exp(-λ) >= 1/5 at λ = 1/5 + strip ρ.
    one = flint.arb(4) / 5 - (-(flint.arb(1) / 5 + strip * rho)).exp()
    # the mgf of Poi(λ) at 5, and the largest value of z exp(-z)
    z = sp.symbols("z", positive=True)
    generating = sp.summation(5**k * lam**k * sp.exp(-lam) / sp.factorial(k), (k, 1, sp.oo)) + sp.exp(-lam)
    return every(
        [
            compare(one, "C = 1"),
            compare(many, "C >= 2"),
            identity(generating, sp.exp(4 * lam), name="E 5^Poi(λ) - exp(4λ)"),
            identity(sp.exp(4 * k / 5) * 5**-k, RHO**k, name="5^-C exp(4C/5) - ρ^C"),
            identity(sp.diff(z * sp.exp(-z), z), (1 - z) * sp.exp(-z), name="slope of z exp(-z) - (1-z) exp(-z)"),
        ]
    )


def fraction_kept(tokens: int, experts: int, capacity: int) -> Fraction:
    """P_TCR/p = E min(N_s, C) n/s in exact rationals, from the complement below C."""
    p = Fraction(1, experts)
    short = sum(
        ((capacity - j) * comb(tokens, j) * p**j * (1 - p) ** (tokens - j) for j in range(capacity)), Fraction(0)
    )  # E (C - N)_+
    return (capacity - short) * experts / tokens


@claim.counterexample("C >= 48: s=100, n=8, C=90; and s=96, n=64, C=48")
def s_n_c_s_n(side: SimpleNamespace) -> Outcome:
    for tokens, experts, capacity in ((100, 8, 90), (96, 64, 48)):
        exact = float(fraction_kept(tokens, experts, capacity))
        lower = side.lower(experts * capacity / tokens)
        if lower > exact:
            return fails(f"s={tokens}, n={experts}, C={capacity}: claims {lower:.4f} p, the truth is {exact:.4f} p")
    return holds("no violation at these settings")


@claim.counterexample("C = 48: the strip is thin but not empty (n = 10^25 + 3, 5s = nC + 1)")
def c_strip_thin_but_not(side: SimpleNamespace) -> Outcome:
    saved, flint.ctx.dps = flint.ctx.dps, 80
    try:
        capacity, experts = 48, 10**25 + 3
        tokens = (capacity * experts + 1) // 5
        assert 5 * tokens == capacity * experts + 1
        # E min(N, C) <= s/n - P(N = C+1), and P(N = C+1) as a product of ratios
        p = flint.arb(1) / experts
        above = (1 - p) ** (tokens - capacity - 1)
        for j in range(capacity + 1):
            above *= (tokens - j) * p / (j + 1)
        kept = (flint.arb(tokens) / experts - above) * experts / tokens
        share = flint.arb(experts) * capacity / tokens
        claimed = side.lower(share)
        if claimed > kept:
            return fails(f"the lower bound exceeds the truth by {float((claimed - kept).mid()):.2g} p, though nC < 5s")
        return holds("no violation at this setting")
    finally:
        flint.ctx.dps = saved


@claim.reference("the printed bound's region in exact rationals, n <= 60 and C <= 8, and the strip at n = 10^6")
def printed_bound_s_region_exact(side: SimpleNamespace) -> Outcome:
    ratio, strip = float(RHO), float(side.strip)

    def holds_at(tokens: int, experts: int, capacity: int) -> bool:
        return fraction_kept(tokens, experts, capacity) >= Fraction(experts * capacity, 5 * tokens)

    count = 0
    for experts in (1, 2, 5, 6, 7, 10, 23, 60):
        for capacity in range(1, 9):
            from_strip = math.ceil(experts * (capacity / 5 + strip * ratio**capacity))
            from_log = math.ceil(experts * capacity * float(side.threshold))
            for tokens in range(capacity, max(from_strip, from_log) + 3):
                true = holds_at(tokens, experts, capacity)
                never = experts * capacity > 5 * tokens or (experts * capacity == 5 * tokens and tokens > capacity)
                always = experts <= 5 or tokens >= min(from_strip, from_log)
                always |= experts * capacity < 5 * tokens and 3 * experts <= 2 * ratio**-capacity
                count += never or always
                if (never and true) or (always and not true):
                    return fails(
                        f"s={tokens}, n={experts}, C={capacity}: the printed bound is {str(true).lower()} there"
                    )
    experts = 10**6
    for capacity in (1, 2, 3):
        tokens = math.ceil(experts * (capacity / 5 + strip * ratio**capacity))
        if not float(token_choice.kept(tokens, capacity, Rates(experts=experts))) >= capacity / 5:
            return fails(f"s={tokens}, n={experts}, C={capacity}: the strip is wider than claimed")
        count += 1
    return holds(f"{count} settings inside the claimed parts of the region, each decided as claimed")


@claim.reference("the package's exact law inside the bounds, and the printed bound at its threshold, 4000 settings")
def package_s_exact_law_inside(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(11)
    count = 4000
    experts = np.concatenate([[10**6], np.floor(10 ** rng.uniform(0, 6, count - 1))]).astype(np.int64)
    capacity = np.concatenate([[1], np.floor(10 ** rng.uniform(0, 4, count - 1))]).astype(np.int64)
    tokens = np.ceil(experts * capacity * 10 ** rng.uniform(-1.5, 1.5, count)).astype(np.int64)
    tokens[0] = 10**6  # C = 1, s = n: the worst case of the lower bound
    tokens = np.maximum(tokens, capacity)
    share = experts * capacity / tokens
    value = token_choice.success(tokens, capacity, Rates(experts=experts))
    low = np.array([side.lower(v) for v in share])
    bad = (value < low * (1 - 1e-12)) | (value > np.minimum(1, share) * (1 + 1e-12))
    if bad.any():
        i = int(np.argmax(bad))
        return fails(
            f"s={tokens[i]}, n={experts[i]}, C={capacity[i]}: {value[i]:.6f} not in [{low[i]:.6f}, {min(1, share[i]):.6f}]"
        )
    load = 10 ** rng.uniform(-5, 0, count)  # Top-ℓ and experts of loads of their own
    load[0], tokens[0] = 1e-5, 10**5
    share = capacity / (load * tokens)
    value = token_choice.success(tokens, capacity, Rates(experts=2, load=load))
    low = np.array([side.lower(v) for v in share])
    bad = (value < low * (1 - 1e-12)) | (value > np.minimum(1, share) * (1 + 1e-12))
    if bad.any():
        i = int(np.argmax(bad))
        return fails(f"s={tokens[i]}, π={load[i]:.3g}, C={capacity[i]}: {value[i]:.6f}, bound {low[i]:.6f}")
    at = np.maximum(np.ceil(float(side.threshold) * experts * capacity).astype(np.int64), capacity)
    filled = token_choice.kept(at, capacity, Rates(experts=experts)) / capacity
    if np.any(filled < 0.2 * (1 - 1e-12)):
        return fails(f"at the threshold the capacity is filled only to {filled.min():.6f}")
    return holds(
        f"least ratio to the upper bound {np.min(value / np.minimum(1, share)):.6f}, least filling {filled.min():.6f}"
    )


def sample(rng: np.random.Generator, trials: int, *, tokens: int, experts: int) -> dict[str, int]:
    """Capacity 1: the token at a random position is kept if none before it chose its expert."""
    rivals = rng.integers(experts, size=(trials, tokens)) == 0
    position = rng.integers(tokens, size=trials)
    before = np.where(np.arange(tokens) < position[:, None], rivals, False).any(axis=1)
    return {"kept": int(np.count_nonzero(~before))}


claim.simulate(
    sample,
    cases=[{"tokens": 40, "experts": 40}],
    law=lambda side, *, tokens, experts: {"kept": side.lower(experts / tokens)},
    relation="at_least",
    trials=2_000_000,
    full=20_000_000,
)
