"""N12. Documents: correlated tokens inside a document, and samples that cut documents anywhere.

A sample that starts anywhere in a stationary stream starts in a document with probability in proportion to its length; u of
its tokens are left with probability P(L >= u)/E L. So N is a sum of independent beta-binomial counts, one a piece. Given the
cut, the pieces' variances add: m π(1-π)(1 + (m-1)κ) for m tokens, while the mean is π s for every cut. Hence
    Var N = π(1-π) {s + κ E Σ m(m-1)},
and pairs of tokens at lag d lie in one document with probability E(L-d)_+/E L, so E Σ m(m-1) = 2/E L Σ_{d<s} (s-d) E(L-d)_+.
One length L, M = min(s, L): that is T/L with T = 2sLM' - (s+L)M'M + M'M(2M-1)/3, M' = M - 1. The enumeration of the L cuts gives
the same: pieces u, L, ..., L, R-u for u <= R, s = QL + R, and u, L, ..., L, L+R-u above; a further document adds L(L-1).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import product
from math import comb, prod
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Documents, Rates, random_keep, resonance, token_choice

s, L, R, u = sp.symbols("s L R u", integer=True, positive=True)


def beta_binomial(m: int, share: Fraction, kappa: Fraction) -> list[Fraction]:
    """Masses of Pólya's urn, from rising factorials."""
    a, b = share * (1 - kappa) / kappa, (1 - share) * (1 - kappa) / kappa

    def rising(x: Fraction, n: int) -> Fraction:
        return prod((x + i for i in range(n)), start=Fraction(1))

    return [comb(m, j) * rising(a, j) * rising(b, m - j) / rising(a + b, m) for j in range(m + 1)]


def add(left: Sequence[Fraction], right: Sequence[Fraction]) -> list[Fraction]:
    total = [Fraction(0)] * (len(left) + len(right) - 1)
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            total[i + j] += x * y
    return total


def side(anywhere: bool) -> SimpleNamespace:
    """Laws of samples that begin anywhere in a document, or at the start of one."""

    def law(tokens: int, lengths: tuple[int, ...], weight: tuple[Fraction, ...], share: Fraction, kappa: Fraction):
        """Masses of N: the first piece by its law, then the renewal equation."""

        @cache
        def begun(m: int) -> list[Fraction]:
            total = [Fraction(0)] * (m + 1)
            for length, chance in zip(lengths, weight):
                piece = min(length, m)
                part = add(beta_binomial(piece, share, kappa), begun(m - piece) if m > piece else [Fraction(1)])
                total = [x + chance * y for x, y in zip(total, part)]
            return total

        if not anywhere:
            return begun(tokens)
        mean, total = sum(n * w for n, w in zip(lengths, weight)), [Fraction(0)] * (tokens + 1)
        for length, chance in zip(lengths, weight):
            for left in range(1, length + 1):
                piece = min(left, tokens)
                rest = begun(tokens - piece) if tokens > piece else [Fraction(1)]
                part = add(beta_binomial(piece, share, kappa), rest)
                total = [x + chance / mean * y for x, y in zip(total, part)]
        return total

    def pairs(tokens: sp.Expr, most: sp.Expr) -> sp.Expr:
        """E Σ m(m-1) for one length L, where min(s, L) is `most`; aligned: without a cut in the first document."""
        whole = 2 * (tokens * L * (most - 1) - (tokens + L) * most * (most - 1) / 2)
        return (whole + most * (most - 1) * (2 * most - 1) / 3) / L if anywhere else most * (tokens - 1)

    return SimpleNamespace(law=law, pairs=pairs)


claim = Claim(
    title="Documents: the law of the candidates of samples that cut documents anywhere, and its variance",
    statement=r"the first piece has $u$ tokens with probability $P(L\geq u)/E L$, the next ones are whole documents, the "
    r"last one is cut; $N$ is the sum of independent beta-binomial counts of the pieces, "
    r"$\mathrm{Var}N=s\pi(1-\pi)\{1+\frac{2\kappa}{s\,E L}\sum_{d<s}(s-d)E(L-d)_+\}$; length 1 is independence, and "
    r"$L\to\infty$ the beta-binomial law",
    hypotheses=(
        r"documents independent, of independent lengths $L$, $E L<\infty$, in a stationary stream",
        r"tokens of a document are candidates with a probability of its own, $\mathrm{Beta}$ of mean $\pi$, independently "
        r"given it; correlation $\kappa$ of two of them",
    ),
    source="new",
    tag="N12",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(True),
    mutant=side(False),
    mutation="every sample begins with a document",
    lemmas=("renewal theory: the residual life of a stationary stream has mass P(L >= u)/E L",),
)


