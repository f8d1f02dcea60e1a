"""Measurements of dispatch that the studies of homogenization share: of tokens by expert, of pairs, and their laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from resonance_theory import homogenization
from resonance_theory.homogenization import cells

SAME_TOKENS = 1000  # on which experts' outputs are compared


def spread(tokens: np.ndarray, expert: np.ndarray) -> dict[str, float]:
    """Calinski-Harabasz as printed and standard, and 1 - mean cosine of the experts' centroids; 0 if one expert has all."""
    used = np.unique(expert)
    if len(used) < 2:
        return dict.fromkeys(("calinski-harabasz", "calinski-harabasz, standard", "centroid distance"), 0.0)
    cosines = homogenization.centroid_cosines(tokens, expert)
    return {
        "calinski-harabasz": float(homogenization.calinski_harabasz(tokens, expert, normalized=False)),
        "calinski-harabasz, standard": float(homogenization.calinski_harabasz(tokens, expert)),
        "centroid distance": 1 - float(cosines[~np.eye(len(used), dtype=bool)].mean()),
    }


def information(group: np.ndarray, groups: int, expert: np.ndarray, experts: int) -> float:
    """Mutual information in nats of the group and the expert of kept tokens; 0 for none."""
    table = np.zeros((groups, experts))
    np.add.at(table, (group, expert), 1)
    return homogenization.dispatch_information(table) if len(group) else 0.0


def balance(load: np.ndarray) -> dict[str, float]:
    """How even the loads of the experts are."""
    return {
        "entropy": float(homogenization.dispatch_entropy(load)),
        "load cv": float(homogenization.load_cv(load)),
        "heaviest share": load.max() / load.sum(),
    }


def routing(
    x: np.ndarray, group: np.ndarray, groups: int, choice: np.ndarray, token: np.ndarray, used: np.ndarray
) -> dict[str, float]:
    """Of one run. x: (samples, tokens, dim); group and choice (samples, tokens): a token's group and best expert;
    token, used: as of `dispatch`."""
    experts = token.shape[1]
    sample, expert, slot = np.nonzero(used)
    kept = token[sample, expert, slot]
    load = np.bincount(choice.ravel(), minlength=experts)
    return {
        "processed": len(kept) / len(x),
        **spread(x[sample, kept], expert),
        "information": information(group[sample, kept], groups, expert, experts),
        **balance(load),
        "load gini": float(homogenization.load_gini(load)),
    }


def distances(x: np.ndarray, token: np.ndarray, used: np.ndarray) -> dict[str, np.ndarray]:
    """1 - cosine of every pair of tokens of a mosaic, and of the pairs that some expert keeps both of."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    cosine = unit @ unit.swapaxes(1, 2)
    member = np.zeros((len(x), token.shape[1], x.shape[1]), dtype=np.float32)
    sample, expert, slot = np.nonzero(used)
    member[sample, expert, token[sample, expert, slot]] = 1
    first, second = np.triu_indices(x.shape[1], 1)
    together = (member.swapaxes(1, 2) @ member)[:, first, second] > 0
    pair = 1 - cosine[:, first, second]
    return {"token distance": pair.ravel(), "token distance at one expert": pair[together]}


def means(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean of each measurement's values; 0 for none."""
    return {name: float(values.mean()) if len(values) else 0.0 for name, values in found.items()}


def mean_of_pairs(measure: Callable[[Any, Any], Any], outputs: Any) -> float:
    """Mean over pairs of experts of a measure of their outputs (experts, tokens, ...), such as `homogenization.linear_cka`."""
    return float(np.mean([float(measure(outputs[i], outputs[j])) for i, j in zip(*np.triu_indices(len(outputs), 1))]))


def laws(gates: np.ndarray, covariance: np.ndarray) -> dict[str, float]:
    """Exact values for tokens x = S z, z isotropic Gaussian, S S = covariance, and unit gates (experts, dim).

    <w, S z> = <S w, z>, so the cells of the gates S w in z give the shares, and S their first moments those of x.
    """
    value, vector = np.linalg.eigh(covariance)
    root = (vector * np.sqrt(np.maximum(value, 0))) @ vector.T
    found = cells.cells(gates @ root)
    moment = found.mean @ root
    between = float(((moment**2).sum(axis=1) / found.share).sum())
    unit = moment / np.linalg.norm(moment, axis=1, keepdims=True)
    cosine = (unit @ unit.T)[~np.eye(len(gates), dtype=bool)].mean()
    return {
        "calinski-harabasz law": between / (np.trace(covariance) - between),
        "centroid distance law": 1 - cosine,
        "heaviest share law": found.share.max(),
        "winning projection law": float((gates * moment).sum()),
    }
