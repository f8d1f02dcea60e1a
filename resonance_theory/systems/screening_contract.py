"""A menu of contracts for clients whose cost is private: effort and reward of each type, by a closed form.

An owner pays clients for effort E, the local epochs of federated training, say. A client of type θ bears the cost ψE/θ
and knows θ; the owner knows only the shares of the types. Each client takes the item it likes best. The menu must leave
no one worse off than outside (individual rationality) and no one better off with another's item (incentive
compatibility).

This is the standard discrete screening model of incentives in federated learning (Kang et al. 2019, IEEE IoT Journal
6(6)). Whether arXiv 2310.06448 uses it is not known here: its text is not available.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike

__all__ = ["Contract", "best_contract", "full_information_effort", "virtual_cost"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Contract:
    """A menu with one item a type, in the order of the types; all arrays have shape (types,).

    Attributes:
        types: θ, rising: the cost of effort E is ψE/θ.
        shares: Share of clients of each type.
        effort: E, what each item asks for.
        reward: R, what it pays.
        cost: ψ.
        worth: ω; the owner values effort at ω ln(1+E).
    """

    types: Floats
    shares: Floats
    effort: Floats
    reward: Floats
    cost: float
    worth: float

    def utility(self) -> Floats:
        """Utility [k, j] of a client of type k that takes item j, R_j - ψE_j/θ_k."""
        return self.reward - self.cost * self.effort / self.types[:, None]

    def rent(self) -> float:
        """What clients keep on average above their cost: the price of their knowing more."""
        return float(self.shares @ np.diagonal(self.utility()))

    def profit(self) -> float:
        """What the owner keeps on average, Σ p_k [ω ln(1+E_k) - R_k]."""
        return float(self.shares @ (self.worth * np.log1p(self.effort) - self.reward))


def _client_types(types: ArrayLike, shares: ArrayLike) -> tuple[Floats, Floats]:
    theta = arguments.real("types", types, 0.0, open_low=True)
    share = arguments.distribution("shares", arguments.real("shares", shares, 0.0, open_low=True))
    if theta.ndim != 1 or theta.shape != share.shape:
        raise ValueError(f"types has shape {theta.shape} and shares {share.shape} but both must have shape (types,)")
    if (falls := np.flatnonzero(np.diff(theta) <= 0)).size:
        k = int(falls[0])
        raise ValueError(
            f"types[{k + 1}] = {theta[k + 1]:g} must exceed types[{k}] = {theta[k]:g}: types rise strictly"
        )
    return theta, share


def virtual_cost(types: ArrayLike, shares: ArrayLike, cost: float = 1.0) -> Floats:
    """Cost of a unit of effort of each type with the rent that it leaves to all better types.

    v_k = ψ [1/θ_k + (P_{>k}/p_k)(1/θ_k - 1/θ_{k+1})], P_{>k} the share of better types. It is above ψ/θ_k but for the
    best type, and need not fall with k. Error below 1e-14 relative, if no type exceeds the one below it by less than
    that. Claim: contract_optimal.

    Args:
        types: θ > 0, strictly rising, shape (types,).
        shares: Positive, sum to 1, shape (types,).
        cost: ψ > 0.

    Returns:
        Shape (types,).

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> virtual_cost([1, 2, 4], [0.25, 0.5, 0.25]).tolist()
        [2.5, 0.625, 0.25]
    """
    theta, share = _client_types(types, shares)
    psi = arguments.number("cost", cost, 0.0, open_low=True)
    better = np.append(np.cumsum(share[:0:-1])[::-1], 0.0)
    step = np.append(np.diff(theta) / theta[1:], 0.0)  # θ_k (1/θ_k - 1/θ_{k+1})
    with np.errstate(over="ignore"):  # a type that small costs more than can be written: infinity
        return psi / theta * (1.0 + better / share * step)


def full_information_effort(types: ArrayLike, cost: float = 1.0, worth: float = 1.0) -> Floats:
    """Effort that the owner would ask for if it knew the types: ω/(1+E) = ψ/θ, or 0.

    Args:
        types: θ > 0, any shape.
        cost: ψ > 0.
        worth: ω > 0.

    Returns:
        The shape of types.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> full_information_effort([1, 2, 4], worth=3).tolist()
        [2.0, 5.0, 11.0]
    """
    theta = arguments.real("types", types, 0.0, open_low=True)
    psi, omega = (arguments.number(name, x, 0.0, open_low=True) for name, x in (("cost", cost), ("worth", worth)))
    return np.maximum((omega * theta - psi) / psi, 0.0)


def best_contract(types: ArrayLike, shares: ArrayLike, cost: float = 1.0, worth: float = 1.0) -> Contract:
    """The menu that is best for an owner who values effort at ω ln(1+E) and cannot see types.

    Efforts: ω/(1+E_k) is the virtual cost, after adjacent types that violate its fall have been pooled at their mean,
    or E_k = 0. Rewards: R_k = Σ_{j<=k} ψ(E_j - E_{j-1})/θ_j, so that the least type is indifferent to leaving and every
    other to the item below its own. Claims: contract_binding, contract_optimal, contract_rent.

    Args:
        types: θ > 0, strictly rising, shape (types,).
        shares: Positive, sum to 1, shape (types,).
        cost: ψ > 0.
        worth: ω > 0.

    Returns:
        The menu. Pooled types share one item.

    Raises:
        ValueError: Types do not rise, shares do not sum to 1, or another argument is outside its range.

    Example:
        >>> menu = best_contract([1, 2, 4], [0.25, 0.5, 0.25], worth=5)
        >>> menu.effort.tolist(), menu.reward.tolist()
        ([1.0, 7.0, 19.0], [1.0, 4.0, 7.0])
        >>> menu.rent()
        0.8125
    """
    theta, share = _client_types(types, shares)
    psi, omega = (arguments.number(name, x, 0.0, open_low=True) for name, x in (("cost", cost), ("worth", worth)))
    pooled = isotonic_regression(virtual_cost(theta, share, psi), weights=share, increasing=False).x
    effort = np.where(pooled < omega, (omega - pooled) / np.minimum(pooled, omega), 0.0)  # also at an infinite cost
    rise = np.diff(effort, prepend=0.0)
    reward = np.cumsum(np.divide(psi * rise, theta, out=np.zeros_like(rise), where=rise > 0))
    return Contract(theta, share, effort, reward, psi, omega)
