"""N10, unequal loads. B samples, one after another, share BC slots; the samples' own tokens have a load of their own.

Expert i meets irrelevant candidates with probability π, and another sample's discriminative token with probability r (its own
class, or a miss of another), equal to π only where the gates are exchangeable. With m samples before, A_m = Bin(m(s-1),π) +
Bin(m,r) candidates are ahead of the asked token's sample, and Bin(k,π) more at place k. N1 sums over k, and replacing one
trial of chance π by one of chance r changes E min(., M) by (r-π) P(the rest < M), M = BC. So with X_m = A_m + Bin(s-1,π)

    P = p/(Bπs) Σ_{m<B} [E min(A_m + Bin(s,π), M) - E min(A_m, M)] = p/(Bπs) {E min(A_B, M) + (π-r) Σ_{m<B} P(X_m < M)}.

Against N1 at (Bs, π, BC), where r = π: replacing the trials of E min(A_B, M) one after another, the last sample's last,

    P_π - P = (r-π) p/(Bπs) Σ_{m<B} [P(X_m < M) - P(X_m + Bin((B-1-m)s,π) < M)],

every bracket in [0, 1], the last one 0: success is lower for r > π, higher for r < π, by at most |r-π| p (B-1)/(Bπs).
The law of large numbers gives the limit p min(1, C/((s-1)π + r)). More samples no longer always help: s = 2, C = 1,
π = .05, r = .9 has .975 at B = 1 and .96675 at B = 2. Where the batch is put in random order the rank form
p E min(1, BC/(N+1)), N = Bin(B(s-1),π) + Bin(B-1,r), is exact instead (.97029 there). Resonance needs no word of its own:
its law (batch_resonance) holds with each expert's h and κ.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs import _skewed
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, token_choice
from resonance_theory.rules.pooling import Pooled

B, s, C, F = sp.symbols("B s C F", positive=True)
pi, r = sp.symbols("pi r", positive=True)


def masses(trials: int, chance: Fraction) -> list[Fraction]:
    return [comb(trials, i) * chance**i * (1 - chance) ** (trials - i) for i in range(trials + 1)]


def added(*counts: list[Fraction]) -> list[Fraction]:
    """Law of a sum of independent counts."""
    total = [Fraction(1)]
    for law in counts:
        longer = [Fraction(0)] * (len(total) + len(law) - 1)
        for i, x in enumerate(total):
            for j, y in enumerate(law):
                longer[i + j] += x * y
        total = longer
    return total


def side(rival: sp.Expr) -> SimpleNamespace:
    """`rival`: probability, in r and π, that another sample's discriminative token is a candidate."""

    def value(samples: int, tokens: int, share: Fraction, own: Fraction, capacity: int) -> Fraction:
        """The telescoped form."""
        chance, slots = Fraction(str(rival.subs({r: own, pi: share}))), samples * capacity

        def ahead(m: int, more: int) -> list[Fraction]:
            return added(masses(m * (tokens - 1) + more, share), masses(m, chance))

        whole = sum((min(i, slots) * v for i, v in enumerate(ahead(samples, 0))), Fraction(0))
        free = sum((sum(ahead(m, tokens - 1)[:slots], Fraction(0)) for m in range(samples)), Fraction(0))
        return (whole + (share - chance) * free) / (samples * share * tokens)

    return SimpleNamespace(rival=rival, value=value)


claim = Claim(
    title="Batch capacity, token choice with unequal loads: exact law, and how little the samples' own tokens change it",
    statement=r"$P_{TCR}(B)=\frac{p}{B\pi s}\{E\min(A_B,BC)+(\pi-r)\sum_{m<B}P(A_m+\mathrm{Bin}(s-1,\pi)<BC)\}$, "
    r"$A_m=\mathrm{Bin}(m(s-1),\pi)+\mathrm{Bin}(m,r)$; against its value $P_\pi$ at $r=\pi$: "
    r"$0\leq\frac{P_\pi-P}{r-\pi}\leq\frac{p(B-1)}{B\pi s}$; limit "
    r"$p\min\{1,\frac{C}{(s-1)\pi+r}\}$; not monotone in $B$ in general",
    hypotheses=(
        r"$B$ independent samples of $s$ tokens one after another, $BC$ slots for the expert; the asked sample is uniform",
        r"$\pi$, $r$: probability that an irrelevant token, that another sample's discriminative token is its candidate",
    ),
    source="new",
    tag="N10",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(r),
    mutant=side(pi),
    mutation="the other samples' discriminative tokens load the expert as the irrelevant ones do: r = π",
    lemmas=("N1 (token_choice_exact)", "law of large numbers"),
)


@claim.derivation("one trial replaced by another; the limit from both parts of the law")
def one_trial_replaced_another_limit(side: SimpleNamespace) -> Outcome:
    # E min(X + trial, M) = E min(X, M) + chance P(X < M); F = P(X < M)
    replaced = (pi * F - side.rival * F, (pi - r) * F)
    mean = (s - 1) * pi + side.rival
    scarce = ((C + (pi - side.rival) * C / mean) / (pi * s), C / ((s - 1) * pi + r))
    plenty = ((mean + pi - side.rival) / (pi * s), 1)
    point = {s: 5, C: 1, pi: sp.Rational(2, 5), r: sp.Rational(3, 4), F: sp.Rational(1, 2)}
    return every(
        [
            identity(*replaced, points=[point], name="E min(X + Bern(π), M) - E min(X + Bern(r), M)"),
            identity(*scarce, points=[point], name="limit where C < (s-1)π + r"),
            identity(*plenty, points=[point], name="limit where C > (s-1)π + r"),
        ]
    )


