"""N12, unequal loads. A capacity set by affinity mass does not see an expert's load, only its candidates' affinities.

Expert i attracts the share π_i of the background; G_i is the law of a candidate's affinity. With h_i = π_i G_i(δ >= .) the cut
solves m_i(a) = τ m_i(-1) (adaptive_capacity), and m_i(a) = π_i E_{G_i}[δ; δ >= a]: π_i cancels. So in the limit

    cut and kept fraction f_i depend on G_i alone; the number kept is s π_i f_i; success given a class is P(hit, δ_o >= a_i).

Equal G_i, however skewed the loads: one cut, one f; the experts together keep f of all candidates and every class has the
success of equal loads. A fixed capacity C = cs of the same mean, c = f/n, keeps Σ min(π_i, c) <= f, less the more skewed
(skewed_load), and the class of a heavy expert must then be among its best c/π_i. The price: the busiest expert takes π_max f s
tokens, where a fixed capacity caps its work; affinity mass evens no loads.

At finite s, N of the others are candidates, N ~ Bin(s-1, π_i), each with an affinity from G_i: the law of adaptive_exact is
the mixture over N of its values where all N others are candidates for certain. Nothing else is asked of N: the same holds for
dependent routes (N11), as long as the candidates' affinities are independent given N; so over-dispersed loads, too, leave the
limit as it is wherever N grows with s.

Different G_i: affinities that are all higher by c > 0 keep more, and f -> τ as c -> ∞. With x(u) the quantile of the best share u
and L' = x, the cut has L(f) + cf = τ(L(1) + c), so (x(f) + c) df/dc = τ - f, where x(f) + c > 0 is the cut and f <= τ
(adaptive_exact). A common mean that favours an expert so gives it more candidates and keeps a larger part of them.
"""

from __future__ import annotations

from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import stats

from proofs import _skewed
from proofs.capacity.adaptive_exact import three
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import adaptive
from resonance_theory.tokens import affinity_mass
from resonance_theory.tokens.evolving import Evolving
from resonance_theory.tokens.samplers import Dependent

pi, n, tau, f, c = sp.symbols("pi n tau f c", positive=True)


def side(load: sp.Expr) -> SimpleNamespace:
    """`load`: the share of the background that expert i is said to have, in its true share π and n."""

    def at(share: float, experts: int) -> float:
        return float(load.subs({pi: sp.Float(share, 30), n: experts}))

    return SimpleNamespace(load=load, at=at)


claim = Claim(
    title="Affinity mass does not see loads: with many tokens skew alone changes neither kept fractions nor success",
    statement=r"expert $i$ of load $\pi_i$, candidate affinities of law $G_i$: as $s\to\infty$ it keeps $s\pi_if_i$ tokens, "
    r"$f_iE_{G_i}[\delta|top\ f_i]=\tau E_{G_i}[\delta]$, and its class succeeds with $P(hit,\delta_o\geq a_i)$; both $f_i$ "
    r"and the cut $a_i$ are free of all loads. At every $s$ the law is the mixture, over the number $N$ of candidates "
    r"($\mathrm{Bin}(s-1,\pi_i)$ if routes are independent), of that of $N$ certain candidates. "
    r"Affinities all higher by $c$ have $\frac{df}{dc}=\frac{\tau-f}{a}\geq 0$, $a$ the cut",
    hypotheses=(
        r"affinities independent of each other given the routes, and of $o$; $E_{G_i}\delta>0$; no ties; $0<\tau\leq 1$",
        r"the limit: routes independent, or any with $N/s\to$ a positive load",
        r"an expert whose candidates' affinities sum to at most 0 keeps none",
    ),
    source="new; a reading of the adaptive capacity of ETR (arXiv 2406.00023), with its Assumption 4 dropped",
    tag="N12",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(pi),
    mutant=side(1 / n),
    mutation="every expert's law at the mean load 1/n",
    lemmas=("adaptive_capacity", "adaptive_exact"),
)


