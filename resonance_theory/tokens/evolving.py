"""Evolving token distributions: Ornstein-Uhlenbeck flow from a common start to clusters, sampled and exact .

Every token follows dx = -rate (x - mu) dt + noise dB towards the mean mu of its component, from N(start_mean, start² I)
(start = 0: a deterministic start), so that given its component

    x(t) ~ N(mu + (start_mean - mu) e^{-rate t}, v(t) I),  v = start² e^{-2 rate t} + noise² (1 - e^{-2 rate t})/(2 rate).

Means are given by their coordinates along the n orthonormal gates and along one unit vector e orthogonal to all of them:
cosines do not see more. A discriminative token of class i has mean signal w_i + off e. Each background token belongs to
one of the components `background`, drawn with probabilities `share`: one at 0 for isotropy, one elsewhere for the common
mean of real encoders, several for clusters. Components are independent between tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.rules.adaptive import AffinityLaw
from resonance_theory.rules.rates import Rates
from resonance_theory.tokens.gaussian import Gaussian, rates
from resonance_theory.tokens.samplers import PlantedSample

__all__ = ["Adapted", "Evolving", "moments", "transition"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@arguments.broadcasting
def moments(time: ArrayLike, rate: ArrayLike, noise: ArrayLike, start: ArrayLike = 1.0) -> tuple[Floats, Floats]:
    """(memory, variance) of the flow at `time`: the weight e^{-rate t} of the start, and v(t) per coordinate.

    time, rate >= 0; noise, start in [0, 1e150]; broadcasts. rate = 0 is Brownian motion, v = start² + noise² t.
    """
    t, k = arguments.real("time", time, 0.0), arguments.real("rate", rate, 0.0)
    s, b = arguments.real("noise", noise, 0.0, 1e150), arguments.real("start", start, 0.0, 1e150)
    k = np.minimum(k, 1e300)  # twice that is finite still
    with np.errstate(over="ignore"):  # long after the start is forgotten, and a variance beyond all numbers
        memory = np.exp(-k * t)
        positive = k > 0
        spread = np.where(positive, -np.expm1(-2 * k * t) / np.where(positive, 2 * k, 1.0), t)
        return memory, (b * memory) ** 2 + s * s * spread


def transition(rng: np.random.Generator, x: Floats, mean: Floats, step: float, *, rate: float, noise: float) -> Floats:
    """x(t + step) given x(t) = x: exact for a step of any length. mean broadcasts with x."""
    rng = arguments.generator("rng", rng)
    memory, variance = moments(step, rate, noise, 0.0)
    return np.asarray(mean + (x - mean) * memory + np.sqrt(variance) * rng.standard_normal(x.shape))


class Adapted(NamedTuple):
    """What an affinity mass does at one time; arrays of shape (experts,)."""

    threshold: Floats  #: affinity down to which candidates are kept in the limit of many tokens; 1: none are
    kept: Floats  #: expected fraction of its background candidates that the expert keeps
    load: Floats  #: π, so that π * kept * tokens is the expected number kept
    success: float  #: training success rate


@dataclass(frozen=True, eq=False)
class Evolving:
    """Tokens that flow from a common start to clusters. Lengths are absolute; only ratios to the noise matter.

    dim >= 32, experts < dim. signal, off: mean of a class token, along its own gate and along e. background: means of the
    irrelevant tokens, shape (components, experts + 1), last column along e; default one component at 0.
    share: their probabilities, default equal. rate, noise, start, start_mean: see above; start_mean has
    shape (experts + 1,), default 0.
    """

    dim: int
    experts: int
    signal: float
    rate: float = 1.0
    noise: float = 1.0
    start: float = 1.0
    off: float = 0.0
    background: Any = None
    share: Any = None
    start_mean: Any = None

    def __post_init__(self) -> None:
        arguments.keep_whole(self, 1, "experts")
        arguments.keep_whole(self, 32, "dim")
        n = self.experts
        if n >= self.dim:
            raise ValueError(f"experts = {n} must be one whole number below dim = {self.dim}")
        for name in ("rate", "noise", "start"):
            object.__setattr__(self, name, arguments.number(name, getattr(self, name), 0.0))
        for name in ("signal", "off"):
            object.__setattr__(self, name, arguments.number(name, getattr(self, name)))
        width = int(n) + 1
        background = np.zeros((1, width)) if self.background is None else arguments.real("background", self.background)
        begin = np.zeros(width) if self.start_mean is None else arguments.real("start_mean", self.start_mean)
        if background.ndim != 2 or background.shape[0] == 0 or background.shape[1] != width:
            raise ValueError(f"background has shape {background.shape} but must be (components, {width})")
        if begin.shape != (width,):
            raise ValueError(f"start_mean has shape {begin.shape} but must be ({width},)")
        count = len(background)
        share = np.full(count, 1 / count) if self.share is None else arguments.distribution("share", self.share)
        if share.shape != (count,):
            raise ValueError(f"share has shape {share.shape} but must be ({count},)")
        for name, value in (("background", background), ("start_mean", begin), ("share", share)):
            object.__setattr__(self, name, value)

    def mean(self, time: float) -> tuple[Floats, Floats, float]:
        """Means at `time`, of class tokens (experts, experts + 1) and of background components, and the variance."""
        memory, variance = moments(time, self.rate, self.noise, self.start)
        classes = np.column_stack([self.signal * np.eye(self.experts), np.full(self.experts, self.off)])
        drift = self.start_mean * memory
        return classes * (1 - memory) + drift, self.background * (1 - memory) + drift, float(variance)

    def rates(self, time: float, *, top: int = 1, nodes: int = 512) -> Rates:
        """Exact joint law at one time > 0 (at 0 too if start > 0): what the three rules need, see `projected.law`."""
        time = _instant(time)
        classes, background, variance = self.mean(time)
        if variance == 0:
            raise ValueError(f"time = {time} must be positive where the start is deterministic")
        tokens = [self._seen(mean, variance) for mean in (classes[:1] if self._alike() else classes)]
        found = rates(tokens, [self._seen(m, variance) for m in background], share=self.share, top=top, nodes=nodes)
        return found.replace(candidates=self._affinities(time, top) if top < self.experts else None)

    def load(self, time: float, *, top: int = 1) -> Floats:
        """π_i(t), shape (experts,): exact load of each expert by the background."""
        _, background, variance = self.mean(_instant(time))
        return np.asarray(sum(w * self._seen(m, variance).load(top=top) for w, m in zip(self.share, background)))

    def rival(self, time: float, affinity: ArrayLike, expert: int = 0, *, top: int = 1) -> Any:
        """κ_i(a) = P(a class token of uniform class has `expert` among its `top` best, affinity >= a in [-1, 1]).

        What samples that pool their slots add to each other's rivals: `batch.resonance_success` at the nodes of `law`, and
        at a = -1 `batch.token_choice_success`.
        """
        classes, _, variance = self.mean(_instant(time))
        if variance == 0:
            raise ValueError(f"time = {time} must be positive where the start is deterministic")
        return np.mean([self._seen(m, variance).candidate_tail(affinity, expert, top=top) for m in classes], axis=0)

    def adaptive(self, time: float, mass: float, *, tokens: int | None = None, top: int = 1) -> Adapted:
        """Resonance with adaptive capacity at one time: what an affinity mass in (0, 1] keeps, and its success rate.

        tokens: 1 to 10^5, the exact law for so many tokens (error 1e-4 for mass up to 0.9, 1e-3 beyond); None, the limit of
        many tokens (error 1e-10). time: as in `rates`; top: experts per token, below their number.
        """
        time, share = _instant(time), arguments.number("mass", mass, 0.0, 1.0, open_low=True)
        most = arguments.whole("top", top, 1, self.experts - 1, "experts - 1")
        count = None if tokens is None else arguments.whole("tokens", tokens, 1, 10**5)
        found = [law.at(share, count) for law in self._affinities(time, most)]
        cut, kept, success = (np.array(column) for column in zip(*found))
        if len(found) == 1:
            cut, kept = np.repeat(cut, self.experts), np.repeat(kept, self.experts)
        return Adapted(cut, kept, self.load(time, top=most), float(success.mean()))

    def _affinities(self, time: float, top: int) -> tuple[AffinityLaw, ...]:
        classes, background, variance = self.mean(time)
        if variance == 0:
            raise ValueError(f"time = {time} must be positive where the start is deterministic")
        others = [self._seen(mean, variance) for mean in background]
        experts = range(1 if self._alike() else self.experts)
        return tuple(_affinities(self._seen(classes[i], variance), others, self.share, i, top) for i in experts)

    def _alike(self) -> bool:
        """Whether the background and the start treat all experts alike, which then have one law."""
        return bool(np.ptp(self.background[:, :-1], axis=1).max() == 0 and np.ptp(self.start_mean[:-1]) == 0)

    def correlation(self, time: float) -> Floats:
        """|E x|²/E|x|² of each background component: the expected cosine of two of its tokens, up to O(1/dim)."""
        _, background, variance = self.mean(_instant(time))
        square = np.sum(background**2, axis=1)
        return square / (square + self.dim * variance)

    def affinity(self, rng: np.random.Generator, samples: int, tokens: int, time: float) -> PlantedSample:
        """Affinities (samples, tokens, experts) at one time, at a cost free of dim."""
        position, expert, centre, variance = self._draw(rng, samples, tokens, _instant(time))
        x = centre + np.sqrt(variance) * rng.standard_normal(centre.shape)
        rest = self.dim - self.experts - 1
        square = variance * rng.chisquare(rest, centre.shape[:2]) if rest else 0.0
        norm = np.sqrt(np.vecdot(x, x) + square)
        return PlantedSample(np.clip(x[..., :-1] / norm[..., None], -1.0, 1.0), position, expert)

    def sample(self, rng: np.random.Generator, samples: int, tokens: int, times: ArrayLike) -> PlantedSample:
        """Paths as vectors for GrAP gates: values of shape (times, samples, tokens, dim), by exact transitions.

        times: rising, >= 0; one number gives (samples, tokens, dim). experts must divide dim.
        """
        at = arguments.real("times", times, 0.0)
        moments_ = np.atleast_1d(at)
        if moments_.ndim != 1 or np.any(np.diff(moments_) < 0):
            raise ValueError("times must be one number or a rising sequence of numbers of at least 0")
        basis = self._basis()
        position, expert, goal = self._targets(rng, samples, tokens)
        mean = goal @ basis
        x = self.start_mean @ basis + self.start * rng.standard_normal(mean.shape)
        path, before = np.empty((moments_.size, *mean.shape)), 0.0
        for i, time in enumerate(moments_):
            x = transition(rng, x, mean, float(time - before), rate=self.rate, noise=self.noise)
            path[i], before = x, float(time)
        return PlantedSample(path if at.ndim else path[0], position, expert)

    def _targets(self, rng: np.random.Generator, samples: int, tokens: int) -> tuple[Integers, Integers, Floats]:
        """Position and class of the discriminative tokens; long-run means of all tokens in gate coordinates and e."""
        rng = arguments.generator("rng", rng)
        m, s = (arguments.whole(k, v, 1) for k, v in (("samples", samples), ("tokens", tokens)))
        position, expert = rng.integers(s, size=m), rng.integers(self.experts, size=m)
        goal = self.background[rng.choice(len(self.share), size=(m, s), p=self.share)]
        own = np.zeros((m, self.experts + 1))
        own[np.arange(m), expert] = self.signal
        own[:, -1] = self.off
        goal[np.arange(m), position] = own
        return position, expert, goal

    def _draw(self, rng: Any, samples: int, tokens: int, time: float) -> tuple[Integers, Integers, Floats, float]:
        position, expert, goal = self._targets(rng, samples, tokens)
        memory, variance = moments(time, self.rate, self.noise, self.start)
        return position, expert, goal * (1 - memory) + self.start_mean * memory, float(variance)

    def _basis(self) -> Floats:
        """Unit GrAP gates and e, a contrast within the first block; rows (experts + 1, dim)."""
        from resonance_theory.gates import grap_gates

        gates = grap_gates(self.dim, self.experts)
        contrast = np.zeros(self.dim)
        contrast[:2] = np.sqrt(0.5), -np.sqrt(0.5)
        return np.vstack([gates / np.linalg.norm(gates, axis=1, keepdims=True), contrast])

    def _seen(self, mean: Floats, variance: float) -> Gaussian:
        scaled = mean / np.sqrt(variance)
        return Gaussian(tuple(scaled[:-1]), abs(float(scaled[-1])), self.dim)


def _affinities(token: Gaussian, background: list[Gaussian], share: Floats, expert: int, top: int) -> AffinityLaw:
    """Affinities of one expert's candidates and of its class's token."""
    parts = [part._chosen(expert, top) for part in background]
    own = token._chosen(expert, top)

    def density(y: Floats) -> Floats:
        inside = (w * np.where((y > p.low) & (y < p.high), p.density_at(y), 0.0) for w, p in zip(share, parts))
        return np.asarray(sum(inside))

    return AffinityLaw(
        density=density,
        tail=lambda affinity: np.asarray(sum(w * part.tail(affinity) for w, part in zip(share, parts))),
        hit_tail=own.tail,
        hits=lambda y: np.asarray(np.where((y > own.low) & (y < own.high), own.density_at(y), 0.0)),
        low=min(part.low for part in parts),
        high=max(part.high for part in parts),
        far=own.high,
        kinks=[end for part in parts for end in (part.low, part.high)],
        load=float(sum(w * part.total for w, part in zip(share, parts))),
    )


def _instant(time: Any) -> float:
    value = arguments.real("time", time, 0.0)
    if value.ndim:
        raise ValueError(f"time has shape {value.shape} but must be one number of at least 0")
    return float(value)
