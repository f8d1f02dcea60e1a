"""ETR eq. 8 and 9: the quantifier of a hit runs over the n experts, not over the s tokens.

Printed, a token is chosen if its affinity with expert i is the largest "for all j in [s]", and by Assumption 4 that has
probability 1/n. Over experts, it has for exchangeable gates (isotropic_loads). Over tokens it is the event that the token is the
first of s for one expert: with i.i.d. tokens 1/s for every expert and whatever the gates, and for a discriminative token
E(1-q)^{s-1}, q its false-positive rate, which is expert choice with one slot and falls to 0 as s grows. So eq. 8's p_i >= 1/n and
eq. 9 are true of experts alone; every claim here reads them so.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gamma, pi

import numpy as np
import sympy as sp
from scipy import integrate

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, expert_choice
from resonance_theory.tokens import caps

t = sp.symbols("t", positive=True)


@dataclass(frozen=True)
class Side:
    """The exponents of experts and of tokens in the two probabilities n^-1 and s^-1."""

    experts: sp.Expr
    tokens: sp.Expr

    def rate(self, tokens: int, experts: int) -> dict[str, float]:
        n, s = sp.symbols("n s", positive=True)
        values = {n: experts, s: tokens}
        return {"of experts": float(self.experts.subs(values)), "of tokens": float(self.tokens.subs(values))}


n, s = sp.symbols("n s", positive=True)

claim = Claim(
    title="A token hits if its affinity is the largest over experts: over tokens the probability is 1/s, not 1/n",
    statement=r"isotropic i.i.d. tokens: $P(\delta_{t,i}\geq\delta_{t,j}\ \forall j\leq n)=\frac1n$, "
    r"$P(\delta_{t,i}\geq\delta_{u,i}\ \forall u\leq s)=\frac1s$",
    hypotheses=(r"no ties; $\frac1n$: orthonormal gates, $2\leq n\leq d$; $\frac1s$: any gate",),
    source="ETR Assumption 3, eq. 7-8, and ETR Assumption 4, eq. 9: the quantifier (arXiv 2406.00023)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=Side(1 / n, 1 / s),
    mutant=Side(1 / s, 1 / n),
    mutation="the two exchanged",
    printed=Side(1 / n, 1 / n),
    correction=r"Printed with $\forall j\in[s]$, over tokens, where the probability is $\frac1s$ and $p_i\geq\frac1n$ "
    r"fails for $s>n$; $\frac1n$ belongs to $\forall j\in[n]$, over experts.",
)


@claim.derivation("∫ G^{k-1} dG over k exchangeable affinities, k = n experts and k = s tokens")
def largest_of_exchangeable(side: Side) -> Outcome:
    level = sp.symbols("G", positive=True)
    return every(
        [
            identity(sp.integrate(level ** (k - 1), (level, 0, 1)), claimed, name=f"∫ G^({k}-1) dG - claim")
            for k, claimed in ((n, side.experts), (s, side.tokens))
        ]
    )


@claim.counterexample("s = 128, n = 8: the first of 128 tokens")
def first_of_all_tokens(side: Side) -> Outcome:
    claimed = side.rate(128, 8)["of tokens"]
    text = f"1/128 = {1 / 128:.6f}, claimed {claimed:.6f}"
    return holds(text) if claimed == 1 / 128 else fails(text)


@claim.reference("one slot of expert choice on isotropic affinities, d = 3 to 64, averaged over the cap's density")
def one_slot_of_expert_choice(side: Side) -> Outcome:
    for dim, tokens in ((3, 5), (8, 128), (64, 1000)):
        constant = gamma(dim / 2) / (gamma((dim - 1) / 2) * pi**0.5)

        def first(a: float, dim: int = dim, tokens: int = tokens, constant: float = constant) -> float:
            kept = float(expert_choice.success(tokens, 1, Rates(false_positive=float(caps.cap(a, dim)))))
            return kept * constant * (1 - a * a) ** ((dim - 3) / 2)

        found = integrate.quad(first, -1, 1, points=(0, 4 / dim**0.5) if dim > 16 else None, limit=200)[0]
        if abs(found * tokens - side.rate(tokens, 8)["of tokens"] * tokens) > 1e-6:
            return fails(f"d={dim}, s={tokens}: {found:.8f}, claimed {side.rate(tokens, 8)['of tokens']:.8f}")
    return holds("1/5, 1/128 and 1/1000")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, dim: int, experts: int) -> dict[str, int]:
    values = affinity(rng.standard_normal((trials, tokens, dim)), experts)
    return {
        "of experts": int(np.count_nonzero(values[:, 0].argmax(-1) == 0)),
        "of tokens": int(np.count_nonzero(values[..., 0].argmax(-1) == 0)),
    }


claim.simulate(
    sample,
    cases=[{"tokens": 20, "dim": 8, "experts": 4}],
    law=lambda side, *, tokens, dim, experts: side.rate(tokens, experts),
    trials=50_000,
)
