"""Fit the law of documents to a log, and predict any other number of tokens.

From choices with document ids the correlation is read off pairs of tokens: two tokens of one document share an expert
more often than two tokens of different documents. From counts at two block sizes it is read off the variances, which
grow from the smaller block to the larger as far as documents reach.
Both give `Rates` with the experts' measured shares as nodes, which every rule reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.capacity_factor import slots
from resonance_theory.logs.log import RoutingLog
from resonance_theory.rules import Documents, Rates, token_choice
from resonance_theory.typing import ArrayLike, Floats, Whole

__all__ = ["DocumentFit", "fit_documents", "fit_two_blocks"]

_MOST_LENGTHS = 12  # of random documents: time grows with their number


@dataclass(frozen=True, eq=False)
class DocumentFit:
    """The law of documents of one layer, fitted.

    Attributes:
        share: measured probability that a token takes each expert (experts,); sums to `top`.
        top: experts per token.
        counts: the fitted `Documents`.
        tokens: tokens that were fitted.
    """

    share: Floats
    top: int
    counts: Documents
    tokens: int

    @property
    def rates(self) -> Rates:
        """Measured shares as nodes of the load, with the fitted dependence; reads the shares as known."""
        n = self.share.size
        return Rates(experts=n, top=self.top, load=self.share, weight=np.full(n, 1 / n), counts=self.counts)

    def for_new(self, tokens: int) -> Rates:
        """The same for samples that were not fitted, of that many tokens.

        M fitted tokens know a share only to D(M)/M of π(1-π), D the variance ratio. A new load of s tokens varies by that
        much more about the estimate, and the correlation is raised to give a variance ratio of D(s) + s D(M)/M.
        """
        s = arguments.whole("tokens", tokens, 2)
        ratio = float(self.counts.variance_ratio(s)) - 1
        unknown = s * float(self.counts.variance_ratio(self.tokens)) / self.tokens
        kappa = float(np.asarray(self.counts.correlation))
        if ratio <= 0:  # independent tokens: the shares' error is common to the sample
            return self.rates.replace(counts=Documents(min(unknown / (s - 1), 1.0), s, aligned=True))
        counts = Documents(
            min(kappa * (1 + unknown / ratio), 1.0), self.counts.length, self.counts.weight, self.counts.aligned
        )
        return self.rates.replace(counts=counts)

    def drop(self, tokens: int, factor: float, *, new: bool = True) -> float:
        """Expected drop rate of samples of `tokens` tokens at a capacity factor.

        Args:
            tokens: tokens of a sample.
            factor: capacity factor > 0; the capacity is ceil(factor top tokens / experts).
            new: for samples that were not fitted (`for_new`), else for the fitted shares.
        """
        size = slots(factor, tokens, self.share.size, top=self.top)
        return float(token_choice.drop_rate(tokens, size, self.for_new(tokens) if new else self.rates))


def fit_documents(log: RoutingLog, layer: int = 0) -> DocumentFit:
    """Fit to choices with document ids: shares, correlation and lengths, without iteration.

    correlation = (A - B)/(top - B), with A = Σ_e P(two tokens of one document both take expert e) over all such pairs and
    B the same for tokens of different documents, which estimates Σ π_e². Lengths are those of the documents.

    Args:
        log: choices with documents, at least two of them.
        layer: which layer.

    Raises:
        ValueError: where there are no documents, one alone, or none of two tokens.

    >>> import numpy as np
    >>> from resonance_theory.logs import RoutingLog, fit_documents
    >>> rng = np.random.default_rng(0)
    >>> likes = np.repeat(rng.dirichlet([2.0] * 8, size=200), 100, axis=0)  # correlation 1/17 in documents of 100 tokens
    >>> choices = (likes.cumsum(axis=1) < rng.random((20000, 1))).sum(axis=1)[:, None, None]
    >>> log = RoutingLog(experts=8, choices=choices, documents=np.repeat(np.arange(200), 100))
    >>> fit = fit_documents(log)
    >>> print(fit.counts, f"{fit.drop(512, 1.25):.3f}")
    documents of 100 tokens on average, correlated by 0.0615438 inside, in samples that cut documents anywhere 0.044
    """
    if log.choices is None or log.documents is None:
        raise ValueError("log.choices and log.documents must be given: the tokens of a document are compared")
    choices = np.asarray(log.choices)
    at = arguments.whole("layer", layer, 0, choices.shape[1] - 1)
    chosen = choices[:, at]
    name = np.asarray(log.documents)
    real = (chosen >= 0).any(axis=1)  # padding belongs to no document
    chosen, name = chosen[real], name[real]
    start = np.flatnonzero(np.append(True, name[1:] != name[:-1])) if len(name) else np.zeros(0, np.int64)
    length = np.diff(np.append(start, len(name)))
    if len(length) < 2 or length.max() < 2:
        raise ValueError(
            f"log.documents holds {len(length)} document{'s' * (len(length) != 1)} of at most {length.max(initial=0)} tokens "
            "but must hold two, one of at least two tokens"
        )
    owner = np.repeat(np.arange(len(length)), length)
    keep = chosen >= 0
    flat = (owner[:, None] * log.experts + chosen)[keep]
    load = np.bincount(flat, minlength=len(length) * log.experts).reshape(len(length), log.experts).astype(np.float64)
    m, total = length.astype(np.float64), load.sum(axis=0)
    inside = (load * (load - 1)).sum() / (m * (m - 1)).sum()
    between = (np.square(total).sum() - np.square(load).sum()) / (m.sum() ** 2 - np.square(m).sum())
    share = total / m.sum()
    room = share.sum() - between
    kappa = float(np.clip((inside - between) / room, 0.0, 1.0)) if room > 0 else 0.0
    sizes, weight = _grouped(length)
    counts = Documents(kappa, sizes, weight=weight)
    return DocumentFit(np.minimum(share, 1.0), log.top, counts, int(m.sum()))


def _grouped(length: Whole) -> tuple[Whole, Floats]:
    """At most 12 lengths with weights, groups of like lengths with the same tokens and, to rounding, pairs of tokens."""
    sizes, times = np.unique(length, return_counts=True)
    group = np.arange(sizes.size)
    if sizes.size > _MOST_LENGTHS:
        group = (np.log(sizes / sizes[0]) / np.log(sizes[-1] / sizes[0]) * (_MOST_LENGTHS - 1e-9)).astype(np.int64)
    tokens, pairs = np.bincount(group, times * sizes), np.bincount(group, times * sizes.astype(np.float64) ** 2)
    some = tokens > 0
    found = np.rint(pairs[some] / tokens[some]).astype(np.int64)
    weight = tokens[some] / found
    return found, weight / weight.sum()


def fit_two_blocks(
    small: ArrayLike, small_tokens: int, large: ArrayLike, large_tokens: int, top: int = 1
) -> DocumentFit:
    """Fit to counts of blocks of two sizes: documents of one length, cut anywhere.

    The excess of the variance over the binomial one is correlation x (mean partners of a token in its document and
    block). Its growth from the small blocks to the large gives the length, its size the correlation. Growth as of
    one document, or more, gives the longest length, 16 large blocks; no growth gives length 2.

    Args:
        small: tokens per expert in blocks of `small_tokens`, whole numbers (blocks, experts), at least two blocks.
        small_tokens: tokens of a small block, at least 2.
        large: the same for larger blocks.
        large_tokens: tokens of a large block, above small_tokens.
        top: experts per token.

    >>> import numpy as np
    >>> from resonance_theory.logs import fit_two_blocks
    >>> rng = np.random.default_rng(1)
    >>> likes = np.repeat(rng.dirichlet([2.0] * 8, size=4000), 100, axis=0)
    >>> chosen = (likes.cumsum(axis=1) < rng.random((len(likes), 1))).sum(axis=1)
    >>> def loads(block):
    ...     whole = chosen[: len(chosen) // block * block]
    ...     return np.array([np.bincount(part, minlength=8) for part in whole.reshape(-1, block)])
    >>> print(fit_two_blocks(loads(64), 64, loads(1024), 1024).counts)
    documents of 103 tokens, correlated by 0.0584151 inside, in samples that cut documents anywhere
    """
    s1 = arguments.whole("small_tokens", small_tokens, 2)
    s2 = arguments.whole("large_tokens", large_tokens, s1 + 1)
    k = arguments.whole("top", top, 1)
    first, second = _loads("small", small), _loads("large", large)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"small and large have {first.shape[1]} and {second.shape[1]} experts but must have the same")
    excess = np.array([_excess(first, s1), _excess(second, s2)])
    share = second.sum(axis=0) / (len(second) * s2)
    if excess[1] <= 0 or excess[0] <= 0:
        kappa, length = 0.0, 1
    else:
        length = _length(excess[1] / excess[0], s1, s2)
        partners = float(Documents(1.0, length).variance_ratio(s2)) - 1
        kappa = min(float(excess[1]) / partners, 1.0)
    return DocumentFit(np.minimum(share, 1.0), k, Documents(kappa, length), len(second) * s2)


def _loads(name: str, value: ArrayLike) -> Whole:
    load = arguments.integer(name, value, 0, 2**40)
    if load.ndim != 2 or len(load) < 2 or load.shape[1] < 2:
        raise ValueError(f"{name} has shape {load.shape} but must have the axes (blocks, experts), two or more of each")
    return load


def _excess(load: Any, tokens: int) -> float:
    """Variance over the binomial one, pooled over the experts, less 1; π(1-π) estimated without bias."""
    share = load.mean(axis=0) / tokens
    variance = load.var(axis=0, ddof=1)
    binomial = tokens * (share * (1 - share) + variance / (len(load) * tokens**2)).sum()
    return float(variance.sum() / binomial - 1) if binomial > 0 else 0.0


def _length(growth: float, s1: int, s2: int) -> int:
    """Length of documents whose excess variance grows by that factor from s1 to s2 tokens; it grows with the length."""
    low, high = 2, 16 * s2

    def reached(length: int) -> float:
        ratio = Documents(1.0, length).variance_ratio([s1, s2]) - 1
        return float(ratio[1] / ratio[0])

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) < growth else (low, middle)
    return high if growth > reached(low) else low
