"""LocMoE eq. 6, ETR locality loss: infinite as printed; with ε off the node it is finite, and how it weighs off-node tokens.

D_l, the fully local distribution, is 0 at every expert off the node, so μ KL(D_c ‖ D_l) is infinite as soon as D_c has mass
there: one token that leaves its node. Let D_l put (1-ε)/m on each of the m local experts and ε/r on each of the r others, and
let a be the local mass of D_c. At a local expert, D_c = a u: a u ln(a u m/(1-ε)) = a u ln(a/(1-ε)) + a u ln(u m). So
    KL(D_c ‖ D_l) = kl(a ‖ 1-ε) + a KL(u ‖ uniform) + (1-a) KL(v ‖ uniform),  kl(a‖b) = a ln(a/b) + (1-a) ln((1-a)/(1-b)).
Hence >= kl(a ‖ 1-ε) >= 0, zero only at D_c = D_l; all-local uniform routing costs ln(1/(1-ε)), not 0; by convexity the greatest
value is at a vertex, ln max(m/(1-ε), r/ε); and as ε -> 0 it grows like (1-a) ln(1/ε). The order matters: the reverse divergence
kl(1-ε ‖ a) is finite for ε -> 0 and infinite where D_c misses a local expert.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from resonance_theory import losses
from resonance_theory.evidence.claims.certify import identity, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

a, u, eps = sp.symbols("a u epsilon", positive=True)
m, r = sp.symbols("m r", positive=True)


def side(term: Callable[..., object], *, spread: bool = True) -> SimpleNamespace:
    """`term(p, q, log)`: one summand of the divergence of D_c = p from D_l = q; `spread`: whether D_l has ε off the node."""
    return SimpleNamespace(term=term, spread=spread)


claim = Claim(
    title="The locality loss is infinite as printed; with ε off the node it splits into local mass and evenness",
    statement=r"$D_l=\frac{1-\varepsilon}{m}$ on $m$ local experts and $\frac{\varepsilon}{r}$ on $r$ others: "
    r"$KL(D_c\Vert D_l)=kl(a\Vert 1-\varepsilon)+a\,KL(u\Vert\frac{1}{m})+(1-a)KL(v\Vert\frac{1}{r})$, "
    r"$0\leq KL\leq \ln\max(\frac{m}{1-\varepsilon},\frac{r}{\varepsilon})$, and $\frac{KL}{\ln(1/\varepsilon)}\to 1-a$ as "
    r"$\varepsilon\to 0$",
    hypotheses=(
        r"$a$: local mass of $D_c$; $u$, $v$: $D_c$ given local, given not local; $m,r\geq 1$",
        r"$0<\varepsilon<1$, stated with every value",
    ),
    source="LocMoE eq. 6 (arXiv 2401.13920); ETR locality loss (arXiv 2406.00023)",
    kind="equality",
    expected=Verdict.CORRECTED,
    studies=("homogenization_training",),
    truth=side(lambda p, q, log: p * log(p / q)),
    mutant=side(lambda p, q, log: q * log(q / p)),
    mutation="D_l first in the divergence",
    printed=side(lambda p, q, log: p * log(p / q), spread=False),
    correction=r"Printed: $\mu KL(D_c\Vert D_l)$ with $D_l$ fully local. It is infinite as soon as one token leaves its node, "
    r"since $D_l=0$ there. With $\varepsilon$ spread over the other experts it is finite, and each off-node token weighs "
    r"$\ln\frac{1}{\varepsilon}$ in the limit.",
    lemmas=("Gibbs' inequality", "a convex function on a simplex is greatest at a vertex"),
)


@claim.derivation("the chain rule term by term, all-local routing, vertices, curvature, and the limit ε -> 0")
def chain_rule_term_term_local(side: SimpleNamespace) -> Outcome:
    local = side.term(a * u, (1 - eps) / m, sp.log)
    other = side.term((1 - a) * u, eps / r, sp.log)
    b = sp.Symbol("b", positive=True)  # 1 - a, as its own positive symbol
    c = sp.Symbol("c", positive=True)  # 1 - ε

    def same(left: sp.Expr, right: sp.Expr, name: str) -> Outcome:
        sides = (side.subs(1 - a, b).subs(1 - eps, c) for side in (left, right))
        return identity(*(sp.expand(sp.expand_log(side, force=True)) for side in sides), name=name)

    coarse = a * sp.log(a / (1 - eps)) + (1 - a) * sp.log((1 - a) / eps)
    fixed = {a: sp.Rational(3, 5)}
    # two experts, one local: the whole divergence as a function of a
    pair = side.term(a, 1 - eps, sp.log) + side.term(1 - a, eps, sp.log)
    return every(
        [
            same(local, a * u * sp.log(a / (1 - eps)) + a * u * sp.log(u * m), "local term"),
            same(other, (1 - a) * u * sp.log((1 - a) / eps) + (1 - a) * u * sp.log(u * r), "other term"),
            identity(sp.diff(coarse, a, 2), 1 / (a * (1 - a)), name="kl'' - 1/(a(1-a))"),
            value(sp.diff(coarse, a), {a: 1 - eps}, 0, name="kl' at a = 1-ε"),
            identity(
                sp.limit(coarse.subs(1 - eps, c), a, 1, "-"), -(sp.log(c)), name="all-local routing - ln(1/(1-ε))"
            ),
            identity(
                sp.limit(pair.subs(fixed) / sp.log(1 / eps), eps, 0, "+"), sp.Rational(2, 5), name="limit - (1-a)"
            ),
        ]
    )


def setting(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    experts = int(rng.integers(2, 12))
    local = np.zeros(experts, dtype=bool)
    local[: rng.integers(1, experts)] = True
    return rng.dirichlet(np.full(experts, 0.7)), local, float(10 ** rng.uniform(-6, -0.4))


@claim.reference("the package against 40-digit sums; the split and the bounds on 300 random distributions")
def package_digit_sums_split_bounds(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(61)
    worst = 0.0
    for _ in range(300):
        current, local, epsilon = setting(rng)
        near, far = int(local.sum()), int((~local).sum())
        value = float(losses.locality(current, losses.local_distribution(local, epsilon=epsilon)))
        with mpmath.workdps(40):
            small = mpmath.mpf(epsilon)
            target = [(1 - small) / near if flag else small / far for flag in local]
            exact = mpmath.fsum(
                side.term(mpmath.mpf(float(p)), q, mpmath.log) for p, q in zip(current, target) if p > 0
            )
        if abs(value - float(exact)) > 1e-12 * max(1.0, abs(value)):
            return fails(f"ε={epsilon:.2g}, {near} of {near + far} local: package {value:.6f}, sum {float(exact):.6f}")
        mass = float(current[local].sum())
        coarse = mass * np.log(mass / (1 - epsilon)) + (1 - mass) * np.log((1 - mass) / epsilon)
        top = np.log(max(near / (1 - epsilon), far / epsilon))
        if not coarse - 1e-9 <= value <= top:
            return fails(f"value {value:.6f} outside [{coarse:.6f}, {top:.6f}]")
        worst = max(worst, abs(value - float(exact)))
    return holds(f"300 distributions, largest difference {worst:.1e}; all within kl(a‖1-ε) and ln max(m/(1-ε), r/ε)")


@claim.counterexample("8 experts, 4 local, one token in 4096 off the node")
def experts_local_one_token_off(side: SimpleNamespace) -> Outcome:
    current = np.array([1024, 1024, 1024, 1023, 1, 0, 0, 0]) / 4096
    local = np.arange(8) < 4
    target = losses.local_distribution(local, epsilon=0.01) if side.spread else np.where(local, 0.25, 0.0)
    try:
        value = float(losses.locality(current, target))
    except ValueError as refusal:
        return fails(f"the divergence is infinite: {refusal}")
    return holds(f"ε = .01: {value:.5f} nats")
