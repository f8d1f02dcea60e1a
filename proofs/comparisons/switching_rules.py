"""N7, N8. Does switching from token choice to expert choice beat plain resonance, and where do the published regimes occur?

ETR Corollary 6 lets token choice serve early training (q of order 1) and expert choice late training (q small). At a fixed
affinity with hit rate p, candidate tail h = ρπ <= q and c = C/s, the fluid limits (corollary_6) leave three bands:

    c < h       TCR p c/π,            ECR 0,  RES 0     token choice best, by p c/π < pρ
    h < c < q   TCR p min(1, c/π),    ECR 0,  RES p     none beats resonance: the early regime needs no switch
    c > q       TCR p min(1, c/π),    ECR 1,  RES p     expert choice best, by the miss rate 1 - p

At every s: P_ECR - P_RES <= P(miss) (resonance_against_expert_choice). And with K = ∫_0^1 F(πu) du, token choice's rate given
a hit (exchangeability_identity), and F falling: K <= ρ + (1-ρ) F(πρ), so P_TCR - P_RES <= E[1_hit ρ (1 - F(h))]. Even a schedule
that always picks the better of the two pure rules gains at most the larger of P(miss) and E[1_hit ρ(1-F)] over plain resonance,
and where ρ given a hit is stochastically at most uniform, at most P(miss) (resonance_beats_token_choice).

Where the early regime occurs. With tokens planted along the gates never: there TCR <= RES <= ECR (planted_optimality). It does
if o lies almost outside the gates' span: o = εw_i + sqrt(1-ε²)v, v orthogonal to all gates, ε -> 0+. It hits its expert surely,
yet q -> 1/2 and, as the coordinates of a uniform direction have fair, independent signs, h -> (1 - 2^-n)/n: nearly the worst
percentile. For n = 8, s = 128, C = 32 token choice has .999997, expert choice 3e-9, and plain resonance .999933: nothing is left
for a switch. Only below C/s = h does token choice win: .833 against .274 at C = 14.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.tokens import Rates, candidates, caps


def side(share: str) -> SimpleNamespace:
    """The gains are claimed to be at most `share` of P(miss) and of E[1_hit ρ(1-F)]."""
    return SimpleNamespace(share=sp.Rational(share), number=float(sp.Rational(share)))


claim = Claim(
    title="Switching between the pure rules gains at most the miss rate or the percentile over plain resonance",
    statement=r"$P_{ECR}-P_{RES}\leq P(\mathrm{miss})$ and $P_{TCR}-P_{RES}\leq E[1_{hit}\,\rho(1-F(h))]$; so the better "
    r"of the two pure rules gains at most the larger of these over resonance. At a fixed affinity and "
    r"$C=cs$, $s\to\infty$, token choice is best for $c<h$, expert choice for $c>q$, and neither beats resonance for $h<c<q$",
    hypotheses=(
        r"background tokens independent of each other and of $o$; no ties; $h=\rho\pi\leq q$",
        r"the bands: one fixed affinity, $c\neq h$, $c\neq q$",
    ),
    source="new; answers ETR Corollary 6 (arXiv 2406.00023)",
    tag="N7, N8",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side("1"),
    mutant=side("1/2"),
    mutation="half of each gain",
    lemmas=("N5 (exchangeability_identity)", "N1 (token_choice_exact)", "fluid limits (corollary_6)"),
)


@claim.derivation("both slacks as sums of products of non-negative factors")
def slacks_sums_products_non_negative(side: SimpleNamespace) -> Outcome:
    # Expert choice: p = 1 - miss, F(q) = 1 - lost, F(h) = F(q) + gain.
    miss, hit, lost, gain = sp.symbols("miss hit lost gain", nonnegative=True)
    slack = hit * (1 - lost + gain) + side.share * miss - (hit + miss) * (1 - lost)
    # Token choice: a falling F is a mixture of a constant and of steps 1{u <= e}; both sides are linear in F. For a step,
    # K = e and F(πρ) = 1{ρ <= e}; the slack is share ρ(1 - F) + F - e.
    edge, past = sp.symbols("edge past", nonnegative=True)
    behind = side.share * (edge + past) - edge  # ρ = edge + past: F = 0
    ahead = sp.Integer(1) - (1 - past)  # ρ <= e = 1 - past: F = 1
    return every(
        [
            nonnegative_polynomial(
                sp.expand(slack), {miss: 0, hit: 0, lost: 0, gain: 0}, name="P_RES + P(miss) - P_ECR"
            ),
            nonnegative_polynomial(sp.expand(behind), {edge: 0, past: 0}, name="a step below the percentile"),
            nonnegative_polynomial(sp.expand(ahead), {past: 0}, name="a step above the percentile"),
        ]
    )


def outside_span(tokens: int, experts: int, capacity: int) -> dict[str, Fraction]:
    """Exact rates of the three rules for o = εw + sqrt(1-ε²)v, ε -> 0+: p = 1, q = 1/2, h = (1 - 2^-n)/n."""

    def below(rate: Fraction, m: int = tokens - 1) -> Fraction:
        # integers over one common denominator: exact and fast
        a, b = rate.numerator, rate.denominator
        return Fraction(sum(comb(m, j) * a**j * (b - a) ** (m - j) for j in range(capacity)), b**m)

    a, m = experts - 1, tokens - 1
    tcr = (
        sum(min(Fraction(1), Fraction(capacity, j + 1)) * comb(m, j) * a ** (m - j) for j in range(tokens))
        / Fraction(experts) ** m
    )
    return {"TCR": tcr, "RES": below((1 - Fraction(1, 2**experts)) / experts), "ECR": below(Fraction(1, 2))}


@claim.reference(
    "o outside the gates' span, exact rationals: the published early regime, and what is left of it to resonance"
)
def o_outside_gates_span_exact(side: SimpleNamespace) -> Outcome:
    lines = []
    for capacity in (14, 32, 72):
        exact = outside_span(128, 8, capacity)
        rho = 1 - Fraction(1, 2**8)
        bound = Fraction(str(side.share)) * rho * (1 - exact["RES"])
        if exact["TCR"] - exact["RES"] > bound:
            return fails(
                f"C={capacity}: token choice gains {float(exact['TCR'] - exact['RES']):.4f} > {float(bound):.4f}"
            )
        if exact["ECR"] > exact["RES"]:  # no miss here
            return fails(f"C={capacity}: expert choice gains without a miss")
        ours = {
            "TCR": float(token_choice.success(128, capacity, Rates(experts=8))),
            "RES": float(resonance.success(128, capacity, Rates(hit=1.0, candidate_tail=255 / 2048))),
            "ECR": float(expert_choice.success(128, capacity, Rates(false_positive=0.5))),
        }
        if any(abs(ours[k] / float(exact[k]) - 1) > 1e-12 for k in ours):
            return fails(f"C={capacity}: the package has {ours}, exactly { ({k: float(v) for k, v in exact.items()}) }")
        lines.append(f"C={capacity}: " + ", ".join(f"{k} {float(v):.6g}" for k, v in exact.items()))
    # the limit of the package's geometry at ε -> 0+ is the orthant count
    geometry = float(candidates.candidate_tail(1e-14, 64, 8)), float(caps.cap(1e-14, 64))
    if abs(geometry[0] - 255 / 2048) > 1e-12 or abs(geometry[1] - 0.5) > 1e-12:
        return fails(f"h, q at ε = 0: {geometry}")
    return holds("; ".join(lines))


@claim.reference("random joint laws within the bounds; the bands at s = 10^8; a class mean at cosine .1")
def random_joint_laws_within_bounds(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(47)
    for _ in range(300):
        tokens, experts = int(rng.integers(2, 2000)), int(rng.integers(2, 20))
        capacity = int(np.clip(tokens / experts * 10 ** rng.uniform(-1, 1), 1, tokens - 1))
        weight, hit, rho = rng.dirichlet(np.ones(4)), rng.random(4), rng.random(4)
        h = rho / experts
        q = h + (1 - h) * rng.random(4) ** 3
        p = float(weight @ hit)
        tcr = float(token_choice.success(tokens, capacity, Rates(experts=experts, hit=p)))
        res = float(resonance.success(tokens, capacity, Rates(hit=hit, candidate_tail=h, weight=weight)))
        ecr = float(expert_choice.success(tokens, capacity, Rates(false_positive=q, weight=weight)))
        lost = resonance.failure(tokens, capacity, Rates(hit=1.0, candidate_tail=h))
        early, late = side.number * float(weight @ (hit * rho * lost)), side.number * (1 - p)
        if tcr - res > early + 1e-12 or ecr - res > late + 1e-12:
            return fails(
                f"s={tokens}, n={experts}, C={capacity}: gains {tcr - res:.4f} > {early:.4f} or {ecr - res:.4f} > {late:.4f}"
            )
    s, n, fixed, level, false = 10**8, 8, 0.9, 0.6, 0.3
    for c, best in ((0.07, "TCR"), (0.2, "RES"), (0.1, "RES"), (0.35, "ECR")):
        capacity = int(c * s)
        rates = {
            "TCR": float(token_choice.success(s, capacity, Rates(experts=n, hit=fixed))),
            "RES": float(resonance.success(s, capacity, Rates(hit=fixed, candidate_tail=level / n))),
            "ECR": float(expert_choice.success(s, capacity, Rates(false_positive=false))),
        }
        if max(rates.values()) > rates[best] + 1e-9:
            return fails(f"c={c}: best is not {best}: {rates}")
    # a class mean at a fixed angle to its gate, cosine .1, once training has made o sure: p = 1, but q of order 1 for ever
    tail, cap = float(candidates.candidate_tail(0.1, 64, 8)), float(caps.cap(0.1, 64))
    for capacity in np.linspace(1.1 * tail, 0.95 * cap, 5) * 16384:
        res = float(resonance.success(16384, int(capacity), Rates(hit=1.0, candidate_tail=tail)))
        tcr = float(token_choice.success(16384, int(capacity), Rates(experts=8)))
        ecr = float(expert_choice.success(16384, int(capacity), Rates(false_positive=cap)))
        if res < max(tcr, ecr) - 1e-9:
            return fails(
                f"cosine .1, C={int(capacity)}: resonance {res:.6f}, token choice {tcr:.6f}, expert choice {ecr:.6f}"
            )
    law = Rates.planted(2.5, 64, 8)
    miss = float(law.weight @ (1 - law.hit))
    res = float(resonance.success(256, 12, law))
    ecr = float(expert_choice.success(256, 12, law))
    return holds(
        f"300 laws; bands as stated, at cosine .1 from {tail:.3f} to {cap:.3f}; "
        f"planted θ=2.5: switching gains {ecr - res:.4f}, the miss rate is {miss:.4f}"
    )


def sample(rng: np.random.Generator, trials: int, *, tokens: int, experts: int, capacity: int) -> dict[str, int]:
    """Isotropic tokens on `experts` + 1 axes; o has affinity 1e-9 with its own gate and 0 with the others."""
    x = rng.standard_normal((trials, tokens, experts + 1))
    scores = x[..., :experts] / np.sqrt((x * x).sum(axis=-1, keepdims=True))
    position, expert = rng.integers(tokens, size=trials), rng.integers(experts, size=trials)
    scores[np.arange(trials), position] = 0.0
    scores[np.arange(trials), position, expert] = 1e-9
    rules = {"TCR": token_choice, "RES": resonance, "ECR": expert_choice}
    kept = {name: rule.route(scores, capacity).contains(position, expert) for name, rule in rules.items()}
    return {name: int(np.count_nonzero(v)) for name, v in kept.items()}


def law(side: SimpleNamespace, *, tokens: int, experts: int, capacity: int) -> dict[str, float]:
    """The exact rates, none above resonance's by more than the gain claimed; there is no miss here."""
    exact = {name: float(rate) for name, rate in outside_span(tokens, experts, capacity).items()}
    most = exact["RES"] + side.number * (1 - 0.5**experts) * (1 - exact["RES"])
    return {name: min(rate, most) for name, rate in exact.items()}


claim.simulate(
    sample,
    cases=[{"tokens": 32, "experts": 4, "capacity": 7}, {"tokens": 32, "experts": 4, "capacity": 12}],
    law=law,
    trials=20_000,
    full=200_000,
)
