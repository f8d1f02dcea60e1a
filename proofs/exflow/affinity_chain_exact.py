"""With one expert of each layer on a device the best placement is a chain of assignments, each layer pair on its own.

A placement of L layers is L permutations x_0, ..., x_{L-1}: expert to device. Let m_l take an expert of layer l to
the expert of layer l+1 on its device: m_l = x_{l+1}^{-1} x_l. The kept steps are sum_l sum_i W_l[i, m_l(i)], a sum of
L-1 terms, the l-th of m_l alone. And x -> (m_0, ..., m_{L-2}) reaches all (E!)^{L-1} sequences of permutations, each
from the E! placements that differ by the names of devices: given x_0 and the m's, x_{l+1} = x_l m_l^{-1}. No
constraint ties the m's to each other, so that the best m's of the pairs, L-1 assignment problems, make the best
placement; the order in which they are solved does not matter, and nothing is lost by looking at a pair alone. A step
that closes the chain (from the last layer to the first), prices between unlike devices, or several experts on a
device each tie the m's, and then this is not so (affinity_layerwise, affinity_two_levels).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from scipy.optimize import linprog

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.affinity_placement import place_by_affinity


def hungarian(weight: np.ndarray) -> int:
    best = place_by_affinity(weight, weight.shape[1])
    return round((1 - best.crossing) * int(weight.sum()))


def heaviest_first(weight: np.ndarray) -> int:
    kept = 0
    for step in weight:
        left = step.copy()
        for _ in range(len(step)):
            i, j = np.unravel_index(left.argmax(), left.shape)
            kept += int(step[i, j])
            left[i, :] = left[:, j] = -1
    return kept


def side(kept: Callable[[np.ndarray], int]) -> SimpleNamespace:
    """`kept(W)`: most steps that stay on a device."""
    return SimpleNamespace(kept=kept)


def profiles(layers: int, experts: int, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(layers * 100 + experts)
    return [rng.integers(1, 12, (layers - 1, experts, experts)) for _ in range(number)]


claim = Claim(
    title="One expert a device: the best placement is one assignment problem for each pair of layers",
    statement=r"$\max_x\sum_l\sum_{ij}W_l[i,j]\,1[x_l(i)=x_{l+1}(j)]=\sum_l\max_\pi\sum_iW_l[i,\pi(i)]$ if $P=E$",
    hypotheses=("each layer puts one expert on each device", "a step costs the same between any two devices"),
    source="new; ExFlow integer program, solved there by branch and bound or bisection (arXiv 2401.08383)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(hungarian),
    mutant=side(heaviest_first),
    mutation="the heaviest pairs first in place of an assignment",
)


@claim.certificate("placements and sequences of permutations: every sequence from E! placements; values agree")
def bijection(s: SimpleNamespace) -> Outcome:
    for layers, experts in ((2, 3), (3, 3), (4, 3), (2, 4), (3, 4)):
        perms = list(itertools.permutations(range(experts)))
        met: dict[tuple[tuple[int, ...], ...], int] = {}
        weight = profiles(layers, experts, 1)[0]
        best = 0
        for x in itertools.product(perms, repeat=layers):
            m = tuple(tuple(after.index(d) for d in now) for now, after in itertools.pairwise(x))
            met[m] = met.get(m, 0) + 1
        for m in met:
            best = max(best, sum(int(w[i, j]) for w, one in zip(weight, m) for i, j in enumerate(one)))
        if len(met) != len(perms) ** (layers - 1) or set(met.values()) != {len(perms)}:
            return fails(f"L={layers}, E={experts}: {len(met)} sequences, {set(met.values())} placements each")
        if s.kept(weight) != best:
            return fails(f"L={layers}, E={experts}: kept {s.kept(weight)}, best {best}")
    return holds("five sizes: all sequences, each from E! placements, and the best is as claimed")


@claim.certificate("all placements of 40 profiles of three layers of three and of four experts")
def every_placement(s: SimpleNamespace) -> Outcome:
    for experts, number in ((3, 30), (4, 10)):
        perms = np.array(list(itertools.permutations(range(experts))))
        for weight in profiles(3, experts, number):
            best = 0
            for x in perms:  # the first layer's names are free; all x_1 and x_2 are tried
                first = weight[0][:, np.argsort(x)].trace()
                best = max(best, *(int(first + weight[1][np.argsort(x)][:, np.argsort(y)].trace()) for y in perms))
            if s.kept(weight) != best:
                return fails(f"{experts} experts: kept {s.kept(weight)}, best {best}")
    return holds("40 profiles: no placement keeps more, one keeps as many")


@claim.reference("linear programmes at 4 layers of 24 experts: no doubly stochastic matrices keep more")
def by_duality(s: SimpleNamespace) -> Outcome:
    weight = profiles(4, 24, 1)[0]
    n = weight.shape[1]
    sums = np.vstack([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    bound = sum(-linprog(-w.ravel(), A_eq=sums, b_eq=np.ones(2 * n), bounds=(0, None)).fun for w in weight)
    text = f"kept {s.kept(weight)}, dual bound {bound:.6f}"
    return holds(text) if abs(s.kept(weight) - bound) < 1e-6 else fails(text)
