"""Documents: tokens of one document share routes, documents are independent, and a sample cuts them anywhere.

A document of m tokens sends Beta-binomial(m, π, correlation) of them to an expert. A sample of s tokens is a stretch of
a stationary stream of documents, or begins with a document. The number N of candidates is then a sum of independent
beta-binomial counts, one a piece, averaged over the ways in which the stream can be cut.

    one length L      every cut is enumerated: the first piece is 1..L tokens long, each with probability 1/L
    random lengths    the renewal equation W_m = P(L >= m) B_m + Σ_{l<m} P(L = l) B_l W_{m-l} of the generating functions,
                      solved at all roots of unity

Two tokens at lag d lie in one document with probability E(L-d)_+/E L, which gives the variance in closed form.
Claim: documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules.dependence import INDEPENDENT, Counts, _beta_binomial, _place
from resonance_theory.typing import ArrayLike, Floats, Whole

__all__ = ["Documents"]

_MOST_TOKENS = 2**17  # of a sample: time grows with their square
_MOST_CUT = 2048  # tokens of a document of one length up to which every cut is enumerated: time grows with their cube
_MOST_CELLS = 2**25  # tokens times longest document, for generating functions: half as many complex numbers
_MOST_STEPS = 2**32  # tokens squared times lengths, for generating functions: time
_CHUNK = 2**22  # complex numbers of one part of the frequencies


@dataclass(frozen=True)
class Documents(Counts):
    """Documents of given or random lengths: beta-binomial inside a document, independent between documents.

    With length 1 or correlation 0 tokens are independent; with `aligned` one document that covers the sample is
    `BetaBinomial(correlation)`, and correlation 1 is `Blocks(length)`. Claim: documents.

    Accuracy: 1e-12 relative for one length (sums of positive terms). Random lengths, and one length of more than 2,048
    tokens inside a sample that is cut anywhere: 1e-12 absolute for probabilities and shares, so that a drop rate below
    1e-10 is only known to be small. Limits: samples of up to 2^17 tokens; in the second case at most 2^25 for tokens times
    the longest document inside a sample, and 2^32 for tokens squared times the number of lengths.

    Attributes:
        correlation: in [0, 1], that of two tokens of one document; broadcasts.
        length: tokens of a document, whole numbers >= 1; broadcasts, or with `weight` the possible lengths (one axis).
        weight: probabilities of the lengths of documents (each document counts once), same shape as length.
        aligned: whether every sample begins with a document; else it begins anywhere in one.

    Raises:
        ValueError, TypeError: one sentence that names the field, its value and what is allowed.

    Example:
        >>> import resonance_theory as rt
        >>> for tokens in (256, 1024, 4096):
        ...     rates = rt.Rates(experts=8, counts=rt.Documents(0.04, 300))
        ...     print(f"{rt.token_choice.drop_rate(tokens, tokens * 5 // 32, rates):.4f}")
        0.0996
        0.0345
        0.0036
    """

    # arrays once made; anything array-like goes in
    correlation: Any
    length: Any
    weight: Any = None
    aligned: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "correlation", arguments.probability("correlation", self.correlation))
        length = arguments.integer("length", self.length, 1, 2**52)
        if self.weight is not None:
            weight = arguments.distribution("weight", self.weight)
            if length.shape != weight.shape or weight.ndim != 1:
                raise ValueError(
                    f"length {length.shape} and weight {weight.shape} must have the same single axis, of possible lengths"
                )
            length, at = np.unique(length[weight > 0], return_inverse=True)
            weight = np.asarray(np.bincount(at, weight[weight > 0]), np.float64)
            object.__setattr__(self, "weight", weight / weight.sum())
        object.__setattr__(self, "length", length)
        if not isinstance(self.aligned, bool | np.bool_):
            raise TypeError(f"aligned = {self.aligned!r} must be True or False")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {"correlation": np.shape(self.correlation)}
        return shapes if self.weight is not None else shapes | {"length": np.shape(self.length)}

    def same_document(self, lag: ArrayLike) -> Floats:
        """Probability that two tokens of a stationary stream, `lag` apart, lie in one document: E(L-lag)_+/E L.

        >>> import resonance_theory as rt
        >>> rt.Documents(0.04, [100, 400], weight=[0.5, 0.5]).same_document([0, 100, 250])
        array([1. , 0.6, 0.3])
        """
        d = arguments.integer("lag", lag, 0, 2**52)
        if self.weight is None:
            arguments.same_shapes(lag=d.shape, length=np.shape(self.length))
            return np.maximum(1 - d / np.asarray(self.length), 0.0)
        left = np.maximum(self.length - d[..., None], 0)
        return (left @ self.weight) / (self.length @ self.weight)

    def variance_ratio(self, tokens: ArrayLike) -> Floats:
        """Variance of the load over the binomial one: 1 + correlation x (mean partners of a token in its document).

        >>> import resonance_theory as rt
        >>> rt.Documents(0.04, 300).variance_ratio([1, 256, 4096]).round(3)
        array([ 1.   ,  8.287, 12.667])
        """
        s = arguments.integer("tokens", tokens, 1, 2**52)
        arguments.same_shapes(tokens=s.shape, **self.shapes())
        return 1.0 + np.asarray(self.correlation) * self._partners(s)

    def _partners(self, s: Whole) -> Floats:
        """Σ m(m-1)/s over the pieces of m tokens, on average."""
        if self.weight is None:
            length = np.asarray(self.length)
            if self.aligned:
                whole, rest = (part.astype(np.float64) for part in np.divmod(s, length))
                return (whole * length * (length - 1.0) + rest * (rest - 1)) / s
            return _cut_pairs(s, length) / (s * length.astype(np.float64))
        if not self.aligned:
            return (_cut_pairs(s[..., None], self.length) @ self.weight) / (s * (self.length @ self.weight))
        most = int(s.max(initial=0))
        _bounded("tokens", most, _MOST_TOKENS)
        length, weight = np.asarray(self.length), np.asarray(self.weight)
        pairs, longer = np.zeros(most + 1), _longer(length, weight, most)
        for m in range(1, most + 1):
            inside = length < m
            size, chance = length[inside], weight[inside]
            pairs[m] = chance @ (size * (size - 1.0) + pairs[m - size]) + longer[m] * m * (m - 1.0)
        return pairs[s] / s

    def cost(self, tokens: int, rule: str) -> float:
        piece = min(tokens, int(np.max(self.length)))
        if self.weight is not None:
            return tokens * np.size(self.length) * tokens / 50.0
        return tokens**2 / 2000.0 + (0.0 if self.aligned else piece**3 / 6000.0) + tokens

    def __str__(self) -> str:
        mean = self.length if self.weight is None else self.length @ self.weight
        kind = "tokens" if self.weight is None else "tokens on average"
        which = "that begin with a document" if self.aligned else "that cut documents anywhere"
        return (
            f"documents of {np.asarray(mean).item():.6g} {kind}, correlated by {np.asarray(self.correlation).item():.6g} "
            f"inside, in samples {which}"
        )

    # --- verbs ---------------------------------------------------------------------------------------------------------

    @property
    def _alone(self) -> bool:
        """Whether tokens are independent."""
        return bool(np.all((np.asarray(self.correlation) == 0) | (np.asarray(self.length) == 1)))

    def position(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        if self._alone:
            return self._wide(INDEPENDENT.position(s, c, at))
        # the stream's tokens in front of one that falls anywhere: N_k of k of them, k uniform on 0..s-1
        return _logs(*self._sums(s, c, at, None, lambda n, c, rho: (n < c, n >= c), ahead=True))

    def shuffled(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        if self._alone:
            return self._wide(INDEPENDENT.shuffled(s, c, at))

        def shares(n: Floats, c: Floats, rho: Floats) -> tuple[Floats, Floats]:
            return np.minimum(1.0, c / (n + 1)), np.maximum(n + 1 - c, 0) / (n + 1)

        return _logs(*self._sums(s - 1, c, at, None, shares))

    def ranked(self, s: Whole, c: Whole, at: Threshold, percentile: Floats) -> _law.Logs:
        if self._alone:
            return self._wide(INDEPENDENT.ranked(s, c, at, percentile))

        def places(n: Floats, c: Floats, rho: Floats) -> tuple[Floats, Floats]:
            place = _place(n.astype(np.int64), c.astype(np.int64), Threshold.of(rho))
            return np.exp(place.success), np.exp(place.failure)

        return _logs(*self._sums(s - 1, c, at, percentile, places))

    def shares(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        return self._wide(INDEPENDENT.shares(s, c, at)) if self._alone else super().shares(s, c, at)

    def _wide(self, logs: _law.Logs) -> _law.Logs:
        """In the shape that the model's own parameters ask for."""
        shape = np.broadcast_shapes(logs.success.shape, *self.shapes().values())
        return _law.Logs(*(np.broadcast_to(part, shape) for part in logs))

    def _moments(self, s: Whole, c: Whole, at: Threshold) -> tuple[Floats, Floats]:
        return self._sums(s, c, at, None, lambda n, c, rho: (np.minimum(n, c), np.maximum(n - c, 0)))

    def _sums(
        self,
        trials: Whole,
        c: Whole,
        at: Threshold,
        extra: Floats | None,
        terms: Callable[..., Any],
        ahead: bool = False,
    ) -> tuple[Floats, Floats]:
        """Two sums over the law of the count; elements that differ in capacity alone share one law."""
        length = np.asarray(1 if self.weight is not None else self.length)
        arrays = np.broadcast_arrays(trials, c, at.p, at.q, self.correlation, length, 0.0 if extra is None else extra)
        shape = arrays[0].shape
        trials, c, p, q, kappa, length, rho = (value.ravel() for value in arrays)
        result = np.empty((2, trials.size))
        keys = np.stack([trials, p, q, kappa, length], axis=1)
        found, owner = np.unique(keys, axis=0, return_inverse=True)
        order = np.argsort(owner.ravel(), kind="stable")
        ends = np.searchsorted(owner.ravel()[order], np.arange(len(found) + 1))
        for k, (t, p1, q1, kappa1, size) in enumerate(found):
            law = self._law(int(t), float(p1), float(q1), float(kappa1), int(size), ahead)
            n = np.arange(law.size, dtype=np.float64)
            for i in order[ends[k] : ends[k + 1]]:
                keep, lose = terms(n, np.float64(c[i]), rho[i])
                result[:, i] = law @ keep, law @ lose
        return result[0].reshape(shape), result[1].reshape(shape)

    def _law(self, trials: int, p: float, q: float, kappa: float, length: int, ahead: bool) -> Floats:
        """Masses of the count among `trials` tokens, or averaged over the first 0..trials-1 of them (`ahead`)."""
        _bounded("tokens", trials, _MOST_TOKENS)
        length = min(length, max(trials, 1)) if self.aligned else length
        inside = min(trials, length if self.weight is None else int(np.max(self.length)))
        cut = not self.aligned and inside > _MOST_CUT
        if self.weight is None and not cut:
            return (_aligned if self.aligned else _anywhere)(trials, p, q, kappa, length, ahead)
        if inside * trials > _MOST_CELLS:
            raise ValueError(
                f"tokens times the longest document inside a sample is {inside * trials} but must be at most "
                f"{_MOST_CELLS}: memory grows with it"
            )
        if trials**2 * np.size(self.length) > _MOST_STEPS:
            raise ValueError(
                f"tokens squared times the lengths of documents is {trials**2 * np.size(self.length)} but must be at most "
                f"{_MOST_STEPS}: time grows with it"
            )
        lengths, weight = (np.array([length]), np.ones(1)) if self.weight is None else (self.length, self.weight)
        return _random(trials, p, q, kappa, lengths, weight, self.aligned, ahead)