@claim.derivation(
    "pairs of tokens in one document, for all s and L: the enumeration of the cuts against the closed form"
)
def pairs_for_all_s_and_l(side: SimpleNamespace) -> Outcome:
    def two(m: sp.Expr) -> sp.Expr:
        return m * (m - 1)

    def total(term: sp.Expr, low: sp.Expr | int, high: sp.Expr) -> sp.Expr:
        return sp.expand(sp.summation(sp.expand(term), (u, low, high)))

    inside = (total(two(u) + two(s - u), 1, s - 1) + (L - s + 1) * two(s)) / L  # s <= L
    # s = L + R, R < L: a whole document between the ends for u <= R, two pieces above
    across = total(two(u) + two(L) + two(R - u), 1, R) + total(two(u) + two(L + R - u), R + 1, L)
    return every(
        [
            identity(sp.expand(side.pairs(s, s)), sp.expand(inside), name="s <= L: closed form - sum over the cuts"),
            identity(sp.expand(side.pairs(L + R, L)), sp.expand(across / L), name="L <= s < 2L"),
            identity(
                sp.expand(side.pairs(s + L, L)), sp.expand(side.pairs(s, L) + two(L)), name="growth by one document"
            ),
        ]
    )


def patterns(tokens: int, length: int, share: Fraction, kappa: Fraction):
    """Every pattern of candidates (1) of a sample in a stream of documents of one length, with its probability."""
    a, b = share * (1 - kappa) / kappa, (1 - share) * (1 - kappa) / kappa
    for line in product((0, 1), repeat=tokens):
        chance = Fraction(0)
        for offset in range(length):
            part, seen = Fraction(1), [0, 0]
            for t, bit in enumerate(line):
                if (offset + t) % length == 0:
                    seen = [0, 0]
                part *= ((a, b)[1 - bit] + seen[bit]) / (
                    a + b + sum(seen)
                )  # the urn: as often as before, and once more
                seen[bit] += 1
            chance += part / length
        yield line, chance


@claim.reference("every pattern of candidates and every cut, in exact rationals: law, drop and places; the package")
def every_pattern_and_cut(side: SimpleNamespace) -> Outcome:
    share, kappa, worst, checked = Fraction(2, 7), Fraction(1, 4), 0.0, 0
    for tokens, length in ((2, 3), (5, 2), (6, 3), (7, 5), (8, 4), (4, 9)):
        law = [Fraction(0)] * (tokens + 1)
        ahead = [Fraction(0)] * tokens  # candidates among the first k of s-1 others, k uniform
        for line, chance in patterns(tokens, length, share, kappa):
            law[sum(line)] += chance
        shorter = [Fraction(0)] * tokens
        for line, chance in patterns(tokens - 1, length, share, kappa):
            shorter[sum(line)] += chance
            for k in range(tokens):
                ahead[sum(line[:k])] += chance / tokens
        claimed = side.law(tokens, (length,), (Fraction(1),), share, kappa)
        if claimed != law:
            return fails(f"s={tokens}, L={length}: P(N=0) = {float(law[0]):.6f}, not {float(claimed[0]):.6f}")
        rates = Rates(experts=7, top=2, percentile=0.625, counts=Documents(0.25, length))
        for c in range(1, tokens + 1):
            lost = sum(p * max(n - c, 0) for n, p in enumerate(law)) / (tokens * share)
            first = sum(ahead[:c])
            drawn = sum(p * min(Fraction(1), Fraction(c, n + 1)) for n, p in enumerate(shorter))
            rho = Fraction(5, 8)
            best = sum(
                p * sum(comb(n, i) * rho**i * (1 - rho) ** (n - i) for i in range(min(c, n + 1)))
                for n, p in enumerate(shorter)
            )
            found = [token_choice.drop_rate(tokens, c, rates)]
            found += [rule.success(tokens, c, rates) for rule in (token_choice, random_keep, resonance)]
            for ours, exact in zip(found, (lost, first, drawn, best)):
                worst = max(worst, abs(float(ours) / float(exact) - 1) if exact else abs(float(ours)))
                checked += 1
    if worst > 1e-13:
        return fails(f"the package differs by {worst:.1e}")
    return holds(f"six laws agree exactly with all patterns; {checked} rates of the package to {worst:.0e}")


