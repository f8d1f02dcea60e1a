"""What a balanced placement of two layers keeps is at most S/P + (E/P)(s_1 + ... + s_{P-1}), and at most an assignment.

Let X and Z be the 0-1 matrices (experts, devices) of two layers, W the profile of the step, S its sum. The kept steps
are tr(X^T W Z). The columns of X are orthogonal, of squared length c = E/P, and sum to the vector of ones; so of Z.
Turn both by an orthogonal matrix whose first column is constant: the first columns become 1/sqrt(P) times ones, the
others are orthogonal to the ones and of squared length c. The first pair contributes S/P. The others meet only W with
rows and columns centred, and by von Neumann's inequality contribute at most c times the sum of its P-1 largest
singular values s. Of y = X Z^T, whose rows and columns sum to c, the assignment bound forgets all else; with c = 1 it
is exact, as vertices are permutations (Birkhoff). A chain of layers keeps at most the sum of its steps' bounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems._affinity_bounds import assignment_bound, spectral_bound
from resonance_theory.systems.affinity_placement import place_by_affinity


def side(bound: Callable[[np.ndarray, int], float]) -> SimpleNamespace:
    """`bound(W, P)`: no balanced placement of two layers keeps more."""
    return SimpleNamespace(bound=bound)


def without_one(weight: np.ndarray, devices: int) -> float:
    centred = weight - weight.mean(0) - weight.mean(1)[:, None] + weight.mean()
    rest = np.linalg.svd(centred, compute_uv=False)[: devices - 2].sum()
    return float(weight.sum() / devices + len(weight) / devices * rest)


claim = Claim(
    title="No balanced placement keeps more of a step than its singular values, or an assignment, allow",
    statement=r"$\sum_{x(i)=z(j)}W_{ij}\leq\frac SP+\frac EP\sum_{k<P}s_k(JWJ)$, $J=I-\frac1E11^T$, and "
    r"$\leq\max\{\langle W,y\rangle:y\in[0,1]^{E\times E}$, rows and columns sum to $E/P\}$",
    hypotheses=(r"$E/P$ experts of each layer on each of $P$ devices", r"$W\geq0$ sums to $S$"),
    source="new; bounds for ExFlow integer program (arXiv 2401.08383)",
    kind="bound",
    expected=Verdict.PROVED,
    lemmas=("von Neumann's trace inequality", "Birkhoff's theorem"),
    truth=side(lambda w, p: min(spectral_bound(w, p), assignment_bound(w, p))),
    mutant=side(without_one),
    mutation="one singular value fewer",
)


def profiles(experts: int) -> list[np.ndarray]:
    rng = np.random.default_rng(experts)
    return [rng.random((experts, experts)) ** 6 for _ in range(20)] + [np.kron(np.eye(2), np.ones((experts // 2,) * 2))]


@claim.certificate("all pairs of balanced placements, six experts on two and three devices, four on two and four")
def every_pair(s: SimpleNamespace) -> Outcome:
    worst = -1.0
    for experts, devices in ((4, 2), (4, 4), (6, 2), (6, 3)):
        start = [d for d in range(devices) for _ in range(experts // devices)]
        places = np.array(sorted(set(itertools.permutations(start))))
        same = places[:1, :, None] == places[:, None, :]  # the first layer's names are free
        for weight in profiles(experts):
            orders = [weight[np.argsort(p, kind="stable")] for p in places]
            kept = max(float((order * same).sum(axis=(1, 2)).max()) for order in orders)
            worst = max(worst, kept - s.bound(weight, devices))
    text = f"kept less the bound: {worst:.2g} at most"
    return holds(text) if worst < 1e-9 else fails(text)


@claim.reference("the turn by an orthogonal matrix: first columns constant, the others centred; attained by blocks")
def turned(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(1)
    for experts, devices in ((6, 3), (8, 4), (9, 3)):
        x, z = (np.eye(devices)[rng.permutation(np.arange(experts) % devices)] for _ in range(2))
        weight = rng.random((experts, experts)) ** 4
        turn, _ = np.linalg.qr(np.column_stack([np.ones(devices), rng.standard_normal((devices, devices - 1))]))
        u, v = x @ turn, z @ turn
        centre = np.eye(experts) - 1 / experts
        parts = weight.sum() / devices + np.trace(u[:, 1:].T @ centre @ weight @ centre @ v[:, 1:])
        if abs(parts - np.trace(x.T @ weight @ z)) > 1e-12:
            return fails(f"E={experts}, P={devices}: the parts do not sum to what is kept")
        best = experts / devices * np.linalg.svd(centre @ weight @ centre, compute_uv=False)[: devices - 1].sum()
        if spectral_bound(weight, devices) < weight.sum() / devices + best - 1e-12:
            return fails("the bound lacks a part")
    perfect = np.kron(np.eye(3), np.ones((2, 2)))
    text = f"blocks of two on three devices keep 12 of 12, claimed at most {s.bound(perfect, 3):.6f}"
    return holds(text) if abs(s.bound(perfect, 3) - 12) < 1e-9 else fails(text)


def programme(weight: np.ndarray, devices: int) -> float:
    """Most steps kept, by the integer programme with a variable for each pair and device."""
    n, pairs = len(weight), len(weight) ** 2
    sizes = n * devices
    x = sparse.eye_array(sizes)
    by_row = sparse.kron(sparse.eye_array(n), np.ones((n, 1)))
    by_column = sparse.kron(np.ones((n, 1)), sparse.eye_array(n))
    lift = sparse.eye_array(devices)
    none = sparse.csr_array((pairs * devices, sizes))
    z = sparse.eye_array(pairs * devices)
    below_x = sparse.hstack([-sparse.kron(by_row, lift), none, z])
    below_y = sparse.hstack([none, -sparse.kron(by_column, lift), z])
    first = sparse.hstack([x, sparse.csr_array((sizes, sizes + pairs * devices))])
    second = sparse.hstack([sparse.csr_array((sizes, sizes)), x, sparse.csr_array((sizes, pairs * devices))])
    one = sparse.kron(sparse.eye_array(n), np.ones((1, devices)))
    each = sparse.kron(np.ones((1, n)), sparse.eye_array(devices))
    rules = [LinearConstraint(rows, -np.inf, 0) for rows in (below_x, below_y)]
    for layer in (first, second):
        rules += [LinearConstraint(one @ layer, 1, 1), LinearConstraint(each @ layer, n // devices, n // devices)]
    cost = np.concatenate([np.zeros(2 * sizes), -np.repeat(weight.ravel(), devices)])
    whole = np.concatenate([np.ones(2 * sizes), np.zeros(pairs * devices)])
    found = milp(cost, integrality=whole, bounds=Bounds(0, 1), constraints=rules, options={"mip_rel_gap": 1e-9})
    return float(-found.fun)


@claim.reference("ExFlow's integer programme, solved by branch and bound: the package's placement, and below the bound")
def by_programme(s: SimpleNamespace) -> Outcome:
    for experts, devices in ((4, 2), (6, 3)):
        for weight in profiles(experts)[-4:]:
            kept = programme(weight, devices)
            found = (1 - place_by_affinity(weight[None], devices).crossing) * weight.sum()
            if abs(kept - found) > 1e-6 * weight.sum():
                return fails(f"E={experts}, P={devices}: programme {kept:.6f}, placement {found:.6f}")
            if kept > s.bound(weight, devices) + 1e-6:
                return fails(
                    f"E={experts}, P={devices}: kept {kept:.6f}, claimed at most {s.bound(weight, devices):.6f}"
                )
    return holds("8 profiles: programme and placement agree, below the bound")
