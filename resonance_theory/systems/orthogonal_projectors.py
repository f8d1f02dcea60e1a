"""Projectors that keep an update away from inputs seen before, and what averaging several of them leaves of that.

For inputs X (rows) and a ridge a > 0, P = a (aI + XᵀX)^-1 shrinks the span of X and leaves what is orthogonal to it. An
update ΔW P changes the layer's output at an x of X by at most a/(a+σ²) of what ΔW does. Orthogonal weight modification
(Zeng et al. 2019) builds P row by row; OMoE (arXiv 2310.09762) averages the projectors of the other experts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike

__all__ = ["averaged_projector", "input_projector", "update_projector"]

Floats = NDArray[np.float64]


def _rows(name: str, value: ArrayLike) -> Floats:
    x = arguments.real(name, value)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name} has shape {x.shape} but must have shape (rows, features)")
    return x


def input_projector(x: ArrayLike, ridge: float = 1e-3) -> Floats:
    """P = a (aI + XᵀX)^-1, from the singular values of X: a/(a+σ²) along its directions, 1 across them.

    Eigenvalues have an absolute error of about 1e-15. Claims: projector_recursion, projector_limit.

    Args:
        x: Inputs (rows, features).
        ridge: a > 0.

    Returns:
        Symmetric, shape (features, features), eigenvalues in (0, 1].

    Raises:
        ValueError: x is no matrix, or a is not above 0.

    Example:
        >>> input_projector([[3.0, 0.0]], ridge=1).round(12).tolist()
        [[0.1, 0.0], [0.0, 1.0]]
    """
    rows = _rows("x", x)
    a = arguments.number("ridge", ridge, 0.0, open_low=True)
    triangle = np.linalg.qr(rows, mode="r")  # as many rows as features at most, so that the full V costs no more
    _, sigma, v = np.linalg.svd(triangle, full_matrices=True)
    kept = np.ones(rows.shape[1])
    kept[: len(sigma)] = 1.0 / (1.0 + (sigma / np.sqrt(a)) ** 2)
    return (v.T * kept) @ v


def update_projector(projector: ArrayLike, x: ArrayLike, ridge: float = 1e-3) -> Floats:
    """One step of the recursion, P - (Px)(Px)ᵀ/(a + xᵀPx), for a single input x.

    From P = I it gives `input_projector` of all inputs so far. Claim: projector_recursion.

    Args:
        projector: P, symmetric (features, features).
        x: One input (features,).
        ridge: a > 0, the same at every step.

    Returns:
        The next P.

    Raises:
        ValueError: Shapes do not match, or a is not above 0.

    Example:
        >>> import numpy as np
        >>> update_projector(np.eye(2), [3.0, 0.0], ridge=1).round(12).tolist()
        [[0.1, 0.0], [0.0, 1.0]]
    """
    p, row = _rows("projector", projector), arguments.real("x", x)
    a = arguments.number("ridge", ridge, 0.0, open_low=True)
    if p.shape[0] != p.shape[1] or row.shape != p.shape[1:]:
        raise ValueError(
            f"projector has shape {p.shape} and x {row.shape} but they must have shapes (features, features) and (features,)"
        )
    px = p @ row
    return p - np.outer(px, px) / (a + row @ px)


def averaged_projector(projectors: ArrayLike) -> Floats:
    """Mean of the projectors of several experts.

    It keeps a direction whole only if all of them keep it, and removes it only if all of them do: along a direction
    that one of m experts has seen it leaves 1 - 1/m, so that an update is not orthogonal to that expert's inputs.
    Claim: projector_average.

    Args:
        projectors: (experts, features, features), at least one.

    Returns:
        (features, features).

    Raises:
        ValueError: The shape is another.

    Example:
        >>> averaged_projector([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]).tolist()
        [[0.5, 0.0], [0.0, 1.0]]
    """
    p = arguments.real("projectors", projectors)
    if p.ndim != 3 or p.shape[0] == 0 or p.shape[1] != p.shape[2]:
        raise ValueError(f"projectors has shape {p.shape} but must have shape (experts, features, features)")
    return p.mean(axis=0)