@claim.reference("documents of random lengths: exact rationals against the package, law and variance")
def random_lengths(side: SimpleNamespace) -> Outcome:
    share, kappa, worst = Fraction(1, 5), Fraction(3, 10), 0.0
    cases = (((1, 3, 5), (Fraction(1, 2), Fraction(1, 4), Fraction(1, 4))), ((2, 7), (Fraction(3, 5), Fraction(2, 5))))
    for lengths, weight in cases:
        model = Documents(0.3, lengths, weight=[float(w) for w in weight])
        for tokens in (1, 4, 9, 14):
            law = side.law(tokens, lengths, weight, share, kappa)
            mean = sum(n * p for n, p in enumerate(law))
            variance = sum(n * n * p for n, p in enumerate(law)) - mean**2
            ratio = float(variance / (tokens * share * (1 - share)))
            if abs(float(model.variance_ratio(tokens)) / ratio - 1) > 1e-12:
                return fails(
                    f"s={tokens}, L of {lengths}: variance ratio {ratio:.6f}, not {model.variance_ratio(tokens)}"
                )
            for c in range(1, tokens + 1):
                lost = sum(p * max(n - c, 0) for n, p in enumerate(law)) / mean
                ours = token_choice.drop_rate(tokens, c, Rates(experts=5, counts=model))
                worst = max(worst, abs(float(ours) - float(lost)))
    return holds(f"drops to {worst:.0e}") if worst < 1e-13 else fails(f"drops differ by {worst:.1e}")


def sample(
    rng: np.random.Generator, trials: int, *, lengths: list[int], tokens: int, share: float, kappa: float, capacity: int
) -> dict[str, int]:
    """Streams of documents, each with a load of its own; samples that start long after the stream, anywhere."""
    over, longest, room = 0, max(lengths), 260
    for start in range(0, trials, 4_000):
        size = min(4_000, trials - start)
        drawn = rng.choice(lengths, size=(size, room // min(lengths) + 1))
        document = np.zeros((size, drawn.sum(axis=1).max() + longest), np.int64)
        ends = np.cumsum(drawn, axis=1)
        document[np.arange(size)[:, None], ends] = 1
        document = np.cumsum(document, axis=1)[:, :room]
        load = rng.beta(share * (1 - kappa) / kappa, (1 - share) * (1 - kappa) / kappa, size=(size, drawn.shape[1] + 1))
        candidate = rng.random((size, room)) < np.take_along_axis(load, document, axis=1)
        begin = 180 + rng.integers(60, size=size)
        at = begin[:, None] + np.arange(tokens)
        over += int(np.count_nonzero(np.take_along_axis(candidate, at, axis=1).sum(axis=1) > capacity))
    return {"over": over}


def over(
    side: SimpleNamespace, *, lengths: list[int], tokens: int, share: float, kappa: float, capacity: int
) -> dict[str, float]:
    sizes = tuple(sorted(set(lengths)))
    weight = tuple(Fraction(lengths.count(n), len(lengths)) for n in sizes)
    law = side.law(tokens, sizes, weight, Fraction(str(share)), Fraction(str(kappa)))
    return {"over": float(sum(law[capacity + 1 :]))}


claim.simulate(
    sample,
    cases=[
        {"lengths": [12], "tokens": 16, "share": 0.25, "kappa": 0.4, "capacity": 8},
        {"lengths": [2, 2, 2, 2, 2, 2, 40], "tokens": 16, "share": 0.25, "kappa": 0.4, "capacity": 8},
    ],
    law=over,
    trials=60_000,
)
