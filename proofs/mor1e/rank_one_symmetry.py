"""From the published start, router and B zero, output vectors stay equal for ever unless the prior tells them apart.

Exchange two output vectors b_j, b_k and their columns of router and prior: the layer is the same function. At router =
0 and B = 0, with a prior that does not tell j from k (none, or a uniform one), the exchange leaves the point where it
is. The gradient at such a point is exchanged with it, so its parts for j and k are equal, and every optimizer that
treats parameters alike (SGD, Adam) moves both alike. By induction b_j = b_k after each step, and r1 x r2 experts act as
r1 x 1: the prior is not only guidance, it makes the experts differ. A router drawn at random does so too.
"""

from __future__ import annotations

from types import SimpleNamespace

import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds


def side(uniform: bool) -> SimpleNamespace:
    return SimpleNamespace(uniform=uniform)


claim = Claim(
    title="Rank-one experts with router and B at zero need the prior: without it all output vectors stay equal",
    statement=r"with $W=0$, $B=0$ at the start and a prior uniform over $j$, $b_1=\dots=b_{r_2}$ after every step of SGD or Adam",
    hypotheses=("no noise that tells parameters apart, such as dropout on weights",),
    source="T-REX code: router and B start at 0 (arXiv 2404.08985 v2)",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("rank_one_experts",),
    truth=side(True),
    mutant=side(False),
    mutation="a prior that tells output vectors apart",
)


@claim.derivation("gradients of two output vectors and of their router columns, at equal vectors")
def gradients(s: SimpleNamespace) -> Outcome:
    x, target = sp.symbols("x y", real=True)  # feature and output; two input and two output vectors
    a, b, w = (sp.symbols(f"{name}1:{last}", real=True) for name, last in (("a", 3), ("b", 3), ("w", 5)))
    prior = [sp.Rational(n, 10) for n in ((2, 2, 3, 3) if s.uniform else (3, 1, 3, 3))]  # of (i, j), j running first
    powers = [sp.exp(wk * x) for wk in w]
    weight = [(power / sum(powers) + p) / 2 for power, p in zip(powers, prior)]
    loss = (sum(weight[k] * a[k // 2] * x * b[k % 2] for k in range(4)) - target) ** 2
    same = {b[1]: b[0], w[1]: w[0], w[3]: w[2]}  # any point with equal vectors and columns, the start included
    pairs = {"output vectors": b, "router columns": w[:2]}
    return every(
        identity(*(sp.diff(loss, v).subs(same) for v in pair), name=f"gradients of {name}")
        for name, pair in pairs.items()
    )


@claim.reference("thirty steps of Adam on the package's layer")
def adam(s: SimpleNamespace) -> Outcome:
    import torch

    from resonance_theory.systems.rank_one_experts import RankOneExperts

    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = RankOneExperts(torch.nn.Linear(5, 4), 2, 3).double()
        prior = torch.full((6,), 1 / 6) if s.uniform else torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
        layer.prior = prior.double()
        optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=0.01)
        for _ in range(30):
            x = torch.randn(16, 5, dtype=torch.float64)
            optimizer.zero_grad()
            (layer(x) - x[:, :4].sin()).square().mean().backward()
            optimizer.step()
    b = layer.b.detach()
    apart = float((b - b[:1]).abs().max())
    moved = float(b.abs().max())
    text = f"vectors moved by up to {moved:.3g} and differ by up to {apart:.3g}"
    return holds(text) if apart < 1e-9 * moved else fails(text)
