"""What no balanced placement can beat: each step between two layers alone, by assignment and by singular values.

A placement of two layers keeps sum_ij W_ij y_ij, where y_ij = 1 if the experts share a device. Every row and column of
y sums to c = experts / devices, so that the kept steps are at most the best y in [0, 1] with these sums. And y = X Z^T
where the columns of X and of Z are orthogonal, of length sqrt(c), with the vector of ones in their span; so they are at
most S/P + c (s_1 + ... + s_{P-1}), where S sums W and s are the singular values of W with rows and columns centred.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog

from resonance_theory.systems._affinity_search import Problem
from resonance_theory.typing import Floats

_MOST_BY_PROGRAMME = 64  # experts: minutes beyond

__all__ = ["assignment_bound", "least_cost", "spectral_bound"]


def least_cost(problem: Problem) -> float:
    """Below the cost of every placement: the sum of the parts' bounds."""
    lost = _lost(problem.weight, problem.devices)
    if problem.nodes > 1:
        lost += _lost(problem.weight, problem.nodes)
    return lost + problem.price * _imbalance(problem)


def assignment_bound(weight: Floats, groups: int) -> float:
    """At least what any balanced placement of two layers keeps: rows and columns of y sum to experts / groups.

    The bound is that of the dual variables, which holds whatever the solver's tolerance.
    """
    n = len(weight)
    each = n // groups
    if each == 1:
        row, column = linear_sum_assignment(weight, maximize=True)
        return float(weight[row, column].sum())
    if n > _MOST_BY_PROGRAMME:
        return min(float(np.sort(w, axis=1)[:, -each:].sum()) for w in (weight, weight.T))  # rows or columns alone
    ones = np.ones((1, n))
    sums = sparse.vstack([sparse.kron(sparse.eye_array(n), ones), sparse.kron(ones, sparse.eye_array(n))])
    found = linprog(-weight.ravel(), A_eq=sums, b_eq=np.full(2 * n, each), bounds=(0, 1), method="highs")
    dual = np.zeros(2 * n) if found.eqlin is None else -found.eqlin.marginals
    over = np.maximum(weight - dual[:n, None] - dual[n:], 0)
    return float(each * dual.sum() + over.sum())


def spectral_bound(weight: Floats, groups: int) -> float:
    """At least what any balanced placement of two layers keeps, by singular values."""
    centred = weight - weight.mean(axis=0) - weight.mean(axis=1, keepdims=True) + weight.mean()
    top = np.linalg.svd(centred, compute_uv=False)[: groups - 1]
    return float(weight.sum() / groups + len(weight) / groups * top.sum())


def _lost(weight: Floats, groups: int) -> float:
    kept = [min(float(w.sum()), assignment_bound(w, groups), spectral_bound(w, groups)) for w in weight]
    return float(weight.sum()) - sum(kept)


def _imbalance(problem: Problem) -> float:
    """The heaviest expert with the lightest others, or equal loads, whichever is more."""
    load = np.sort(problem.load, axis=1)
    largest = load[:, -1] + load[:, : problem.each - 1].sum(axis=1)
    return float(np.maximum(problem.devices * largest - 1, 0).mean())