@claim.reference("exact rationals: position by position, the distance from r = π, the limit; random order; the package")
def exact_rationals_position_position_distance(side: SimpleNamespace) -> Outcome:
    worst, count = 0.0, 0
    for tokens, share, own, capacity in (
        (2, Fraction(1, 20), Fraction(9, 10), 1),
        (4, Fraction(1, 2), Fraction(1, 4), 1),
        (5, Fraction(2, 7), Fraction(1), 2),
        (4, Fraction(3, 4), Fraction(0), 2),
    ):
        for samples in (1, 2, 4):
            slots = samples * capacity
            direct = Fraction(0)
            for m in range(samples):
                before = added(masses(m * (tokens - 1), share), masses(m, own))
                direct += sum(sum(added(before, masses(k, share))[:slots], Fraction(0)) for k in range(tokens))
            direct /= samples * tokens
            value = side.value(samples, tokens, share, own, capacity)
            if value != direct:
                return fails(
                    f"B={samples}, s={tokens}, π={share}, r={own}: {float(direct):.6f}, not {float(value):.6f}"
                )
            others = masses(samples * tokens - 1, share)
            alike = sum((min(Fraction(1), Fraction(slots, i + 1)) * v for i, v in enumerate(others)), Fraction(0))
            ratio = (alike - direct) / (own - share)
            if not 0 <= ratio <= Fraction(samples - 1, samples) / (share * tokens):
                return fails(f"B={samples}, s={tokens}, π={share}, r={own}: {float(ratio):.6f} from r = π")
            rates = Rates(load=float(share), rival=float(own))
            ours = float(Pooled(token_choice, samples).success(tokens, capacity, rates))
            short = float(Pooled(token_choice, samples).failure(tokens, capacity, rates))
            worst = max(worst, abs(ours / float(direct) - 1), abs(short - float(1 - direct)))
            count += 1
        limit = min(1.0, capacity / float((tokens - 1) * share + own))
        far = float(Pooled(token_choice, 200).success(tokens, capacity, rates))
        if worst > 1e-12 or abs(far - limit) > 1e-3:
            return fails(f"the package errs by {worst:.1e}; 200 samples give {far}, the limit is {limit}")
    one, two = (float(side.value(b, 2, Fraction(1, 20), Fraction(9, 10), 1)) for b in (1, 2))
    others = added(masses(2, Fraction(1, 20)), masses(1, Fraction(9, 10)))
    rank = float(sum(min(Fraction(1), Fraction(2, i + 1)) * v for i, v in enumerate(others)))
    if not two < rank < one:
        return fails(f"s=2, C=1, π=.05, r=.9: B = 1, 2 give {one}, {two}, random order {rank}")
    return holds(
        f"{count} laws agree exactly, the package to {worst:.0e}; {one}, {two} at B = 1, 2, random order {rank:.6f}"
    )


def sample(
    rng: np.random.Generator, trials: int, *, samples: int, tokens: int, boost: float, capacity: int
) -> dict[str, int]:
    """Plackett-Luce tokens through the router, a random sample of each batch asked: its class's expert, and success."""
    scores, position, expert = _skewed.sample(rng, trials * samples, tokens, boost)
    asked = rng.integers(samples, size=trials)
    row = np.arange(trials) * samples + asked
    routed = token_choice.route(scores.reshape(trials, samples * tokens, -1), samples * capacity)
    done = routed.contains(asked * tokens + position[row], expert[row])
    return {f"class {i}": int(np.count_nonzero(done & (expert[row] == i))) for i in (0, 3)}


def law(side: SimpleNamespace, *, samples: int, tokens: int, boost: float, capacity: int) -> dict[str, float]:
    w = np.array(_skewed.LOAD)
    # a token of class j goes to j with probability w_j e^boost / (1 + w_j (e^boost - 1)), else to i with w_i over the same
    rate = np.where(np.eye(w.size, dtype=bool), np.exp(boost), 1.0) * w / (1 + w[:, None] * np.expm1(boost))
    own, hit = rate.mean(axis=0), _skewed.hit_rates(boost)
    found = {}
    for i in (0, 3):
        chance = Fraction(str(side.rival.subs({r: sp.Rational(str(own[i])), pi: sp.Rational(str(w[i]))})))
        value = claim.truth.value(samples, tokens, Fraction(str(w[i])), chance, capacity)
        found[f"class {i}"] = float(value) * hit[i] / w.size
    return found


claim.simulate(
    sample,
    cases=[
        {"samples": 4, "tokens": 2, "boost": 3.0, "capacity": 1},
        {"samples": 3, "tokens": 6, "boost": 3.0, "capacity": 1},
    ],
    law=law,
    trials=200_000,
)
