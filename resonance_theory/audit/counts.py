"""What the experts' loads per sequence say: is the load uniform, how dependent are the tokens, what will be dropped.

A sequence is the unit throughout. Tokens of one sequence depend on one another, so that a chi-square test or a
binomial standard error over tokens claims far more than the data show.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln, xlog1py, xlogy

from resonance_theory.rules import Rates, token_choice
from resonance_theory.rules.dependence import Blocks

__all__ = [
    "Fit",
    "beta_binomial_drop",
    "binomial_drop",
    "blocks_drop",
    "dispersion",
    "excess",
    "fit",
    "least",
    "relabelled",
]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


def relabelled(load: Whole, seed: int = 0) -> tuple[float, float, int] | None:
    """Test of the uniform load: (p value, total variation to uniform expected by chance, relabellings); load (B, n).

    Under Assumption 4 (isotropic tokens, orthonormal gates) the experts are exchangeable within every sequence, and
    sequences are independent. The experts of each sequence are therefore relabelled at random, independently, which
    keeps every dependence inside a sequence; the statistic is Σ_i (N_i - mean)² of the summed loads. The p value
    (1 + exceedances)/(1 + relabellings) is exact under that hypothesis for raw tokens, and conservative for centred
    ones: their mean comes from the same sequences, whose loads it makes complement one another. None for a single
    sequence, which cannot tell a favoured expert from a topic.
    """
    sequences, experts = load.shape
    if sequences < 2:
        return None
    draws = int(np.clip(10**8 // load.size, 199, 9999))
    rng = np.random.Generator(np.random.Philox(seed))
    total = load.sum(axis=0)
    mean = total.sum() / experts
    observed = np.square(total - mean).sum()
    exceed, distance = 0, 0.0
    chunk = max(1, 2**18 // load.size)
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        shuffled = rng.permuted(np.broadcast_to(load, (size, *load.shape)), axis=-1).sum(axis=1) - mean
        # whole-number loads: equal statistics differ by rounding only
        exceed += int((np.square(shuffled).sum(axis=-1) >= observed * (1 - 1e-12)).sum())
        distance += float(np.abs(shuffled).sum())
    return (1 + exceed) / (1 + draws), distance / (2 * draws * total.sum()), draws


def dispersion(tokens: int, sequences: Floats, load: Floats, square: Floats) -> tuple[Floats, Floats]:
    """Variance ratio D of the loads to the binomial law, and the intra-sequence correlation (D-1)/(s-1).

    sequences (...): number of sequences B >= 2; load, square (..., experts): Σ_b N_bi and Σ_b N_bi². D pools the
    experts: Σ_i var_i / Σ_i s π_i(1-π_i), with π_i(1-π_i) estimated without bias. The correlation ρ is that of the
    beta-binomial (Dirichlet-multinomial) law with these shares; NaN where no load varies at all.
    """
    b = sequences[..., None]
    share = load / (b * tokens)
    variance = np.maximum(square - load * load / b, 0.0) / (b - 1)
    binomial = tokens * (share * (1 - share) + variance / (b * tokens**2)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = variance.sum(axis=-1) / binomial
    return ratio, (ratio - 1) / (tokens - 1)


def excess(load: Whole, group: NDArray[np.intp], tokens: int) -> Floats:
    """Σ (N - C)_+ over the sequences and experts of every group, for C = 0..tokens: shape (groups, tokens + 1)."""
    groups = int(group.max()) + 1
    flat = (group[:, None] * (tokens + 1) + load).ravel()
    count = np.bincount(flat, minlength=groups * (tokens + 1)).reshape(groups, tokens + 1)
    above = np.zeros((groups, tokens + 1))
    above[:, :-1] = np.cumsum(count[:, :0:-1], axis=1)[:, ::-1]  # how many loads exceed k
    return np.cumsum(above[:, ::-1], axis=1)[:, ::-1]


def binomial_drop(tokens: int, share: Floats, capacity: Whole) -> Floats:
    """Expected fraction of candidates dropped where expert i's load is Bin(s, share_i); capacity (k,) >= 1.

    Of expert i's own candidates it is 1 - P_TCR/p = E(N_i - C)_+ / (s share_i).
    """
    failure = token_choice.failure(tokens, capacity[:, None], Rates(load=share))
    return (failure * share).sum(axis=-1) / share.sum()


def beta_binomial_drop(tokens: int, share: Floats, correlation: float) -> Floats:
    """The same for beta-binomial loads of mean s share_i and the given correlation in [0, 1]; capacities 0..tokens.

    E(N - C)_+ = Σ_{k>=C} P(N > k), with the probabilities from their ratios, which are stable for every correlation.
    Loads whose probability is 0 in double precision are left out.
    """
    share = np.sort(np.minimum(share[share > 0], 1.0))  # neighbours have like ranges of loads
    turned_away = np.zeros(tokens + 1)
    low, high = _likely(tokens, share, correlation)
    start = 0
    while start < share.size:
        width = np.maximum.accumulate(high[start:]) - np.minimum.accumulate(low[start:]) + 1
        count = max(1, int(np.searchsorted(width * np.arange(1, width.size + 1), _CELLS, side="right")))
        part = slice(start, start + count)
        _add_drops(turned_away, tokens, share[part, None], correlation, int(low[part].min()), int(high[part].max()))
        start += count
    return turned_away / (tokens * share.sum())


_CELLS = 2**18  # numbers of a table, which then stays in the cache
_UNDERFLOW = 745.0


def _likely(tokens: int, share: Floats, correlation: float) -> tuple[Whole, Whole]:
    """Least and largest load that is not left out, for each share: (experts,) each.

    The logarithm of the mass of a beta-binomial is concave if both shapes are at least 1; other laws keep all loads.
    """
    low, high = np.zeros(share.size, np.int64), np.full(share.size, tokens, np.int64)
    kappa = max(correlation, 1e-300)
    a, b = share * (1 - correlation) / kappa, (1 - share) * (1 - correlation) / kappa
    plain = (np.minimum(a, b) >= 1) & (a + b < 1e9)  # beyond, gammaln cancels
    if correlation == 0:
        plain = share < 1
    if not plain.any():
        return low, high
    p, a, b = share[plain], a[plain], b[plain]

    def log_mass(k: Whole) -> Floats:
        free = gammaln(tokens + 1) - gammaln(k + 1) - gammaln(tokens - k + 1)
        if correlation == 0:
            return free + xlogy(k, p) + xlog1py(tokens - k, -p)
        return free + betaln(k + a, tokens - k + b) - betaln(a, b)

    shape = p if correlation == 0 else np.maximum(a - 1, 0) / np.maximum(a + b - 2, 1e-300)
    mode = np.clip(np.rint(tokens * shape), 0, tokens).astype(np.int64)
    level = log_mass(mode) - _UNDERFLOW
    for end, found in ((0, low), (tokens, high)):
        outer, inner = np.full(mode.size, end, np.int64), mode.copy()
        outer = np.where(log_mass(outer) >= level, inner, outer)  # none is negligible on that side
        whole = outer == mode
        while (abs(outer - inner) > 1).any():
            middle = (outer + inner) // 2
            there = log_mass(middle) >= level
            inner, outer = np.where(there, middle, inner), np.where(there, outer, middle)
        found[plain] = np.where(whole, end, outer)
    return low, high


def _add_drops(total: Floats, tokens: int, p: Floats, correlation: float, low: int, high: int) -> None:
    """Add Σ_i E(N_i - C)_+ at every capacity C, with loads between low and high alone; p: (experts, 1)."""
    k = np.arange(low, high, dtype=np.float64)
    certain = (p[:, 0] >= 1) | (correlation >= 1)
    # P(k+1)/P(k) of the beta-binomial, a = p(1-ρ)/ρ and b = (1-p)(1-ρ)/ρ, multiplied through by ρ
    with np.errstate(divide="ignore"):
        ratio = np.log(
            (p * (1 - correlation) + k * correlation) / ((1 - p) * (1 - correlation) + (tokens - k - 1) * correlation)
        )
    ratio += np.log((tokens - k) / (k + 1))
    ratio[certain] = 0.0
    log_mass = np.zeros((p.size, high - low + 1))
    np.cumsum(ratio, axis=1, out=log_mass[:, 1:])
    mass = np.exp(log_mass - log_mass.max(axis=1, keepdims=True))
    mass /= mass.sum(axis=1, keepdims=True)
    mass[certain] = 0.0  # all tokens or none
    mass[certain, 0], mass[certain, -1] = 1 - p[certain, 0], p[certain, 0]
    above = np.cumsum(mass.sum(axis=0)[:0:-1])[::-1]  # of all experts together
    beyond = np.cumsum(above[::-1])[::-1]  # from low on
    total[low:high] += beyond
    total[:low] += beyond[:1].sum() + p.size * np.arange(low, 0, -1)  # below, every expert loses its mean less C


def blocks_drop(tokens: int, share: Floats, ratio: float, capacity: Whole) -> Floats:
    """The same where runs of neighbours take one expert: E (N-C)_+ of `counts.Blocks`; capacity (k,) >= 1.

    ratio: variance of the loads over the binomial one, at least 1. Runs of m tokens have about the ratio m; a ratio
    between those of m and m + 1 is met by a mixture of both.
    """
    length = np.arange(1, tokens + 1)
    reached = Blocks(length).variance_ratio(tokens)
    m = int(np.clip(np.searchsorted(reached, ratio, side="right"), 1, max(tokens - 1, 1)))
    gap = reached[min(m, tokens - 1)] - reached[m - 1]
    longer = float(np.clip((ratio - reached[m - 1]) / gap, 0.0, 1.0)) if gap > 0 else 0.0
    share = np.minimum(share, 1.0)
    runs = Blocks(np.array([[[m]], [[min(m + 1, tokens)]]]))
    parts = token_choice.drop_rate(tokens, capacity[:, None], Rates(load=share, counts=runs))
    return np.array([1 - longer, longer]) @ (parts @ share) / share.sum()


@dataclass(frozen=True)
class Fit:
    """The four models of an expert's load, fitted to the loads of some sequences.

    share (experts,): P(a token is a candidate); ratio: variance over the binomial one (>= 1), None where it is unknown;
    sequences: how many were fitted.
    """

    tokens: int
    top: int
    sequences: int
    share: Floats
    ratio: float | None
    _curve: dict[str, Floats] = field(default_factory=dict, compare=False)

    @property
    def models(self) -> tuple[str, ...]:
        return ("uniform", "measured_load", *(() if self.ratio is None else ("beta_binomial", "blocks")))

    def for_new(self) -> Fit:
        """The models for sequences that were not fitted: B of them know a share only to 1/B of a load's variance, so a
        new load varies about the estimate by 1 + 1/B of it."""
        ratio = None if self.ratio is None else self.ratio * (1 + 1 / self.sequences)
        return Fit(self.tokens, self.top, self.sequences, self.share, ratio)

    def drop(self, model: str, capacity: Whole) -> Floats:
        """Expected fraction of candidates dropped, at capacities (k,) in 1..tokens."""
        if model == "uniform":
            return binomial_drop(self.tokens, np.full(self.share.shape, self.top / self.share.size), capacity)
        if model == "measured_load":
            return binomial_drop(self.tokens, self.share, capacity)
        assert self.ratio is not None
        if model == "blocks":
            return blocks_drop(self.tokens, self.share, self.ratio, capacity)
        if model not in self._curve:
            correlation = min((self.ratio - 1) / max(self.tokens - 1, 1), 1.0)
            self._curve[model] = beta_binomial_drop(self.tokens, self.share, correlation)
        return self._curve[model][capacity]

    def least(self, model: str, loss: float) -> int:
        """Least capacity whose drop is at most `loss`, by bisection with 16 points at a time."""
        low, high = 0, self.tokens
        while high - low > 1:
            inner = np.unique(np.linspace(low, high, 18).astype(np.int64)[1:-1])
            inner = inner[(inner > low) & (inner < high)]
            met = self.drop(model, inner) <= loss * (1 + 1e-12)
            if met.any():
                high = int(inner[met][0])
            if not met.all():
                low = int(inner[~met][-1])
        return high


def fit(load: Whole, tokens: int, top: int) -> Fit:
    """Fit to the loads (sequences, experts): shares from the sums, the ratio from the variance between sequences."""
    total, ratio = load.sum(axis=0).astype(np.float64), None
    if len(load) > 1:
        square = np.square(load.astype(np.float64)).sum(axis=0)
        value = float(dispersion(tokens, np.array(float(len(load))), total, square)[0])
        ratio = max(value, 1.0) if np.isfinite(value) else None
    return Fit(tokens, top, len(load), total / (len(load) * tokens), ratio)


def least(loss: float, drop: Floats) -> Whole:
    """Least capacity whose drop is at most `loss`; drop (..., tokens + 1) at capacities 0..tokens, falling to 0."""
    # sums of fractions: a drop equal to the loss must not be lost to rounding
    return np.argmax(drop <= loss * (1 + 1e-12), axis=-1).astype(np.int64)