def _bounded(name: str, value: int, most: int) -> None:
    if value > most:
        raise ValueError(f"{name} = {value} must be at most {most} with documents: time grows with the square")


def _logs(success: Floats, failure: Floats) -> _law.Logs:
    with np.errstate(divide="ignore"):
        return _law.Logs(np.minimum(np.log(success), 0.0), np.minimum(np.log(failure), 0.0))


def _cut_pairs(s: Whole, length: Whole) -> Floats:
    """2 Σ_{d>=1} (s-d)_+ (L-d)_+."""
    a, b = s.astype(np.float64), np.asarray(length, np.float64)
    m = np.minimum(a, b)
    return 2.0 * (a * b * (m - 1) - (a + b) * m * (m - 1) / 2 + (m - 1) * m * (2 * m - 1) / 6)


def _longer(length: Whole, weight: Floats, most: int) -> Floats:
    """P(L >= m) for m = 0..most, as a sum of weights."""
    at: Floats = np.asarray(np.bincount(np.minimum(length, most), weight, minlength=most + 1), np.float64)
    return np.cumsum(at[::-1])[::-1]


def _mass(m: int, p: float, q: float, kappa: float) -> Floats:
    n = np.arange(m + 1, dtype=np.float64)[None]
    return _beta_binomial(np.array([[float(m)]]), n, *(np.array([[v]]) for v in (p, q, kappa)))[0]


