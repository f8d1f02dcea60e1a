"""GrAP gates: orthogonality, norms, parameters and operations, and what happens where n does not divide d.

Gate i is n/d on the features i d/n <= j < (i+1) d/n. These blocks are disjoint and cover everything, so gates are orthogonal
and have d non-zeros together, for every n <= d. Block i has c_{i+1} - c_i features, c_i = ⌈i d/n⌉. With d = mn + k, 0 <= k < n,
and c_i n = i d + e_i, 0 <= e_i < n: (size - m) n = k + e_{i+1} - e_i lies strictly between k - n and k + n. So all sizes are
m if k = 0, and m or m+1 else, the longer ones k in number as sizes add up to d. Squared norms are size (n/d)².

Where n divides d, W x are the block means and all norms are sqrt(n/d). Elsewhere the means are off by the factor size n/d,
and routing by inner product favours the longer blocks (the first is one of them). The affinity is a cosine: it divides by
the norm, the normalised gates are orthonormal for every n <= d, and all laws for isotropic tokens hold unchanged.

ETR prints 1/D of the parameters and O(d²/D) in place of O(d²). With D = n groups the first is exact, d of nd. The orders are true
but loose: the dense product takes 2nd - n < 2d² operations and block means d <= d²/n, of those orders only where n is
of the order of d. For a fixed number of experts both are linear in d, and their ratio is 2n - n/d, not n.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory import affinity, grap_gates
from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

n, m, k, t = sp.symbols("n m k t", positive=True)


def side(equal: bool) -> SimpleNamespace:
    """Squared norm of a gate on a block of the given size."""
    return SimpleNamespace(square=lambda size, dim, experts: experts / dim if equal else size * (experts / dim) ** 2)


claim = Claim(
    title="GrAP gates are orthogonal for every n; their norms are equal only where n divides d",
    statement=r"$w_i[j]=\frac nd$ for $\frac{id}{n}\leq j<\frac{(i+1)d}{n}$: $\langle w_i,w_j\rangle=0$; "
    r"$|w_i|^2=\frac nd$ if $n$ divides $d$; else $d\bmod n$ gates have $|w_i|^2=\lceil\frac dn\rceil(\frac nd)^2$, the others "
    r"$\lfloor\frac dn\rfloor(\frac nd)^2$; $d$ non-zero weights instead of $nd$, and where $n$ divides $d$, $d$ operations "
    r"for $Wx$ ($d-n$ additions, $n$ multiplications) instead of $2nd-n$; so the printed $O(d^2/D)$ and $O(d^2)$ hold with "
    r"$D=n$, $d\leq\frac{d^2}{n}$ and $2nd-n<2d^2$, with equality in the first only at $n=d$",
    hypotheses=(r"$1\leq n\leq d$",),
    source="ETR eq. 2-3 (arXiv 2406.00023), LocMoE eq. 4 (arXiv 2401.13920); new: n not dividing d, exact counts",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(equal=False),
    mutant=side(equal=True),
    mutation="equal norms also where n does not divide d",
)


def blocks(dim: int, experts: int) -> list[list[int]]:
    """The features of each gate, by the printed inequality in whole numbers."""
    return [[j for j in range(dim) if i * dim <= j * experts < (i + 1) * dim] for i in range(experts)]


@claim.derivation("block sizes, their number, and their norms, for all n, m and k")
def block_sizes_their_number_their(side: SimpleNamespace) -> Outcome:
    i, before, after = sp.symbols("i before after", real=True)  # e_i and e_{i+1}
    d = m * n + k
    size = ((i + 1) * d + after) / n - (i * d + before) / n
    short, long = sp.symbols("short long", positive=True)  # numbers of blocks
    counts = sp.solve([short + long - n, short * m + long * (m + 1) - d], [short, long], dict=True)[0]
    point = [{n: 3, m: 2, k: 1}]
    return every(
        [
            identity((size - m) * n, k + after - before, name="(size - m) n - (k + e' - e)"),
            identity(counts[long], k, name="number of longer blocks - k"),
            identity(side.square(m, m * n, n), n / (m * n), name="n divides d: |w|² - n/d"),
            identity(side.square(m, d, n), m * n**2 / d**2, points=point, name="shorter: |w|² - m (n/d)²"),
            identity(side.square(m + 1, d, n), (m + 1) * n**2 / d**2, points=point, name="longer: |w|² - (m+1)(n/d)²"),
        ]
    )


@claim.certificate(
    "longer gates exceed n/d, shorter ones fall below, for all d and all n not dividing it; the printed orders"
)
def longer_gates_exceed_n_d(side: SimpleNamespace) -> Outcome:
    # n = k + t with t >= 1; |w|² d²/n is a polynomial
    count = k + t
    d = m * count + k
    above = sp.expand(sp.cancel((side.square(m + 1, d, count) - count / d) * d**2 / count))
    below = sp.expand(sp.cancel((count / d - side.square(m, d, count)) * d**2 / count))
    corner = {k: 1, t: 1, m: 1}
    return every(
        [
            nonnegative_polynomial(above, corner, strict=True, name="longer - n/d, times d²/n"),
            nonnegative_polynomial(below, corner, strict=True, name="n/d - shorter, times d²/n"),
            # d = n + t, t >= 0
            nonnegative_polynomial(
                sp.expand((n + t) ** 2 - n * (n + t)), {n: 1, t: 0}, name="d² - nd, n times d²/n - d"
            ),
            nonnegative_polynomial(
                sp.expand(2 * (n + t) ** 2 - 2 * n * (n + t) + n), {n: 1, t: 0}, strict=True, name="2d² - (2nd - n)"
            ),
        ]
    )


@claim.reference("gates entry by entry for all n <= d <= 40: supports, Gram matrix; the package where n divides d")
def gates_entry_entry_n_d(side: SimpleNamespace) -> Outcome:
    for dim in range(1, 41):
        for experts in range(1, dim + 1):
            rows = blocks(dim, experts)
            gates = np.zeros((experts, dim))
            for gate, row in zip(gates, rows):
                gate[row] = experts / dim
            if np.count_nonzero(gates) != dim or [j for row in rows for j in row] != list(range(dim)):
                return fails(f"d={dim}, n={experts}: the blocks do not cover each feature once")
            if sum(len(row) == -(-dim // experts) for row in rows) != (dim % experts or experts):
                return fails(f"d={dim}, n={experts}: wrong number of longer blocks")
            gram = np.diag([side.square(len(row), dim, experts) for row in rows])
            if not np.allclose(gates @ gates.T, gram, rtol=1e-13, atol=0):
                return fails(f"d={dim}, n={experts}: squared norms are not {np.diag(gram).round(4).tolist()}")
            if dim % experts == 0 and np.any(grap_gates(dim, experts) != gates):
                return fails(f"d={dim}, n={experts}: the package's gates differ")
    return holds("820 pairs agree")


class Counter(float):
    """A number that counts the additions and multiplications made with any of its kind."""

    operations = 0

    def __add__(self, other: float) -> Counter:
        Counter.operations += 1
        return Counter(float(self) + float(other))

    def __mul__(self, other: float) -> Counter:
        Counter.operations += 1
        return Counter(float(self) * float(other))


def total(values: list[Counter]) -> Counter:
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


@claim.reference("operations counted: d for block means against 2nd - n for the dense product; norms of d = 10, n = 4")
def operations_counted_d_block_means(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(31)
    for dim, experts in ((8, 2), (24, 4), (64, 8)):
        x = [Counter(v) for v in rng.standard_normal(dim)]
        Counter.operations = 0
        means = [total([x[j] for j in row]) * (experts / dim) for row in blocks(dim, experts)]
        grouped, Counter.operations = Counter.operations, 0
        products = [total([v * w for v, w in zip(x, gate)]) for gate in grap_gates(dim, experts)]
        dense = Counter.operations
        if (grouped, dense) != (dim, 2 * experts * dim - experts) or not np.allclose(
            means, products, rtol=0, atol=1e-14
        ):
            return fails(f"d={dim}, n={experts}: {grouped} and {dense} operations")
    norms = [side.square(len(row), 10, 4) for row in blocks(10, 4)]
    if not np.allclose(norms, [0.48, 0.32, 0.48, 0.32], rtol=1e-14):  # 3, 2, 3, 2 features of weight .4
        return fails(f"d=10, n=4: squared norms {norms}, not .48, .32, .48, .32")
    return holds("d and 2nd - n operations; squared norms .48, .32, .48, .32 at d=10, n=4")


def sample(rng: np.random.Generator, trials: int, *, dim: int) -> dict[str, int]:
    """Three gates: how often the first one, on a longer block, wins by inner product and by cosine."""
    gates = np.zeros((3, dim))
    for gate, row in zip(gates, blocks(dim, 3)):
        gate[row] = 3 / dim
    x = rng.standard_normal((trials, dim))
    return {
        "inner product": int(np.count_nonzero((x @ gates.T).argmax(axis=1) == 0)),
        "cosine": int(np.count_nonzero(affinity(x, gates=gates).argmax(axis=1) == 0)),
    }


def law(side: SimpleNamespace, *, dim: int) -> dict[str, float]:
    first, second, third = (float(side.square(len(row), dim, 3)) for row in blocks(dim, 3))
    # both differences of independent normals are positive: 1/4 + arcsin(correlation)/2π
    correlation = first / np.sqrt((first + second) * (first + third))
    return {"inner product": 0.25 + float(np.arcsin(correlation)) / (2 * np.pi), "cosine": 1 / 3}


claim.simulate(sample, cases=[{"dim": 4}, {"dim": 7}, {"dim": 9}], law=law)
