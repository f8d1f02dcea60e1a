"""Calinski-Harabasz by chance: labels that have nothing to do with the tokens separate exactly (k-1)/(N-1) of the scatter.

Give N tokens at random to k groups of sizes n_i. The mean of n_i tokens drawn without replacement has E|c_i - c|² = (S²/n_i)(1 -
n_i/N), S² = T/(N-1), T the total scatter about the mean token c. So

    E between = Σ n_i E|c_i - c|² = S² Σ (1 - n_i/N) = T (k-1)/(N-1),   E within = T (N-k)/(N-1),

whatever the tokens and the sizes: the index (between/(k-1))/(within/(N-k)) has the ratio of means 1, and without these factors
(k-1)/(N-k). Measured ratios of trained routers stand out from this, not from 0; the population values of H2 and H3 are reached
with an excess of this order.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs._isotropic import chunks, coin
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

N, n, k, T = sp.symbols("N n k T", positive=True)


def side(lost: int) -> SimpleNamespace:
    """The share of the scatter between groups is (k - 1)/(N - lost)."""
    return SimpleNamespace(lost=lost, share=lambda groups, tokens: Fraction(groups - 1, tokens - lost))


claim = Claim(
    title="Calinski-Harabasz by chance: unrelated groups separate (k-1)/(N-1) of the scatter",
    statement=r"$E[\mathrm{between}]=\frac{k-1}{N-1}T$, $E[\mathrm{within}]=\frac{N-k}{N-1}T$, $T$ the total scatter, for any "
    r"$N$ tokens put at random into $k$ groups of any sizes",
    hypotheses=(r"$N\geq 2$; a uniformly random matching of tokens and labels, every group with a token",),
    source="ETR eq. 13 under unrelated labels; new",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="N in place of N - 1",
)


@claim.derivation("variance of a mean drawn without replacement, summed over the groups")
def variance_mean_drawn_without_replacement(side: SimpleNamespace) -> Outcome:
    # coordinates about their mean: Σ x² = T, Σ_{s≠t} x_s x_t = -T. E(Σ_{drawn} x)² = T n/N - T n(n-1)/(N(N-1))
    drawn = (T * n / N - T * n * (n - 1) / (N * (N - 1))) / n  # n |c_i - c|²
    each = (drawn, T / (N - 1) * (1 - n / N))
    total = T / (N - 1) * (k - 1)  # Σ over groups: Σ 1 = k, Σ n = N
    point = [{N: 7, k: 3, T: 2}]
    return every(
        [
            identity(*each, name="n E|c_i - c|² - S²(1 - n/N)"),
            identity(total, T * (k - 1) / (N - side.lost), points=point, name="E between - claim"),
        ]
    )


@claim.reference("all matchings of up to 7 tokens, in the package's scatter")
def matchings_up_tokens_package_s(side: SimpleNamespace) -> Outcome:
    rng, worst = np.random.default_rng(9), 0.0
    for labels in ((0, 1), (0, 0, 1, 2), (0, 0, 0, 0, 1), (0, 0, 1, 1, 2, 2, 2)):
        x = rng.standard_normal((len(labels), 3)) ** 3
        order = np.array(list(itertools.permutations(labels)))
        between, within = (np.mean(part) for part in zip(*(homogenization.scatter(x, row) for row in order)))
        share = float(side.share(max(labels) + 1, len(labels)))
        worst = max(worst, abs(between / (between + within) / share - 1))
        if worst > 1e-12:
            return fails(
                f"labels {labels}: between is {between / (between + within):.6f} of the scatter, {share:.6f} claimed"
            )
    return holds(f"{2 + 24 + 120 + 5040} matchings agree to {worst:.0e}")


X = np.arange(12.0).reshape(6, 2) ** 2 % 11  # any fixed tokens


def sample(rng: np.random.Generator, trials: int, *, sizes: list[int]) -> dict[str, int]:
    """Coins of between over the total, for random labels of given sizes."""
    x, label = X[: sum(sizes)] - X[: sum(sizes)].mean(axis=0), np.repeat(np.arange(len(sizes)), sizes)
    heads = 0
    for count in chunks(trials):
        drawn = label[rng.permuted(np.broadcast_to(np.arange(label.size), (count, label.size)), axis=1)]
        centre = np.stack([(drawn == i) @ x for i in range(len(sizes))], axis=1) / np.array(sizes)[:, None]
        heads += coin(rng, np.square(centre).sum(axis=2) @ np.array(sizes) / np.square(x).sum())
    return {"between": heads}


def law(side: SimpleNamespace, *, sizes: list[int]) -> dict[str, float]:
    return {"between": (1 + float(side.share(len(sizes), sum(sizes)))) / 2}


claim.simulate(sample, cases=[{"sizes": [3, 1]}, {"sizes": [2, 3, 1]}], law=law)