def _add(total: Floats, part: Floats, factor: float = 1.0) -> None:
    """Add to the front of `total`; what is beyond its end is 0."""
    total[: part.size] += factor * part[: total.size]


def _power(base: Floats, exponent: int) -> Floats:
    """Law of a sum of `exponent` independent counts, by squaring."""
    result = np.ones(1)
    while exponent:
        if exponent & 1:
            result = np.convolve(result, base)
        exponent >>= 1
        if exponent:
            base = np.convolve(base, base)
    return result


def _powers(base: Floats, count: int) -> tuple[Floats, Floats]:
    """Σ_{k<count} base^k, and base^count."""
    total, power = np.zeros((base.size - 1) * max(count - 1, 0) + 1), np.ones(1)
    for _ in range(count):
        _add(total, power)
        power = np.convolve(power, base)
    return total, power


def _aligned(trials: int, p: float, q: float, kappa: float, length: int, ahead: bool) -> Floats:
    """Whole documents from the start, the last one cut."""
    runs, rest = divmod(trials, length)
    full = _mass(length, p, q, kappa)
    if not ahead:
        return np.convolve(_power(full, runs), _mass(rest, p, q, kappa))
    # the first k = runs' length + r tokens, r < length, and at the end r < rest
    law, some, begun = np.zeros(trials), np.zeros(length), np.zeros(max(rest, 1))
    for m, row in enumerate(_running(length - 1, p, q, kappa)):
        _add(some, row)
        if m < rest:
            _add(begun, row)
    before, power = _powers(full, runs)
    if runs:
        _add(law, np.convolve(before, some)[:trials])
    if rest:
        _add(law, np.convolve(power, begun)[:trials])
    return law / trials


