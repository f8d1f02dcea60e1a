"""N7. Resonance against expert choice: what the token's own choice can cost, and what it insures against.

h <= q and F falls, so F(h) >= F(q): where the token hits, resonance succeeds whenever expert choice does. Hence
P_RES - P_ECR + P(miss) = E[(1-p)(1-F(q)) + p (F(h)-F(q))] >= 0, with p = P(hit|a). If p(a) never falls with the affinity,
p and F(q(a)) move together and E[p F(q)] >= E[p] E[F(q)] (Chebyshev's association), so P_RES >= p P_ECR class by class; without
monotonicity that fails, and so does p P_ECR over unlike classes together: those that hit may be those that expert choice loses.
And since h <= π always, resonance's failure given a hit is at most exp(-(s-1) KL(C/(s-1) ‖ π)) once
C > π(s-1), however bad the affinity is: it never collapses where expert choice does (q of order 1).
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice, resonance
from resonance_theory.tokens import Rates, samplers


def side(miss: int) -> SimpleNamespace:
    """P_RES >= P_ECR - `miss` P(miss) is claimed."""
    return SimpleNamespace(miss=miss)


claim = Claim(
    title="Resonance loses to expert choice at most the miss rate, and never collapses",
    statement=r"$P_{RES}\geq P_{ECR}-P(\mathrm{miss})$; $P_{RES}\geq\frac1n\sum_ip_iP_{ECR,i}$ if no $P(hit|\delta_o,i)$ falls "
    r"with $\delta_o$ (so $P_{RES}\geq p\,P_{ECR}$ if experts are alike); "
    r"given a hit, failure $\leq e^{-(s-1)KL(\frac{C}{s-1}\Vert\pi)}$ for $C\geq\pi(s-1)$",
    hypotheses=("background tokens independent of each other and of $o$",),
    source="new",
    tag="N7",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="P_RES >= P_ECR, without the miss rate",
    lemmas=("Chebyshev's association inequality", "Chernoff's bound with the KL rate (chernoff_kl)"),
)


@claim.derivation("slack as a sum of products of non-negative factors; association as a double sum")
def slack_sum_products_non_negative(side: SimpleNamespace) -> Outcome:
    p, f, gain = sp.symbols("p f gain", positive=True)  # p hit, f = F(q), gain = F(h) - F(q) >= 0
    slack = p * (f + gain) - f + side.miss * (1 - p)
    w, a, b = (sp.symbols(f"{name}1:4") for name in "wab")
    total = sum(w)
    covariance = total * sum(x * y * z for x, y, z in zip(w, a, b)) - sum(x * y for x, y in zip(w, a)) * sum(
        x * y for x, y in zip(w, b)
    )
    pairs = sum(w[i] * w[j] * (a[i] - a[j]) * (b[i] - b[j]) for i in range(3) for j in range(3)) / 2
    return every(
        [
            identity(slack, (1 - p) * (1 - f) + p * gain, name="slack - [(1-p)(1-F) + p (F(h)-F(q))]"),
            identity(covariance, pairs, name="covariance - ½ΣΣ w w' (a-a')(b-b')"),
        ]
    )


@claim.reference("random joint laws; association; the insurance bound; and a law that breaks it without monotonicity")
def random_joint_laws_association_insurance(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(19)
    for _ in range(400):
        tokens = int(rng.integers(2, 300))
        capacity, pi = int(rng.integers(1, tokens)), float(rng.uniform(0.05, 0.9))
        q = np.sort(rng.random(5))[::-1]  # nodes in order of rising affinity
        h = np.minimum(q, pi) * rng.random(5)
        hit, weight = rng.random(5), rng.dirichlet(np.ones(5))
        res = float(resonance.success(tokens, capacity, Rates(hit=hit, candidate_tail=h, weight=weight)))
        ecr = float(expert_choice.success(tokens, capacity, Rates(false_positive=q, weight=weight)))
        if res < ecr - side.miss * float(weight @ (1 - hit)) - 1e-12:
            return fails(
                f"s={tokens}, C={capacity}: RES {res:.5f}, ECR {ecr:.5f}, miss {float(weight @ (1 - hit)):.5f}"
            )
        rising = np.sort(hit)
        together = float(resonance.success(tokens, capacity, Rates(hit=rising, candidate_tail=h, weight=weight)))
        if together < float(weight @ rising) * ecr - 1e-12:
            return fails("association fails for a rising hit rate")
        if capacity >= pi * (tokens - 1):
            x = min(capacity / (tokens - 1), 1.0)
            exponent = sum(a * np.log(a / b) for a, b in ((x, pi), (1 - x, 1 - pi)) if a > 0)
            worst = float(resonance.failure(tokens, capacity, Rates(hit=1.0, candidate_tail=h)).max())
            if worst > np.exp(-(tokens - 1) * exponent) * (1 + 1e-9) + 1e-300:
                return fails("failure above the insurance bound")
    falling = resonance.success(10, 1, Rates(hit=[1.0, 0.0], candidate_tail=[0.9, 0.001], weight=[0.5, 0.5]))
    other = expert_choice.success(10, 1, Rates(false_positive=[0.9, 0.001], weight=[0.5, 0.5]))
    if not falling < 0.5 * other:
        return fails("the example with a falling hit rate does not break P_RES >= p P_ECR")
    # two classes, each of one affinity: the one that hits is lost to expert choice
    hits = np.array([1.0, 0.2])
    apart = expert_choice.success(10, 1, Rates(false_positive=[0.9, 0.001]))
    both = float(resonance.success(10, 1, Rates(hit=hits, candidate_tail=[0.8, 0.0005])).mean())
    if not float((hits * apart).mean()) <= both < 0.6 * float(apart.mean()):
        return fails(f"unlike classes: resonance {both:.4f}, expert choice {apart}")
    return holds(
        f"400 laws; unlike classes break p P_ECR ({both:.3f} < {0.6 * float(apart.mean()):.3f}); "
        f"so does a falling hit rate ({float(falling):.1e} < {0.5 * float(other):.3f})"
    )


@claim.reference("inclusion on the real router: a hit that expert choice keeps is kept by resonance, 20000 samples")
def inclusion_real_router_hit_expert(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(20)
    scores = rng.integers(0, 5, (20_000, 7, 3)) / 4.0  # many ties
    position, expert = rng.integers(7, size=20_000), rng.integers(3, size=20_000)
    for capacity in (1, 2, 4):
        hit = scores[np.arange(20_000), position].argmax(axis=1) == expert
        by_expert = expert_choice.route(scores, capacity).contains(position, expert)
        both = resonance.route(scores, capacity).contains(position, expert)
        violated = by_expert & ~both & (hit if side.miss else True)
        if violated.any():
            return fails(f"C={capacity}: {int(violated.sum())} samples kept by expert choice alone")
    return holds("no exception at C = 1, 2, 4")


def sample(
    rng: np.random.Generator,
    trials: int,
    *,
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    capacity: int,
    top: int,
) -> dict[str, int]:
    drawn = samplers.planted_affinity(rng, trials, tokens, dim, experts, signal)
    kept = resonance.route(drawn.values, capacity, top=top).contains(drawn.position, drawn.expert)
    return {"success": int(np.count_nonzero(kept))}


def law(
    side: SimpleNamespace, *, tokens: int, dim: int, experts: int, signal: float, capacity: int, top: int
) -> dict[str, float]:
    nodes = Rates.planted(signal, dim, experts, top=top)
    ecr = float(expert_choice.success(tokens, capacity, nodes))
    return {"success": ecr - side.miss * float(nodes.weight @ (1 - nodes.hit))}


claim.simulate(
    sample,
    cases=[
        {"tokens": 24, "dim": 8, "experts": 4, "signal": 1.0, "capacity": 8, "top": 1},
        {"tokens": 24, "dim": 16, "experts": 8, "signal": 1.0, "capacity": 12, "top": 2},
    ],
    law=law,
    relation="at_least",
    trials=40_000,
    full=40_000,
)


def sample_skewed(rng: np.random.Generator, trials: int, *, tokens: int, boost: float, capacity: int) -> dict[str, int]:
    scores, position, expert = _skewed.sample(rng, trials, tokens, boost)
    return {"success": int(np.count_nonzero(resonance.route(scores, capacity).contains(position, expert)))}


def law_skewed(side: SimpleNamespace, *, tokens: int, boost: float, capacity: int) -> dict[str, float]:
    nodes = _skewed.rates(boost)
    ecr = float(expert_choice.success(tokens, capacity, nodes))
    return {"success": ecr - side.miss * float(nodes.weight @ (1 - nodes.hit))}


claim.simulate(
    sample_skewed,
    cases=[{"tokens": 16, "boost": 1.0, "capacity": 6}],
    law=law_skewed,
    relation="at_least",
    trials=40_000,
    full=40_000,
    name="Monte Carlo, experts of unequal loads",
)