@claim.derivation(
    "the load cancels from the cut and scales the number kept; the slope of f in a shift of the affinities"
)
def load_cancels_cut_scales_number(side: SimpleNamespace) -> Outcome:
    above, whole, tail = sp.symbols("A W H", positive=True)  # E_G[δ; δ >= a], E_G δ, G(δ >= a)
    ratio = ((side.load * above) / (side.load * whole), above / whole)
    number = (side.load * tail, pi * tail)
    best = sp.Function("L")  # L(f): affinity of the best share f
    level = best(f) + c * f - tau * (best(1) + c)
    slope = -sp.diff(level, c) / sp.diff(level, f)
    return every(
        [
            identity(*ratio, name="share of affinity above the cut, with and without the load"),
            identity(*number, points=[{pi: sp.Rational(1, 2), n: 4, tail: 1}], name="number kept over s"),
            identity(slope, (tau - f) / (sp.diff(best(f), f) + c), name="df/dc - (τ-f)/(x(f)+c)"),
        ]
    )


@claim.reference("the package: a mixture over the number of candidates; direct sums at three tokens; a common mean")
def package_mixture_number_candidates_direct(side: SimpleNamespace) -> Outcome:
    def law(tokens: int | np.ndarray, load: float) -> np.ndarray:
        """Success and kept fraction."""
        success = affinity_mass.success(0.7, 1.5, 16, 4, tokens=tokens, load=load)
        return np.array([success, affinity_mass.kept_fraction(0.7, 16, 4, tokens=tokens, load=load)])

    worst, count = 0.0, np.arange(4)
    for share in (0.5, 0.05):
        chance = np.array([comb(3, k) * share**k * (1 - share) ** (3 - k) for k in count])
        ours, mixed = law(4, side.at(share, 4)), law(count + 1, 1.0) @ chance
        worst = max(worst, *abs(mixed - ours))
        if worst > 1e-7:
            return fails(f"load {share}, s=4: {ours}, as a mixture {mixed}")
    direct, ours = np.array(three(0, 16, 4, 1.5, 0.7, 0.5)), law(3, side.at(0.5, 4))
    far = float(abs(ours - direct).max())
    if far > 2e-3:
        return fails(f"load .5, s=3: {ours}, directly {direct}")
    flow = Evolving(64, 4, 2.0, rate=0.0, noise=0.0, start=1.0, start_mean=[1.0, 0.0, 0.0, -1.0, 0.0])
    mean = flow.adaptive(0.0, 0.8)
    plain = float(affinity_mass.kept_fraction(0.8, 64, 4))
    if not 0.8 > mean.kept[0] > plain > mean.kept[3] or not mean.load[0] > 0.25 > mean.load[3]:
        return fails(f"common mean: loads {mean.load}, kept {mean.kept}, without it {plain}")
    return holds(
        f"mixtures agree to {worst:.0e}, direct sums to {far:.0e}; a common mean with loads "
        f"{mean.load[0]:.3f}, {mean.load[3]:.3f} keeps {mean.kept[0]:.4f}, {mean.kept[3]:.4f} ({plain:.4f} without it)"
    )


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, signal: float, mass: float, correlation: float
) -> dict[str, int]:
    """Planted tokens on a skewed background through the router: successes of the heaviest and of the lightest class."""
    drawn = Dependent(signal, 16, 4, correlation=correlation, load=_skewed.LOAD).affinity(rng, trials, tokens)
    done = adaptive.route(drawn.values, mass).contains(drawn.position, drawn.expert)
    return {f"class {i}": int(np.count_nonzero(done & (drawn.expert == i))) for i in (0, 3)}


def law(side: SimpleNamespace, *, tokens: int, signal: float, mass: float, correlation: float) -> dict[str, float]:
    loads = {i: side.at(_skewed.LOAD[i], 4) for i in (0, 3)}
    if correlation:  # the sample's own loads: beta-binomial counts, mixed over certain candidates
        count, strength = np.arange(tokens), (1 - correlation) / correlation
        certain = affinity_mass.success(mass, signal, 16, 4, tokens=count + 1, load=1.0)
        mix = {i: stats.betabinom.pmf(count, tokens - 1, p * strength, (1 - p) * strength) for i, p in loads.items()}
        return {f"class {i}": float(chance @ certain) / 4 for i, chance in mix.items()}
    rate = affinity_mass.success(mass, signal, 16, 4, tokens=tokens, load=list(loads.values()))
    return {f"class {i}": float(value) / 4 for i, value in zip(loads, rate)}


claim.simulate(
    sample,
    cases=[
        {"tokens": 5, "signal": 1.5, "mass": 0.3, "correlation": 0.0},
        {"tokens": 5, "signal": 1.5, "mass": 0.3, "correlation": 0.4},
    ],
    law=law,
    trials=60_000,
    full=1_000_000,
)