def _running(longest: int, p: float, q: float, kappa: float) -> Iterator[Floats]:
    """Beta-binomial masses of 0..longest tokens, by Pólya's urn: sums of positive terms, regular for every correlation."""
    row = np.ones(1)
    yield row
    for m in range(longest):
        k = np.arange(m + 1)
        grow = (1 - kappa) + m * kappa
        more = p if m == 0 else (p * (1 - kappa) + k * kappa) / grow
        same = q if m == 0 else (q * (1 - kappa) + (m - k) * kappa) / grow
        row = np.append(row * same, 0.0) + np.append(0.0, row * more)
        yield row


def _rows(longest: int, p: float, q: float, kappa: float) -> Floats:
    rows = np.zeros((longest + 1, longest + 1))
    for m, row in enumerate(_running(longest, p, q, kappa)):
        rows[m, : m + 1] = row
    return rows


def _anywhere(trials: int, p: float, q: float, kappa: float, length: int, ahead: bool) -> Floats:
    """The first piece has u = 1..L tokens with probability 1/L each, then come whole documents and what is left."""
    if not trials:
        return np.ones(1)
    runs, rest = divmod(trials, length)
    rows = _rows(min(length, trials), p, q, kappa)
    law = np.zeros(trials + 1)
    if not ahead:
        ends = _pairs(rows, rows, rest)  # u <= rest: the two cut pieces hold `rest` tokens, else L + rest
        if not runs:
            _add(ends, rows[trials], length - trials)
            return ends / length
        power = _power(rows[length], runs - 1)
        _add(law, np.convolve(power, np.convolve(ends, rows[length])))
        _add(law, np.convolve(power, _pairs(rows, rows[:-1], length + rest)))
        return law / length
    # the first k = q L + r tokens: `ends` and `over` are the sums over r of the two cases above
    below = np.concatenate([np.zeros_like(rows[:1]), np.cumsum(rows, axis=0)])  # below[m] = Σ_{r<m} rows[r]
    if not runs:
        _add(law, _pairs(rows, below, trials))
        _add(law, (length - np.arange(trials)) @ rows[:trials])
    else:
        every, power = _powers(rows[length], runs - 1)
        ends, over = _pairs(rows, below, length), _over(rows, length)
        first = (length - np.arange(length)) @ rows[:length]  # q = 0: the piece is still open
        _add(law, ends)
        _add(law, first)
        _add(law, np.convolve(every, np.convolve(ends, rows[length])))
        _add(law, np.convolve(every, over))
        if rest:
            _add(law, np.convolve(power, np.convolve(rows[length], _pairs(rows, below, rest))))
            _add(law, np.convolve(power, _over(rows, rest)))
    return law[:trials] / (length * trials)


