"""LocMoE Lemma 1: the linear top-1 gate picks the gate at the least angle, if all gates have one norm.

<w_i,x> - <w_j,x> = |x| (|w_i| cos_i - |w_j| cos_j), which is |w||x| (cos_i - cos_j) for equal norms: both orders agree for
every x. Without equal norms they differ: w_1 = (1, 0), w_2 = (0, 3), x = (2, 1) has products 2 and 3, cosines 2/√5 and
1/√5. GrAP gates have equal norms exactly where n divides d (grap_gates), so elsewhere LocMoE's linear gate and ETR's cosine
(eq. 4) route differently.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds


def side(norms: tuple[int, int]) -> SimpleNamespace:
    """Norms of two gates that are claimed to order products and cosines alike."""
    return SimpleNamespace(norms=norms)


claim = Claim(
    title="Inner products and cosines choose the same expert if all gates have one norm",
    statement=r"$\langle w_i,x\rangle-\langle w_j,x\rangle=|w||x|(\cos_i-\cos_j)$ if $|w_i|=|w_j|=|w|$",
    hypotheses=(r"$x\neq 0$, gates of equal norm (GrAP: $n$ divides $d$)",),
    source="LocMoE Assumption 1 and Lemma 1 (arXiv 2401.13920); ETR eq. 4 (arXiv 2406.00023)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side((1, 1)),
    mutant=side((1, 3)),
    mutation="one gate three times as long as the other",
)


@claim.derivation("the difference of products against that of cosines")
def difference_products_cosines(side: SimpleNamespace) -> Outcome:
    norm, length, first, second = sp.symbols("w x c_i c_j", positive=True)
    a, b = side.norms
    products = a * norm * length * first - b * norm * length * second
    return identity(products, norm * length * (first - second), name="products less |w||x|(cos_i - cos_j)")


@claim.reference("both choices on 20,000 random tokens, two to sixteen gates, through the package's affinity")
def choices_random_tokens_two_sixteen(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(44)
    for n, dim in ((2, 2), (8, 64), (16, 16)):
        gates = rng.normal(size=(n, dim))
        gates /= np.linalg.norm(gates, axis=1, keepdims=True)
        gates[0] *= side.norms[0]
        gates[1] *= side.norms[1]
        tokens = rng.normal(size=(20_000, dim))
        cosine = np.argmax(np.asarray(affinity(tokens, gates=gates)), axis=1)
        differ = int(np.count_nonzero(cosine != np.argmax(tokens @ gates.T, axis=1)))
        if differ:
            return fails(f"{differ} of 20000 tokens choose differently among {n} gates")
    return holds("60,000 tokens choose alike")
