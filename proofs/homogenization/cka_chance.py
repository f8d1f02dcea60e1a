"""Expert similarity by chance: the mean linear CKA of outputs that have nothing to do with each other is not 0.

For centred Gram matrices K and L over N tokens CKA = tr(KL)/(|K||L|). Match the tokens of L with those of K at random:
E[P L P^T] has the mean diagonal tr L/N on its diagonal and the mean of the rest, -tr L/(N(N-1)) as the rows of L sum to 0,
off it. So E tr(K P L P^T) = tr K tr L/(N-1), while the norms stay: E CKA = tr K tr L/((N-1)|K||L|). The same holds for
random rotations Q, as E[Q L Q^T] = tr L/(N-1) I on the centred space (Schur's lemma), hence for Gaussian outputs that are
independent of the others, in whatever dimension and with whatever covariance between features.
"""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs._isotropic import coin
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds

tokens, k, m = sp.symbols("N k l", positive=True)  # k = tr K, l = tr L


def side(lost: int) -> SimpleNamespace:
    """tr K tr L is divided by N - lost (1 for the theorem)."""
    return SimpleNamespace(lost=lost)


claim = Claim(
    title="Linear CKA by chance: tr K tr L / ((N-1) |K||L|)",
    statement=r"$E[\mathrm{CKA}]=\frac{\mathrm{tr}K\,\mathrm{tr}L}{(N-1)\,\Vert K\Vert\,\Vert L\Vert}$ "
    r"for outputs matched at random, $K,L$ the centred Gram matrices over $N$ tokens",
    hypotheses=(r"$N\geq 2$; a uniformly random matching of tokens, or independent Gaussian outputs",),
    source="Kornblith et al. (2019), eq. 4; new",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="N in place of N - 1, as if the outputs were not centred",
    lemmas=("Schur's lemma (for random rotations)",),
)


@claim.derivation("mean over matchings, with rows of K and L that sum to 0")
def mean_matchings_rows_k_l(side: SimpleNamespace) -> Outcome:
    diagonal, rest = m / tokens, -m / (tokens * (tokens - 1))  # entries of E[P L P^T]
    product = k * diagonal + (0 - k) * rest  # the off-diagonal entries of K sum to 0 - tr K
    return identity(
        product, k * m / (tokens - side.lost), points=[{tokens: 5, k: 2, m: 3}], name="E tr(K P L P^T) - claim"
    )


@claim.reference("all matchings of up to 6 tokens; the package")
def matchings_up_tokens_package(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(6)
    worst = 0.0
    for count, p, q in ((2, 1, 1), (4, 3, 2), (6, 2, 9)):
        a, b = rng.standard_normal((count, p)), rng.standard_normal((count, q)) ** 3
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        gram, other = a @ a.T, b @ b.T
        norm = math.sqrt((gram**2).sum() * (other**2).sum())
        order = np.array(list(itertools.permutations(range(count))))
        mean = (gram * other[order[:, :, None], order[:, None, :]]).sum(axis=(1, 2)).mean() / norm
        claimed = np.trace(gram) * np.trace(other) / (count - side.lost) / norm
        ours = float(homogenization.linear_cka_chance(a, b))
        if abs(ours / mean - 1) > 1e-12:
            return fails(f"N={count}: package {ours}, all matchings {mean}")
        worst = max(worst, abs(claimed / mean - 1))
        if worst > 1e-12:
            return fails(f"N={count}: all matchings give {mean:.6f}, the formula {claimed:.6f}")
    return holds(f"{2 + 24 + 720} matchings agree within {worst:.0e}")


FIRST = np.arange(8.0).reshape(4, 2) ** 2 % 7  # any fixed outputs of one expert


def sample(rng: np.random.Generator, trials: int, *, scale: list[float]) -> dict[str, int]:
    """Coins of |cross|²/|K| over tr L for Gaussian outputs b of independent features; its mean is free of |L|."""
    a = FIRST - FIRST.mean(axis=0)
    b = rng.standard_normal((trials, 4, len(scale))) * np.asarray(scale)
    b -= b.mean(axis=1, keepdims=True)
    cross = np.square(np.swapaxes(b, 1, 2) @ a).sum(axis=(1, 2))
    return {"similarity": coin(rng, cross / np.linalg.norm(a @ a.T) / np.square(b).sum(axis=(1, 2)))}


def law(side: SimpleNamespace, *, scale: list[float]) -> dict[str, float]:
    a = FIRST - FIRST.mean(axis=0)
    gram = a @ a.T
    return {"similarity": (1 + float(np.trace(gram) / (4 - side.lost) / np.linalg.norm(gram))) / 2}


claim.simulate(sample, cases=[{"scale": [1.0, 1.0]}, {"scale": [3.0, 1.0, 0.5]}], law=law)
