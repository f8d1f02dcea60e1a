"""One form for every log of a router: each token's choices, or the experts' counts of each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments

__all__ = ["RoutingLog"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RoutingLog:
    """A router's own record: choices of every token, or counts of every step. One of the two is given.

    Attributes:
        experts: number of experts n >= 2.
        choices: experts that each token took, whole numbers (tokens, layers, k); -1 where there is none (padding).
        weights: gate weights of the choices, same shape, or None.
        documents: document of each token (tokens,), whole numbers that never come back once they change, or None.
        counts: tokens per expert (steps, layers, experts), whole numbers >= 0, for logs without choices.
        tokens: tokens of each step (steps,), with counts.
        layers: names of the layers.
        source: name of the file or "arrays".
        notes: what a reader found and left out, one sentence each (padding rows, repeated rows).

    Raises:
        ValueError, TypeError: one sentence that names the field, its value and what is allowed.

    Example:
        >>> import numpy as np
        >>> log = RoutingLog(experts=4, choices=np.array([[[0, 1]], [[0, 2]], [[3, 0]], [[1, 2]]]))
        >>> log.loads(2)
        array([[[2, 1, 1, 0]],
        <BLANKLINE>
               [[1, 1, 1, 1]]])
    """

    experts: int
    choices: Any = None
    weights: Any = None
    documents: Any = None
    counts: Any = None
    tokens: Any = None
    layers: tuple[str, ...] = ()
    source: str = "arrays"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.choices is None) == (self.counts is None):
            raise ValueError("choices or counts must be given, one of the two")
        found = np.shape(self.choices if self.counts is None else self.counts)
        if len(found) != 3:
            name, axes = (
                ("choices", "(tokens, layers, k)") if self.counts is None else ("counts", "(steps, layers, experts)")
            )
            raise ValueError(f"{name} has shape {found} but must have the axes {axes}")
        if not self.layers:
            object.__setattr__(self, "layers", tuple(f"layer.{k}" for k in range(found[1])))

    @property
    def top(self) -> int:
        """Experts per token."""
        if self.choices is not None:
            return int(np.shape(self.choices)[2])
        total = np.asarray(self.counts, np.float64)[:, 0].sum()
        return max(1, round(total / float(np.sum(self.tokens))))

    def loads(self, block: int, layer: int | None = None) -> NDArray[np.int64]:
        """Tokens per expert in consecutive blocks of `block` tokens; the rest at the end is left out.

        Args:
            block: tokens per block, at least 1.
            layer: one layer, or all.

        Returns:
            Whole numbers (blocks, layers, experts), or (blocks, experts) for one layer. Padding counts nowhere.
        """
        if self.choices is None:
            raise ValueError("a log of counts has no single tokens: its loads are log.counts")
        size = int(arguments.integer("block", block, 1, 2**52))
        part = np.asarray(self.choices) if layer is None else np.asarray(self.choices)[:, [layer]]
        blocks = len(part) // size
        result = np.empty((blocks, part.shape[1], self.experts), np.int64)
        for b in range(blocks):
            for at in range(part.shape[1]):
                chosen = part[b * size : (b + 1) * size, at].ravel()
                result[b, at] = np.bincount(chosen[chosen >= 0], minlength=self.experts)
        return result if layer is None else result[:, 0]
