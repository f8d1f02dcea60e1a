"""N8. Which tokens an expert should keep: the C of largest likelihood ratio, and no rule of any kind does better.

Given the class i, a sample x with the discriminative token at k has likelihood (1/s) f_o(x_k) Π_{t≠k} f_r(x_t). A rule, of
whatever knowledge of the sample and with whatever randomness, keeps token k with probability φ_k(x), Σ_k φ_k <= C, so its
success is (1/s) E_r Σ_k φ_k(x) Λ(x_k), Λ = f_o/f_r: linear in φ, sample by sample. Rank Λ_1 >= ... >= Λ_s and let λ = Λ_C >= 0:

    Σ_{k<=C} Λ_k - Σ_k φ_k Λ_k = Σ_{k<=C} (1-φ_k)(Λ_k - λ) + Σ_{k>C} φ_k (λ - Λ_k) + λ (C - Σ φ_k) >= 0.

The same with Λ_k set to 0 for tokens that are no candidates of i: among rules that keep only candidates, the C candidates of
largest Λ are best. (Where f_r = 0 the likelihood itself takes the part of Λ.) Experts decide apart: success with class i
depends on expert i's choice alone.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice

# symbol -> chance under the discriminative and under the background law, in sixteenths: ratio, likelihood and difference
# (the last one) rank apart
MODELS = (((8, 7, 1), (12, 3, 1)), ((9, 7), (13, 3)), ((0, 10, 6), (4, 12, 0)), ((8, 3, 5), (6, 2, 8)))


def side(score) -> SimpleNamespace:
    """Keep the C tokens of largest `score(f_o, f_r)`."""

    def order(f_o, f_r, sample) -> list[int]:
        return sorted(range(len(sample)), key=lambda k: -score(f_o[sample[k]], f_r[sample[k]]))

    return SimpleNamespace(score=score, order=order)


claim = Claim(
    title="Keeping the C tokens of largest likelihood ratio is optimal over all rules",
    statement=r"with $\Lambda_i=dP_{o,i}/dP_r$, keeping the $C$ tokens of largest $\Lambda_i$ maximises the success rate over "
    r"all rules, random or not, that keep at most $C$ tokens per expert; keeping the $C$ candidates of largest $\Lambda_i$ "
    r"maximises it over all such rules that keep only a token's Top-$l$ candidates",
    hypotheses=(
        "background tokens i.i.d. and independent of the discriminative one; its position uniform",
        "a rule may use the whole sample, all affinities, positions and its own randomness",
    ),
    source="new; after Neyman and Pearson (1933)",
    tag="N8",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(lambda o, r: Fraction(o, r) if r else Fraction(10**9)),
    mutant=side(lambda o, r: Fraction(o)),
    mutation="the C tokens likeliest under the discriminative law, without dividing by the background's",
)


@claim.derivation("exchange: each token's share of the gap, and the shares' signs in the order of the score")
def exchange_token_s_share_gap(side: SimpleNamespace) -> Outcome:
    ratio, phi, level = sp.symbols("Lambda phi lambda", nonnegative=True)
    inside = (ratio - phi * ratio, (1 - phi) * (ratio - level) + level * (1 - phi))
    outside = (-phi * ratio, phi * (level - ratio) - level * phi)
    outcomes = [
        identity(*inside, name="kept token: share - [(1-φ)(Λ-λ) + λ(1-φ)]"),
        identity(*outside, name="other token: share - [φ(λ-Λ) - λφ]"),
    ]  # and Σ_{k<=C} λ(1-φ_k) - Σ_{k>C} λφ_k = λ(C - Σφ_k) for every s and C
    # Λ - λ >= 0 for the kept and λ - Λ >= 0 for the others, if the score ranks as Λ does: for every pair of symbols
    symbols = [(o, r) for o in range(17) for r in range(17) if o or r]
    symbols += [(k + e, k) for k in (10**3, 10**6) for e in (-1, 1)]  # ratios near that of (1, 1), far larger chances
    scores = [side.score(*symbol) for symbol in symbols]
    for ((o, r), score), ((x, y), other) in combinations(zip(symbols, scores), 2):
        ratio_order = (o * y > x * r) - (o * y < x * r)  # cross-multiplied
        if ratio_order and ratio_order != (score > other) - (score < other):
            return fails(f"{o} against {r} and {x} against {y}: the score does not rank as the ratio does")
    return every([*outcomes, holds("score and ratio rank alike for all pairs of 292 symbols")])


def likelihood(f_o, f_r, sample, k: int) -> int:
    """Chance, in sixteenths to the power s, of the sample when the discriminative token stands at k."""
    value = 1
    for t, symbol in enumerate(sample):
        value *= f_o[symbol] if t == k else f_r[symbol]
    return value


@claim.reference(
    "every deterministic rule of small models enumerated, up to 65536; a random rule is a mixture of these"
)
def deterministic_rule_enumerated_them_random(side: SimpleNamespace) -> Outcome:
    lines = []
    for (f_o, f_r), s, capacity in (
        (MODELS[1], 3, 1),
        (MODELS[0], 2, 1),
        (MODELS[2], 2, 1),
        (MODELS[3], 2, 1),
        (MODELS[1], 3, 2),
    ):
        samples = list(product(range(len(f_o)), repeat=s))
        subsets = [c for size in range(capacity + 1) for c in combinations(range(s), size)]
        if len(subsets) ** len(samples) > 10**6:  # capacity 2: full sets only, a smaller one never gains
            subsets = list(combinations(range(s), capacity))
        gain = np.array([[sum(likelihood(f_o, f_r, x, k) for k in c) for c in subsets] for x in samples])
        # a rule picks one subset for each sample: all rules at once, as an outer sum over the samples
        rules = np.zeros(1, dtype=np.int64)
        for row in gain:
            rules = (rules[:, None] + row[None, :]).reshape(-1)
        ours = sum(sum(likelihood(f_o, f_r, x, k) for k in side.order(f_o, f_r, x)[:capacity]) for x in samples)
        if ours != rules.max():  # more than the best of C would be a rule that keeps more
            return fails(
                f"model {f_o}, {f_r}, s={s}, C={capacity}: {ours} of {16**s * s}, the best rule has {rules.max()}"
            )
        lines.append(f"{len(rules)} rules at s={s}, C={capacity}")
    return holds("none is better: " + ", ".join(lines))


@claim.reference("every rule that keeps only candidates, and random rules beyond: models of three symbols, s = 3")
def rule_keeps_only_candidates_random(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(43)
    for f_o, f_r in MODELS:
        for candidate in product((0, 1), repeat=len(f_o)):  # which symbols choose the expert
            for capacity in (1, 2):
                best = ours = 0.0
                mixed = 0.0
                for x in product(range(len(f_o)), repeat=3):
                    weight = [likelihood(f_o, f_r, x, k) for k in range(3)]
                    able = [k for k in range(3) if candidate[x[k]]]
                    size = min(capacity, len(able))
                    best += max(sum(weight[k] for k in c) for c in combinations(able, size))
                    ours += sum(weight[k] for k in [k for k in side.order(f_o, f_r, x) if k in able][:capacity])
                    phi: list[float] = rng.dirichlet(np.ones(len(able))).tolist() if able else []
                    mixed += sum(weight[k] * p for k, p in zip(able, phi))
                if ours != best or ours < mixed - 1e-9:
                    return fails(f"model {f_o}, {f_r}, candidates {candidate}, C={capacity}: {ours} against {best}")
    return holds("the candidates of largest score are best in every model, for every set of candidate symbols")


def sample(rng: np.random.Generator, trials: int, *, model: int, tokens: int, capacity: int) -> dict[str, int]:
    """Symbols drawn from the model, scored, and routed by the real expert choice with one expert."""
    f_o, f_r = (np.array(v) / 16 for v in MODELS[model])
    x = rng.choice(len(f_r), size=(trials, tokens), p=f_r)
    position = rng.integers(tokens, size=trials)
    x[np.arange(trials), position] = rng.choice(len(f_o), size=trials, p=f_o)
    routed = expert_choice.route((f_o / f_r)[x][..., None], capacity)
    return {"success": int(np.count_nonzero(routed.contains(position, np.zeros_like(position))))}


def law(side: SimpleNamespace, *, model: int, tokens: int, capacity: int) -> dict[str, float]:
    """No rule exceeds the rate of the side's own rule."""
    f_o, f_r = MODELS[model]
    rate = sum(
        sum(likelihood(f_o, f_r, x, k) for k in side.order(f_o, f_r, x)[:capacity])
        for x in product(range(len(f_o)), repeat=tokens)
    )
    return {"success": rate / (tokens * 16**tokens)}


claim.simulate(
    sample,
    cases=[{"model": 0, "tokens": 4, "capacity": 1}, {"model": 3, "tokens": 4, "capacity": 1}],
    law=law,
    trials=100_000,
)