def _pairs(rows: Floats, other: Floats, total: int) -> Floats:
    """Σ rows[u] * other[total - u] over the u >= 1 for which both exist, * a convolution."""
    law = np.zeros(2 * rows.shape[1])
    for u in range(max(1, total - len(other) + 1), min(total, len(rows) - 1) + 1):
        _add(law, np.convolve(rows[u, : u + 1], other[total - u, : total - u + 1]))
    return law[: total + 1]


def _over(rows: Floats, count: int) -> Floats:
    """Σ_{r<count} Σ_{r<u<=L} rows[u] * rows[L + r - u], with window sums of positive terms alone."""
    longest = len(rows) - 1
    pad = -(-(longest + count) // count) * count
    grid = np.zeros((pad, rows.shape[1]))
    grid[:longest] = rows[:longest]
    parts = grid.reshape(-1, count, rows.shape[1])
    front = np.cumsum(parts, axis=1).reshape(pad, -1)
    back = np.cumsum(parts[:, ::-1], axis=1)[:, ::-1].reshape(pad, -1)
    law = np.zeros(2 * rows.shape[1])
    for u in range(1, longest + 1):
        # pieces of L - u + r tokens, r < min(u, count), since r = u would be a whole document
        start = longest - u
        window = back[start] + (front[start + count - 1] if start % count else 0.0)
        _add(law, np.convolve(rows[u, : u + 1], window))
    return law


def _random(
    trials: int, p: float, q: float, kappa: float, length: Any, weight: Any, aligned: bool, ahead: bool
) -> Floats:
    """Generating functions at the roots of unity, from the renewal equation (see the module)."""
    if not trials:
        return np.ones(1)
    longest, points = min(trials, int(length[-1])), trials + 1
    piece = np.empty((longest + 1, points // 2 + 1), np.complex128)
    for m, row in enumerate(_running(longest, p, q, kappa)):
        piece[m] = np.fft.rfft(row, points)
    longer = _longer(length, weight, trials + 1)
    mean, u = float(length @ weight), np.arange(longest + 1)
    first = longer[: longest + 1] / mean  # P(u tokens of the first document are left), u >= 1
    whole = np.maximum(length - u[:, None] + 1, 0) @ weight / mean  # P(at least u are left)
    whole[0] = 1.0
    value = np.empty(piece.shape[1], np.complex128)
    step = max(1, _CHUNK // points)
    for start in range(0, value.size, step):
        part = slice(start, start + step)
        begun = _renewal(trials, piece[:, part], length, weight, longer)
        if aligned:
            value[part] = begun[:trials].mean(axis=0) if ahead else begun[trials]
        elif not ahead:
            inner = u[1 : min(longest, trials - 1) + 1]
            value[part] = np.einsum("u,uf,uf->f", first[inner], piece[inner, part], begun[trials - inner])
            if longest == trials:
                value[part] += whole[trials] * piece[trials, part]
        else:
            begun[0] = 0.0
            total = np.cumsum(begun, axis=0)
            inner, open_ = u[1 : min(longest, trials - 1) + 1], u[: min(longest, trials - 1) + 1]
            value[part] = np.einsum("u,uf,uf->f", first[inner], piece[inner, part], total[trials - 1 - inner])
            value[part] += np.einsum("u,uf->f", whole[open_], piece[open_, part])
            value[part] /= trials
    return np.maximum(np.fft.irfft(value, points), 0.0)


def _renewal(trials: int, piece: Any, length: Any, weight: Any, longer: Floats) -> Any:
    """W_m for m = 0..trials: the count among the first m tokens of a stream that begins with a document."""
    size = length[length < min(trials, len(piece))]
    step = weight[: size.size, None] * piece[size]
    begun = np.zeros((trials + 1, piece.shape[1]), np.complex128)
    for m in range(trials + 1):
        inside = int(np.searchsorted(size, m))  # documents shorter than m
        if m < len(piece):
            begun[m] = longer[m] * piece[m]
        if inside:
            begun[m] += np.einsum("kf,kf->f", step[:inside], begun[m - size[:inside]])
    return begun
