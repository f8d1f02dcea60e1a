"""H4. Simplex gates route like orthogonal ones with a larger winning projection, the largest possible for n = 2 and 3.

v_i = (w_i - w̄)/sqrt(1-1/n) are unit vectors with inner products -1/(n-1). <v_i,x> is the same increasing function of
<w_i,x> for every i, so the order of the experts is the same; and as E <w̄,x> = 0, E max <v_i,x> = e_n/sqrt(1-1/n).

Optimal for n = 3 (and 2): the largest minus the smallest of three numbers is half the sum of their |differences|, and by
x -> -x its mean is 2 E max, so E max = Σ_{i<j} E|<w_i-w_j,x>|/4 = Σ_{i<j} |w_i-w_j| sqrt(2/π)/4. By Cauchy-Schwarz and
Σ_{i<j} |w_i-w_j|² = n² - |Σ w_i|² <= n² the sum is at most 3 sqrt 3, the simplex's. For n = 4 the same is
the four-dimensional Gaussian maximum theorem (arXiv 2008.04827); beyond, it is the simplex mean width conjecture
(simplex_conjecture).
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs._isotropic import chunks, coin
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import token_choice

n, g, m = sp.symbols("n g m", positive=True)


def side(shrink: sp.Expr) -> SimpleNamespace:
    """`shrink`: the squared length of w_i - w̄."""
    return SimpleNamespace(shrink=shrink)


claim = Claim(
    title="Simplex gates: the same routing, a winning projection larger by sqrt(n/(n-1)), optimal for n = 2, 3, 4",
    statement=r"$v_i=\frac{w_i-\bar w}{\sqrt{1-1/n}}$ have $|v_i|=1$, $\langle v_i,v_j\rangle=-\frac{1}{n-1}$, the same "
    r"$\mathrm{argmax}$, and $E\max_i\langle v_i,x\rangle=e_n\sqrt{\frac{n}{n-1}}$; for $n=2,3$, and "
    r"by a cited theorem for $n=4$, no unit gates exceed it",
    hypotheses=(r"$x\sim N(0,I_d)$, orthonormal gates $w_i$, $2\leq n\leq d$",),
    source="new",
    tag="H4",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1 - 1 / n),
    mutant=side(1 - 1 / n**2),
    mutation="gates scaled by sqrt(1-1/n²)",
    lemmas=(
        "n = 4: among centred normal vectors of unit variances E max is greatest at the correlations -1/3 (arXiv 2008.04827)",
    ),
)


@claim.derivation("length, inner product and order of the simplex gates; the bound for two and three gates")
def length_inner_product_order_simplex(side: SimpleNamespace) -> Outcome:
    length = ((1 - 1 / n) ** 2 + (n - 1) / n**2) / side.shrink
    inner = (2 * (1 - 1 / n) * (-1 / n) + (n - 2) / n**2) / side.shrink
    outcomes = [
        identity(length, 1, name="|v_i|² - 1"),
        identity(inner, -(1 / (n - 1)), name="<v_i,v_j> + 1/(n-1)"),
        # the projection on v_i as a function of g = <w_i,x>, given the mean m of all: slope free of i and positive
        identity(sp.diff((g - m) / sp.sqrt(side.shrink), g) ** 2, n / (n - 1), name="slope² - n/(n-1)"),
    ]
    # Σ_{i<j} |w_i-w_j|² = n² - |Σ w_i|² for unit vectors in terms of their inner products
    for count in (2, 3):
        pairs = [(i, j) for i in range(count) for j in range(i)]
        inner_products = {pair: sp.Symbol(f"c{pair[0]}{pair[1]}") for pair in pairs}
        squares = sum(2 - 2 * c for c in inner_products.values())
        norm = count + 2 * sum(inner_products.values())
        # Cauchy-Schwarz: (Σ|w_i-w_j|)² <= pairs · Σ|w_i-w_j|² <= pairs n², attained by the simplex with its equal sides
        edge = 2 + sp.Rational(2, count - 1)
        outcomes.append(identity(squares - count**2, -(norm), name=f"Σ|w_i-w_j|² - n² + |Σw|², n={count}"))
        outcomes.append(identity(len(pairs) * count**2, len(pairs) ** 2 * edge, name=f"the simplex attains n={count}"))
    return every(outcomes)


@claim.certificate("ranges: max - min of three numbers is half the sum of the |differences|")
def ranges_max_min_three_numbers(side: SimpleNamespace) -> Outcome:
    # numbers 0 <= p <= p + q in order: range p + q, differences p, q, p + q; the side enters with its own length of v_i
    p, q = sp.symbols("p q")
    unit = sp.simplify((1 - 1 / n) / side.shrink).subs(n, 3)
    slack = unit * (p + (p + q) + q) / 2 - (p + q)
    return every(
        [
            nonnegative_polynomial(slack, {p: 0, q: 0}, name="half the differences - range"),
            nonnegative_polynomial(-slack, {p: 0, q: 0}, name="range - half the differences"),
        ]
    )


@claim.reference("the library's router on both kinds of gates; E max for n = 3 by its formula; random triples")
def library_s_router_kinds_gates(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(8)
    for count, dim in ((2, 5), (3, 3), (8, 20)):
        w = np.linalg.qr(rng.standard_normal((dim, dim)))[0][:count]
        x = rng.standard_normal((500, dim))
        v = (w - w.mean(axis=0)) / math.sqrt(float(side.shrink.subs(n, count)))
        if np.abs(np.linalg.norm(v, axis=1) - 1).max() > 1e-12:
            return fails(f"n={count}: gates of length {np.linalg.norm(v[0]):.4f}")
        a, b = (token_choice.route(x @ gates.T, 500) for gates in (w, v))
        if not (np.array_equal(a.token, b.token) and np.array_equal(a.expert, b.expert)):
            return fails(f"n={count}: the routes differ")
    gates = rng.standard_normal((100_000, 3, 3))
    gates /= np.linalg.norm(gates, axis=-1, keepdims=True)
    edges = sum(np.linalg.norm(gates[:, i] - gates[:, j], axis=-1) for i, j in ((0, 1), (0, 2), (1, 2)))
    best = float(homogenization.expected_max(3)) / math.sqrt(float(side.shrink.subs(n, 3)))
    value = edges.max() * math.sqrt(2 / math.pi) / 4
    if value > best:
        return fails(f"three gates of E max {value:.6f} > {best:.6f}")
    formula = 3 * math.sqrt(3) * math.sqrt(2 / math.pi) / 4
    if abs(formula / best - 1) > 1e-12:
        return fails(f"n=3: {best} claimed, {formula} by the edges")
    return holds(f"same routes; the best of 100000 triples has {value / best:.5f} of the simplex's E max")


def sample(rng: np.random.Generator, trials: int, *, experts: int) -> dict[str, int]:
    """Coins of the winning projection on simplex gates, over 8 and clipped (P(a normal beyond 8) < 1.3e-15)."""
    gates = np.eye(experts) - 1 / experts
    gates /= np.linalg.norm(gates, axis=1, keepdims=True)
    return {
        "winning": sum(
            coin(rng, np.clip((rng.standard_normal((count, experts)) @ gates).max(axis=1) / 8, -1, 1))
            for count in chunks(trials)
        )
    }


def law(side: SimpleNamespace, *, experts: int) -> dict[str, float]:
    return {
        "winning": (1 + float(homogenization.expected_max(experts)) / 8 / math.sqrt(side.shrink.subs(n, experts))) / 2
    }


claim.simulate(sample, cases=[{"experts": 2}, {"experts": 3}, {"experts": 8}], law=law, trials=1_000_000)
