"""One form for every log of a router: each token's choices, or the experts' counts of each step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.logs import counting

__all__ = ["RoutingLog"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RoutingLog:
    """A router's own record: choices of every token, or counts of every step. One of the two is given.

    Arrays may be of any whole-number type, byte order and memory layout, and may be mapped from files larger than
    memory: they are read by blocks of at most 4 million choices (32 MB) and never copied whole.

    Attributes:
        experts: number of experts n >= 2.
        choices: experts that each token took, whole numbers (tokens, layers, k); -1 where there is none (padding).
        weights: gate weights of the choices, finite and >= 0, same shape, or None.
        documents: document of each token (tokens,), whole numbers that never come back once they change, or None.
        counts: tokens per expert (steps, layers, experts), whole numbers >= 0, for logs without choices.
        tokens: tokens of each step (steps,), at least 1, with counts. No expert counts more.
        layers: names of the layers, layer.0 and so on unless given.
        source: name of the file or "arrays".
        notes: what a reader found and left out, one sentence each (padding rows, repeated rows).
        repeated: share of the tokens whose choices repeat an earlier row at one fixed distance, beyond what
            independent tokens would; near 0 in a log of real text. NaN where nobody looked.

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
    repeated: float = math.nan

    def __post_init__(self) -> None:
        if (self.choices is None) == (self.counts is None):
            raise ValueError(f"{self.source}: choices or counts must be given, one of the two")
        self._set("experts", arguments.whole("experts", self.experts, 2, 2**31))
        if self.counts is None:
            self._check_choices()
        else:
            self._check_counts()
        found = self._steps.shape[1]
        if not self.layers:
            self._set("layers", tuple(f"layer.{k}" for k in range(found)))
        self._set("layers", tuple(map(str, self.layers)))
        if len(self.layers) != found:
            raise ValueError(
                f"{self.source}: layers names {len(self.layers)} layers but must name the {found} that are logged"
            )
        twice = [name for at, name in enumerate(self.layers) if name in self.layers[:at]]
        if twice:
            raise ValueError(f"{self.source}: layers names {twice[0]!r} twice but must name each layer once")
        self._check_values()

    # --- checks ---

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def _steps(self) -> NDArray[Any]:
        """Choices or counts, whichever is there."""
        return self.choices if self.counts is None else self.counts

    def _array(self, name: str, axes: str, number: int, kinds: str = "iu") -> NDArray[Any]:
        """The field as an array with so many axes, none of which is empty."""
        value = getattr(self, name)
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"{self.source}: {name} is a masked array but must be one without a mask")
        try:
            array = np.asanyarray(value)
        except Exception:  # ragged lists
            raise TypeError(
                f"{self.source}: {name} is a {type(value).__name__} that is no array with the axes {axes}"
            ) from None
        if array.dtype.kind not in kinds:
            wanted = "whole numbers" if kinds == "iu" else "real numbers"
            raise TypeError(f"{self.source}: {name} has dtype {array.dtype} but must hold {wanted}")
        if array.ndim != number:
            raise ValueError(f"{self.source}: {name} has shape {array.shape} but must have the axes {axes}")
        if 0 in array.shape:
            raise ValueError(
                f"{self.source}: {name} has shape {array.shape} with the axes {axes}, of which each must be at least 1"
            )
        return array

    def _check_choices(self) -> None:
        self._set("choices", self._array("choices", "(tokens, layers, k)", 3))
        tokens, _, top = self.choices.shape
        if top > self.experts:
            raise ValueError(
                f"{self.source}: choices has k = {top} experts per token but k must be at most experts = {self.experts}"
            )
        if tokens < top:
            raise ValueError(
                f"{self.source}: choices has shape {self.choices.shape}, {tokens} tokens of k = {top} experts, "
                "but needs at least k tokens: its axes are (tokens, layers, k)"
            )
        if self.tokens is not None:
            raise ValueError(f"{self.source}: tokens goes with counts but choices are given")
        if self.weights is not None:
            self._set("weights", self._array("weights", "(tokens, layers, k)", 3, "iuf"))
            if self.weights.shape != self.choices.shape:
                raise ValueError(
                    f"{self.source}: weights has shape {self.weights.shape} but must have that of choices, "
                    f"{self.choices.shape}"
                )
        if self.documents is not None:
            self._set("documents", self._array("documents", "(tokens,)", 1))
            self._check_documents(tokens)

    def _check_documents(self, tokens: int) -> None:
        if len(self.documents) != tokens:
            raise ValueError(
                f"{self.source}: documents has {len(self.documents)} entries but must have one for each of the "
                f"{tokens} tokens"
            )
        array = np.asarray(self.documents)
        heads = np.flatnonzero(np.concatenate([[True], array[1:] != array[:-1]]))
        order = np.argsort(array[heads], kind="stable")
        ids = array[heads][order]
        again = np.flatnonzero(ids[1:] == ids[:-1])
        if again.size:
            at = int(heads[order][again[0] + 1])
            raise ValueError(
                f"{self.source}: documents[{at}] = {int(array[at])} comes back after another document: the tokens of a "
                "document must stand together"
            )

    def _check_counts(self) -> None:
        self._set("counts", self._array("counts", "(steps, layers, experts)", 3, "iuf"))
        steps, _, experts = self.counts.shape
        if experts != self.experts:
            raise ValueError(
                f"{self.source}: counts has shape {self.counts.shape}, {experts} experts, but experts = {self.experts}: "
                "its axes are (steps, layers, experts)"
            )
        for name in ("weights", "documents"):
            if getattr(self, name) is not None:
                raise ValueError(f"{self.source}: {name} goes with choices but counts are given")
        if self.tokens is None:
            raise ValueError(f"{self.source}: tokens, the number of tokens of each step, must be given with counts")
        tokens = arguments.integer("tokens", self.tokens, 1, 2**53)
        if tokens.shape != (steps,):
            raise ValueError(
                f"{self.source}: tokens has shape {tokens.shape} but must have one entry for each of the {steps} steps"
            )
        self._set("tokens", tokens)

    def _check_values(self) -> None:
        if self.counts is not None:
            self._check_sizes(np.asarray(self.counts))
            self._set("counts", np.asarray(self.counts).astype(np.int64, copy=False))
            return
        any_at_all = False
        for start, part in self.blocks():
            low, high = part.min(), part.max()
            if low < -1 or high >= self.experts:
                self._refuse("choices", start, part, (part < -1) | (part >= self.experts), f"-1 to {self.experts - 1}")
            any_at_all = any_at_all or high >= 0
            if self.weights is not None:
                weight = np.asarray(self.weights[start : start + len(part)])
                bad = ~(np.isfinite(weight) & (weight >= 0)) & (part >= 0)
                if bad.any():
                    self._refuse("weights", start, weight, bad, "a finite number of at least 0")
        if not any_at_all:
            raise ValueError(
                f"{self.source}: choices is -1 throughout, all padding, but must hold some token's experts"
            )

    def _check_sizes(self, counts: NDArray[Any]) -> None:
        if counts.dtype.kind == "f":
            self._refuse("counts", 0, counts, ~(counts == np.rint(counts)), "a whole number")
        self._refuse("counts", 0, counts, counts < 0, "at least 0")
        limit = self.tokens[:, None, None]
        self._refuse("counts", 0, counts, counts > limit, "at most the tokens of its step")
        if not counts.any():
            raise ValueError(f"{self.source}: counts is 0 throughout but must hold some tokens")

    def _refuse(self, name: str, start: int, part: NDArray[Any], bad: NDArray[np.bool_], wanted: str) -> None:
        if not bad.any():
            return
        row, layer, last = (int(k) for k in np.unravel_index(int(bad.argmax()), bad.shape))
        raise ValueError(
            f"{self.source}: {name}[{row + start}, {layer}, {last}] = {part[row, layer, last].item()}, layer "
            f"{self.layers[layer]!r}, must be {wanted}"
        )

    # --- what it says ---

    def __len__(self) -> int:
        """Number of tokens, those of all steps together."""
        return len(self.choices) if self.counts is None else int(self.tokens.sum())

    def __repr__(self) -> str:
        size = f"{len(self)} tokens" if self.counts is None else f"{len(self.counts)} steps of {len(self)} tokens"
        return f"<RoutingLog: {self.source}, {size}, {len(self.layers)} layers, {self.experts} experts, top-{self.top}>"

    @property
    def top(self) -> int:
        """Experts per token."""
        if self.choices is not None:
            return int(np.shape(self.choices)[2])
        total = float(np.asarray(self.counts, np.float64).sum(axis=(0, 2)).max())
        return max(1, round(total / float(np.sum(self.tokens))))

    def blocks(self, tokens: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """The choices by consecutive blocks of tokens: (first token, choices of the block) in native byte order.

        Args:
            tokens: tokens of a block, by default as many as make 4 million choices. The last block may be shorter.
        """
        if self.choices is None:
            raise ValueError(f"{self.source}: a log of counts has no single tokens: its loads are log.counts")
        size = tokens or max(1, counting.BLOCK // math.prod(self.choices.shape[1:]))
        for start in range(0, len(self.choices), size):
            yield start, counting.native(self.choices[start : start + size])

    def loads(self, block: int, layer: int | None = None) -> NDArray[np.int64]:
        """Tokens per expert in consecutive blocks of `block` tokens; the rest at the end is left out.

        One pass over the choices, in parts of at most 4 million: memory beside the result is bounded by 64 MB.

        Args:
            block: tokens per block, at least 1.
            layer: one layer, or all.

        Returns:
            Whole numbers (blocks, layers, experts), or (blocks, experts) for one layer. Padding counts nowhere.
        """
        if self.choices is None:
            raise ValueError("a log of counts has no single tokens: its loads are log.counts")
        size = int(arguments.integer("block", block, 1, 2**52))
        part = self.choices
        if layer is not None:
            at = arguments.whole("layer", layer, 0, len(self.layers) - 1)
            part = part[:, at : at + 1]
        blocks, width = len(part) // size, math.prod(part.shape[1:])
        result = np.zeros((blocks, part.shape[1], self.experts), np.int64)
        many = counting.worth_compiling(blocks * size * width)
        step = max(1, counting.BLOCK // width)
        for start in range(0, blocks * size, step):
            read = counting.native(part[start : min(start + step, blocks * size)])
            counting.count(read, start, size, result, many)
        return result if layer is None else result[:, 0]
