"""What chance alone does to the metrics of dispatch: entropy, information about a group, Gini coefficient of the loads.

N tokens take n experts independently with shares p; p̂ are the shares seen. As E[-Σ p̂ ln p] = H(p),

    H(p) - E H(p̂) = E KL(p̂ ‖ p) >= 0:   the entropy seen is too low, and never by more than ln(1 + (n-1)/N) in the mean,

since KL(p̂ ‖ q) <= ln(1 + Σ (p̂-q)²/q) (Jensen for the logarithm, under p̂), and E Σ (p̂-p)²/p = Σ p(1-p)/(Np) = (n-1)/N.

A table of r groups and c experts with fixed margins, tokens matched at random: a cell is hypergeometric, of mean e = RC/N and
variance RC(N-R)(N-C)/(N²(N-1)), so Pearson's Σ (cell - e)²/e has exactly the mean N(r-1)(c-1)/(N-1), and the mutual information
seen where there is none is at most ln(1 + (r-1)(c-1)/(N-1)) in the mean. Both bounds are attained (one token; N groups and N
experts).

Gini is Σ|N_i-N_j|/(2nN), and E|N_i-N_j| <= sqrt(Var(N_i-N_j)) = sqrt(2N/n) for equal shares: E G <= (n-1)/sqrt(2nN).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs._isotropic import chunks, coin
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

n, N, r, c, p = sp.symbols("n N r c p", positive=True)


def side(part: str) -> SimpleNamespace:
    """`part` of the mean chi-square distance, and of the variance of a difference of loads."""
    share = Fraction(part)

    def entropy(experts: int, tokens: int) -> float:
        return math.log1p(float(share) * (experts - 1) / tokens)

    def information(groups: int, experts: int, tokens: int) -> float:
        return math.log1p(float(share) * (groups - 1) * (experts - 1) / (tokens - 1))

    def gini(experts: int, tokens: int) -> float:
        return (experts - 1) * math.sqrt(float(share) / (2 * experts * tokens))

    return SimpleNamespace(part=sp.Rational(part), entropy=entropy, information=information, gini=gini)


claim = Claim(
    title="Dispatch by chance: how much entropy, information and Gini coefficient unrelated tokens show",
    statement=r"$0\leq H(p)-E\,H(\hat p)\leq\ln(1+\frac{n-1}{N})$; $E\,I\leq\ln(1+\frac{(r-1)(c-1)}{N-1})$ for $r$ groups that "
    r"have nothing to do with $c$ experts; $E\,\mathrm{Gini}\leq\frac{n-1}{\sqrt{2nN}}$ for equal shares",
    hypotheses=(
        r"$N$ tokens take $n$ experts independently with the shares $p$ (first and last part)",
        r"groups and experts of $N\geq 2$ tokens matched at random, margins fixed (second part)",
    ),
    source="dispatch metrics of routing studies; new",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side("1"),
    mutant=side("1/2"),
    mutation="half the mean distance: the first-order bias (n-1)/(2N) taken as a bound, and half the variance",
    lemmas=("Jensen's inequality", "Cauchy-Schwarz: E|X| <= sd(X) if EX = 0"),
)


@claim.derivation("mean distances of shares and of tables; variance of a difference of loads; the least cases attain")
def mean_distances_shares_tables_variance(side: SimpleNamespace) -> Outcome:
    big_r, big_c = sp.symbols("R C", positive=True)
    share = p * (1 - p) / N / p  # E(p̂-p)²/p; summed over experts with Σ 1 = n, Σ p = 1
    total = sp.expand(share).coeff(p, 0) * n + sp.expand(share).coeff(p, 1)
    expected = big_r * big_c / N
    cell = big_r * big_c * (N - big_r) * (N - big_c) / (N**2 * (N - 1)) / expected
    # summed over rows and columns: Σ (N-R) = rN - N
    table = sp.cancel(cell / ((N - big_r) * (N - big_c))) * (r * N - N) * (c * N - N)
    difference = 2 * N * (1 / n) * (1 - 1 / n) + 2 * N / n**2  # variances less twice the covariance -N/n²
    return every(
        [
            identity(total, (n - 1) / N, name="E Σ(p̂-p)²/p - (n-1)/N"),
            identity(table, N * (r - 1) * (c - 1) / (N - 1), name="E χ² - N(r-1)(c-1)/(N-1)"),
            identity(difference, 2 * N / n, name="Var(N_i-N_j) - 2N/n"),
            # one token: entropy 0 where the shares have ln n; N groups and N experts: information ln N
            identity(1 + side.part * (n - 1), n, points=[{n: 4}], name="one token: 1 + (n-1)/N - n"),
            identity(
                1 + side.part * (N - 1) ** 2 / (N - 1),
                N,
                points=[{N: 5}],
                name="r = c = N: the bound - N",
            ),
        ]
    )


@claim.reference("every outcome of up to 7 tokens, every matching of up to 7, in the package's metrics")
def outcome_up_tokens_matching_up(side: SimpleNamespace) -> Outcome:
    count = 0
    for share in ([1 / 3] * 3, [0.5, 0.5], [0.6, 0.3, 0.1], [0.25] * 4):
        experts = len(share)
        for tokens in (1, 2, 4, 7):
            entropy = spread = 0.0
            for load in itertools.product(range(tokens + 1), repeat=experts):
                if sum(load) == tokens:
                    chance = math.factorial(tokens) * math.prod(q**k / math.factorial(k) for q, k in zip(share, load))
                    entropy += chance * float(homogenization.dispatch_entropy(load))
                    spread += chance * float(homogenization.load_gini(load))
            gap = float(homogenization.dispatch_entropy(share)) - entropy
            if not -1e-12 <= gap <= side.entropy(experts, tokens) + 1e-12:
                return fails(
                    f"N={tokens}, shares {share}: the entropy is {gap:.4f} too low, {side.entropy(experts, tokens):.4f} claimed"
                )
            if len(set(share)) == 1 and spread > side.gini(experts, tokens) + 1e-12:
                return fails(f"N={tokens}, n={experts}: Gini {spread:.4f}, {side.gini(experts, tokens):.4f} claimed")
            count += 1
    for group, expert in (
        ((0, 0, 1, 1), (0, 1, 1, 2)),
        ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)),
        ((0, 0, 0, 1, 1, 2), (0, 0, 1, 1, 1, 1)),
    ):
        rows, columns = max(group) + 1, max(expert) + 1
        mean, seen = 0.0, 0
        for order in itertools.permutations(expert):
            table = np.zeros((rows, columns))
            for cell, times in Counter(zip(group, order)).items():
                table[cell] = times
            mean += homogenization.dispatch_information(table)
            seen += 1
        mean /= seen
        most = side.information(rows, columns, len(group))
        if mean > most + 1e-12:
            return fails(f"groups {group}, experts {expert}: information {mean:.4f}, {most:.4f} claimed")
        count += 1
    return holds(f"{count} exact means below the bounds")


def sample(rng: np.random.Generator, trials: int, *, experts: int, groups: int, tokens: int) -> dict[str, int]:
    """Coins of (entropy that is missing)/ln n, of information/ln min, and of Gini; equal shares, groups in turn."""
    label = np.arange(tokens) % groups
    counts = {"entropy": 0, "information": 0, "gini": 0}
    for count in chunks(trials):
        expert = rng.integers(experts, size=(count, tokens))
        table = np.zeros((count, groups, experts))
        np.add.at(table, (np.arange(count)[:, None], label, expert), 1.0)
        load = table.sum(axis=1)
        seen = homogenization.dispatch_entropy(load)
        with np.errstate(divide="ignore", invalid="ignore"):
            joint = table / tokens
            expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=2, keepdims=True)
            information = np.where(joint > 0, joint * np.log(joint / expected), 0.0).sum(axis=(1, 2))
        counts["entropy"] += coin(rng, 1 - seen / math.log(experts))
        counts["information"] += coin(rng, information / math.log(min(groups, experts)))
        counts["gini"] += coin(rng, homogenization.load_gini(load))
    return counts


def law(side: SimpleNamespace, *, experts: int, groups: int, tokens: int) -> dict[str, float]:
    """Given its margins an independent table is a random matching; an expert without a token only lowers the bound."""
    most = {
        "entropy": side.entropy(experts, tokens) / math.log(experts),
        "information": side.information(groups, experts, tokens) / math.log(min(groups, experts)),
        "gini": side.gini(experts, tokens),
    }
    return {key: (1 + min(1.0, value)) / 2 for key, value in most.items()}


claim.simulate(
    sample,
    cases=[{"experts": 4, "groups": 3, "tokens": 8}],
    law=law,
    relation="at_most",
    trials=200_000,
)
