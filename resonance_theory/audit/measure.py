"""One layer of hidden states, routed raw and centred: every number of the audit.

A layer is read in blocks of bounded size, as often as needed: for bad entries and its range, for its mean, for what is
measured. All that is measured is unchanged when the tokens are scaled, so a layer is first scaled into [-1, 1] by a power
of two; no square can overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from resonance_theory import capacity_factor, homogenization
from resonance_theory.audit import counts
from resonance_theory.audit.files import Layer
from resonance_theory.audit.result import MODELS, Affinity, Drop, Estimate, HeldOut, LayerAudit, LayerRouting, Need
from resonance_theory.gates import affinity
from resonance_theory.rules import expert_choice, token_choice
from resonance_theory.tokens import candidates, caps

__all__ = ["Setting", "measure"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

BLOCK = 2**21  # numbers held at once, a few times over
GROUPS = 64  # groups of sequences for the jackknife, at most
DELETED = 16  # parts that are left out in turn where models are fitted anew, at most
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Setting:
    """What the user asked for. gates: (experts, features), or None for GrAP; orthogonal: whether the isotropic formulas apply;
    inner: whether scores are inner products, not cosines."""

    experts: int
    top: int
    gates: Floats | None
    orthogonal: bool
    inner: bool
    factors: tuple[float, ...]
    loss: float


@dataclass
class RoutingSums:
    """Sums over one routing of a layer; g counts groups of sequences."""

    load: Whole  # (sequences, experts): candidates
    rank: Whole  # (g, tokens): tokens by their best place among all experts' tokens
    winner: Floats  # (sequences, tokens): largest affinity (inner products: of the scaled tokens)
    direction: Floats  # (g, features): sum of unit tokens
    size: Whole  # (g,): tokens that have a direction
    within: Floats  # (sequences, 2): sum and number of cosines of pairs within a sequence
    neighbour: Floats  # (sequences, 4): cosines and number of neighbour pairs; pairs on one expert and all
    chosen: Whole = field(init=False)  # (experts,): tokens whose best expert it is
    total: Floats = field(init=False)  # (experts, features): their sum, about the mean token

    def __post_init__(self) -> None:
        experts, features = self.load.shape[1], self.direction.shape[1]
        self.chosen, self.total = np.zeros(experts, dtype=np.int64), np.zeros((experts, features))


def measure(layer: Layer, setting: Setting, centred: Sequence[bool]) -> LayerAudit:
    """Audit one layer, once for each entry of `centred`."""
    sequences, tokens, dim = layer.data.shape
    group = np.arange(sequences) * min(sequences, GROUPS) // sequences
    exponent, repeated = _survey(layer)
    total = _sums(layer, exponent, group)
    mean = total.sum(axis=0) / (sequences * tokens)
    tallies, scatter = _tally(layer, setting, centred, exponent, mean, group)
    routings = []
    halves = _halves(layer, group)
    for choice, tally in zip(centred, tallies):
        held_out = _held_out(layer, setting, exponent, total, group) if choice and sequences > 1 else None
        loads = _loads_by_half(layer, setting, exponent, total, group, halves) if choice else None
        judged = _judged(setting, tally.load, loads, group, halves, tokens)
        routings.append(_routing(tally, layer, setting, choice, held_out, judged, scatter, group, exponent))
    isotropic = float(homogenization.token_choice_scatter(dim, setting.experts)) if setting.orthogonal else None
    return LayerAudit(layer.name, sequences, tokens, dim, layer.dtype, isotropic, tuple(routings), repeated)


# --- reading ----------------------------------------------------------------------------------------------------------


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, list[slice]]]:
    """Consecutive runs of sequences, and the runs of positions in which to read each."""
    sequences, tokens, dim = shape
    many = max(1, BLOCK // (tokens * dim))
    step = tokens if many > 1 else max(1, BLOCK // dim)
    for start in range(0, sequences, many):
        yield slice(start, min(start + many, sequences)), [slice(p, p + step) for p in range(0, tokens, step)]


def _survey(layer: Layer) -> tuple[int, int]:
    """The exponent of the power of two that scales the layer into [-1, 1], and how many tokens equal the one before.

    Refuses entries that are not finite.
    """
    bad, first, largest, repeated = 0, "", 0.0, 0
    for rows, runs in _pieces(layer.data.shape):
        last: Floats | None = None
        for run in runs:
            x = layer.block(rows, run)
            joined = x if last is None else np.concatenate([last, x], axis=1)
            repeated += int((joined[:, 1:] == joined[:, :-1]).all(axis=-1).sum())
            last = x[:, -1:]
            finite = np.isfinite(x)
            if not finite.all():
                if not bad:
                    at = np.argwhere(~finite)[0] + (rows.start, run.start, 0)
                    place = ("sequence", "position", "feature")[3 - len(layer.shape) :]
                    first = ", ".join(f"{name} {i}" for name, i in zip(place, at[3 - len(layer.shape) :]))
                bad += int(x.size - np.count_nonzero(finite))
            elif not bad:
                largest = max(largest, float(np.abs(x).max()))
    if bad:
        raise ValueError(
            f"{layer.where} holds {bad} non-finite entries (the first at {first}) but every one must be finite"
        )
    return -math.frexp(largest)[1], repeated


def _sums(layer: Layer, exponent: int, group: NDArray[np.intp]) -> Floats:
    """Sum of the scaled tokens of every group, (g, features)."""
    total = np.zeros((int(group[-1]) + 1, layer.data.shape[2]))
    for rows, runs in _pieces(layer.data.shape):
        for run in runs:
            np.add.at(total, group[rows], np.ldexp(layer.block(rows, run), exponent).sum(axis=1))
    return total


def _affinity(x: Floats, setting: Setting) -> Floats:
    if setting.inner:
        assert setting.gates is not None
        return x @ setting.gates.T
    return affinity(x, setting.experts) if setting.gates is None else affinity(x, gates=setting.gates)


def _held_out(layer: Layer, setting: Setting, exponent: int, total: Floats, group: NDArray[np.intp]) -> Whole:
    """Loads (sequences, experts) when every group is centred by the mean token of the others.

    The pooled mean has seen the tokens that it centres, and so evens their loads more than it would those of new ones.
    """
    sequences, tokens = layer.data.shape[:2]
    size = np.bincount(group)[:, None] * tokens
    others = (total.sum(axis=0) - total) / (sequences * tokens - size)
    load = np.zeros((sequences, setting.experts), dtype=np.int64)
    for rows, runs in _pieces(layer.data.shape):
        for run in runs:
            x = np.ldexp(layer.block(rows, run), exponent) - others[group[rows], None]
            load[rows] += token_choice.route(_affinity(x, setting), x.shape[1], top=setting.top).load
    return load


def _halves(layer: Layer, group: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Random halves of the groups to fit on, (halves, g), in complementary pairs; none with fewer than four sequences.

    Centred tokens are read once more for every half, so that large layers get fewer splits.
    """
    groups = int(group[-1]) + 1
    if groups < 4:
        return np.zeros((0, groups), dtype=np.bool_)
    splits = int(np.clip(2**26 // layer.data.size, 1, 8))
    rng = np.random.Generator(np.random.Philox(0))
    seen: dict[bytes, NDArray[np.bool_]] = {}
    for _ in range(8 * splits):
        half = np.zeros(groups, dtype=np.bool_)
        half[rng.permutation(groups)[: groups // 2]] = True
        if len(seen) < 2 * splits and half.tobytes() not in seen and (~half).tobytes() not in seen:
            seen[half.tobytes()], seen[(~half).tobytes()] = half, ~half
    return np.array(list(seen.values()))


def _loads_by_half(
    layer: Layer,
    setting: Setting,
    exponent: int,
    total: Floats,
    group: NDArray[np.intp],
    halves: NDArray[np.bool_],
) -> Whole:
    """Loads (halves, sequences, experts) when all tokens are centred by the mean of each half."""
    sequences, tokens = layer.data.shape[:2]
    size = halves @ np.bincount(group) * tokens
    means = halves @ total / size[:, None]
    load = np.zeros((len(halves), sequences, setting.experts), dtype=np.int64)
    for rows, runs in _pieces(layer.data.shape):
        for run in runs:
            x = np.ldexp(layer.block(rows, run), exponent)
            for k, mean in enumerate(means):
                load[k, rows] += token_choice.route(_affinity(x - mean, setting), x.shape[1], top=setting.top).load
    return load


def _judged(
    setting: Setting,
    load: Whole,
    loads: Whole | None,
    group: NDArray[np.intp],
    halves: NDArray[np.bool_],
    tokens: int,
) -> tuple[HeldOut, ...] | None:
    """Every model fitted on each half and judged on the rest; `loads` by half where the routing depends on it."""
    found: dict[str, list[tuple[float, int, float]]] = {}
    errors: dict[str, list[list[float]]] = {}  # of each half: with all sequences, and without each
    capacities = np.array([_capacity(setting, factor, tokens) for factor in setting.factors])
    groups = halves.shape[1]
    parts = np.arange(groups) * min(groups, DELETED) // groups
    deleted = [parts == part for part in range(parts[-1] + 1)] if groups >= 6 else []
    for k, half in enumerate(halves):
        both = load if loads is None else loads[k]

        def lost(judged: NDArray[np.bool_], both: Whole = both) -> Floats:
            other = both[judged[group]]
            excess = counts.excess(other, np.zeros(len(other), dtype=np.intp), tokens)[0]
            return excess / excess[0]

        def fitted(to: NDArray[np.bool_], both: Whole = both) -> counts.Fit:
            return counts.fit(both[to[group]], tokens, setting.top).for_new()

        whole, measured = fitted(half), lost(~half)
        without = [(fitted(half & ~gone) if np.any(half & gone) else whole, lost(~half & ~gone)) for gone in deleted]
        for model in whole.models:
            prediction = whole.drop(model, capacities)
            gap = prediction - measured[capacities]
            least = whole.least(model, setting.loss)
            found.setdefault(model, []).append((float(gap.mean()), least, float(measured[least])))
            row = [float(np.abs(gap).mean())]
            for fit, rest in without:
                known = model in fit.models
                again = prediction if fit is whole else fit.drop(model, capacities) if known else np.full(1, math.nan)
                row.append(float(np.abs(again - rest[capacities]).mean()))
            errors.setdefault(model, []).append(row)
    if not found:
        return None

    def estimate(values: Floats) -> Estimate:
        """The first value, and the jackknife error from the others."""
        if values.size == 1:
            return Estimate(float(values[0]), None)
        left = values[1:]
        error = math.sqrt((left.size - 1) * float(np.mean(np.square(left - left.mean()))))
        return Estimate(float(values[0]), error if math.isfinite(error) else None)

    judged = []
    error = {model: np.mean(rows, axis=0) for model, rows in errors.items()}
    for model, rows in found.items():
        bias, capacity, loss = np.mean(rows, axis=0).tolist()
        against = None if model == "measured_load" else estimate(error[model] - error["measured_load"])
        worst = max(row[-1] for row in rows)
        judged.append(HeldOut(model, estimate(error[model]), bias, against, capacity, loss, worst))
    return tuple(judged)


def _capacity(setting: Setting, factor: float, tokens: int) -> int:
    return max(1, capacity_factor.slots(factor, tokens, setting.experts, top=setting.top))


def _tally(
    layer: Layer,
    setting: Setting,
    centred: Sequence[bool],
    exponent: int,
    mean: Floats,
    group: NDArray[np.intp],
) -> tuple[list[RoutingSums], float]:
    """The sums of each routing, and the tokens' total sum of squares about their mean."""
    sequences, tokens, dim = layer.data.shape
    groups = int(group[-1]) + 1
    tallies = [
        RoutingSums(
            load=np.zeros((sequences, setting.experts), dtype=np.int64),
            rank=np.zeros((groups, tokens), dtype=np.int64),
            winner=np.zeros((sequences, tokens)),
            direction=np.zeros((groups, dim)),
            size=np.zeros(groups, dtype=np.int64),
            within=np.zeros((sequences, 2)),
            neighbour=np.zeros((sequences, 4)),
        )
        for _ in centred
    ]
    scatter = energy = 0.0
    for rows, runs in _pieces(layer.data.shape):
        count = rows.stop - rows.start
        scores = [np.empty((count, tokens, setting.experts)) for _ in centred]
        sums = [np.zeros((count, dim)) for _ in centred]
        before: list[Floats | None] = [None for _ in centred]
        for run in runs:
            x = np.ldexp(layer.block(rows, run), exponent)
            about = x - mean
            scatter += float(np.vdot(about, about))
            energy += float(np.vdot(x, x))
            for k, (choice, tally) in enumerate(zip(centred, tallies)):
                y = about if choice else x
                score = _affinity(y, setting)
                scores[k][:, run] = score
                _best_expert(tally, score.argmax(axis=-1), about)
                unit, real = _unit(y)
                sums[k] += unit.sum(axis=1)
                np.add.at(tally.size, group[rows], real.sum(axis=1))
                tally.within[rows, 1] += real.sum(axis=1)
                last = before[k]
                joined = unit if last is None else np.concatenate([last, unit], axis=1)
                tally.neighbour[rows, 0] += np.einsum("btd,btd->b", joined[:, 1:], joined[:, :-1])
                length = np.square(joined).sum(axis=-1) > 0.5
                tally.neighbour[rows, 1] += (length[:, 1:] & length[:, :-1]).sum(axis=1)
                before[k] = unit[:, -1:]
        for tally, score, total in zip(tallies, scores, sums):
            _route(tally, score, rows, group[rows], setting.top)
            np.add.at(tally.direction, group[rows], total)
            real_tokens = tally.within[rows, 1].copy()
            tally.within[rows, 0] = np.square(total).sum(axis=-1) - real_tokens
            tally.within[rows, 1] = real_tokens * (real_tokens - 1)
    if scatter <= 1e-26 * energy:
        raise ValueError(f"{layer.where} holds equal tokens only, but an audit needs tokens that differ")
    return tallies, scatter


def _unit(y: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Unit tokens (0 where a token is 0), and which tokens are not 0."""
    length = np.sqrt(np.einsum("btd,btd->bt", y, y))
    real = length > 0
    return y / np.where(real, length, 1.0)[..., None], real


def _best_expert(tally: RoutingSums, best: NDArray[np.intp], about: Floats) -> None:
    """Add tokens to the sums of the experts they prefer: sorted by expert, one sum for each run of the same."""
    flat = best.ravel()
    order = np.argsort(flat, kind="stable")
    present, start = np.unique(flat[order], return_index=True)
    tally.total[present] += np.add.reduceat(about.reshape(-1, about.shape[-1])[order], start, axis=0)
    tally.chosen += np.bincount(flat, minlength=tally.chosen.size)


def _route(tally: RoutingSums, score: Floats, rows: slice, group: NDArray[np.intp], top: int) -> None:
    """Send whole sequences through the routers."""
    count, tokens, experts = score.shape
    tally.load[rows] = token_choice.route(score, tokens, top=top).load
    tally.winner[rows] = score.max(axis=-1)
    best = score.argmax(axis=-1)
    tally.neighbour[rows, 2] = (best[:, 1:] == best[:, :-1]).sum(axis=1)
    tally.neighbour[rows, 3] = tokens - 1
    # An expert that may take every token ranks them all: a token is unprocessed at capacity C if its best rank is >= C
    rank = np.full(count * tokens, tokens - 1)
    width = max(1, 2 * BLOCK // (count * tokens))
    for first in range(0, experts, width):
        everything = expert_choice.route(score[..., first : first + width], tokens)
        np.minimum.at(rank, everything.sample * tokens + everything.token, everything.slot)
    np.add.at(tally.rank, (np.repeat(group, tokens), rank), 1)


# --- from sums to numbers ---------------------------------------------------------------------------------------------


def _routing(
    tally: RoutingSums,
    layer: Layer,
    setting: Setting,
    centred: bool,
    held_out: Whole | None,
    judged: tuple[HeldOut, ...] | None,
    scatter: float,
    group: NDArray[np.intp],
    exponent: int,
) -> LayerRouting:
    sequences, tokens, dim = layer.data.shape
    experts, top, groups = setting.experts, setting.top, int(group[-1]) + 1

    def by_group(values: NDArray[np.generic]) -> Floats:
        result = np.zeros((groups, *values.shape[1:]))
        np.add.at(result, group, values)
        return result

    load, square = by_group(tally.load), by_group(tally.load**2)
    number, neighbour, within = by_group(np.ones(sequences)), by_group(tally.neighbour), by_group(tally.within)
    excess = counts.excess(tally.load, group, tokens)
    unprocessed = np.zeros((groups, tokens + 1))  # tokens whose best rank is >= C
    unprocessed[:, :-1] = np.cumsum(tally.rank[:, ::-1], axis=1)[:, ::-1]

    def estimate(statistic: Callable[[Floats], Floats]) -> Estimate:
        """The statistic of all groups; its error from leaving out each group in turn (weights (k, g) in, (k,) out)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(statistic(np.ones((1, groups)))[0])
            error = math.nan
            if groups > 1:
                without = np.asarray(statistic(1.0 - np.eye(groups)))
                error = math.sqrt((groups - 1) * float(np.mean(np.square(without - without.mean()))))
        return Estimate(value, error if math.isfinite(error) else None)

    def share(w: Floats) -> Floats:
        return w @ load / (w @ load).sum(axis=-1, keepdims=True)

    def share_of(expert: int) -> Estimate:
        return estimate(lambda w: share(w)[:, expert])

    def ratio(top: Floats, bottom: Floats) -> Estimate:
        return estimate(lambda w: (w @ top) / (w @ bottom))

    def cosine(w: Floats) -> Floats:
        size = w @ tally.size
        return (np.square(w @ tally.direction).sum(axis=-1) - size) / (size * (size - 1))

    def lost(curve: Floats, capacity: int) -> Estimate:
        part = ratio(curve[:, capacity], curve[:, 0])
        return part if part.value > 0 else Estimate(0.0, None)  # nothing lost says nothing about the error

    fitted = counts.fit(tally.load, tokens, top)
    spread: Estimate | None = None
    correlation: Estimate | None = None
    if fitted.ratio is not None:
        # the variance needs two sequences on every side of the jackknife, so with two the value stands alone
        def dispersion(part: int) -> Estimate:
            def statistic(w: Floats) -> Floats:
                return counts.dispersion(tokens, w @ number, w @ load, w @ square)[part]

            return estimate(statistic)

        spread, correlation = dispersion(0), dispersion(1)

    def isotropic_limit(capacity: Whole) -> Floats | None:
        if not setting.orthogonal:
            return None
        # in the limit of long sequences an expert takes the affinities above its C/s quantile
        a = caps.cap_quantile(capacity / tokens, dim)
        return np.clip(1 - candidates.percentile(a, dim, experts), 0.0, 1.0)

    capacities = np.array([_capacity(setting, f, tokens) for f in setting.factors], dtype=np.int64)
    predicted = {model: fitted.drop(model, capacities).tolist() for model in fitted.models}
    gaps = _gaps(fitted, tally.load, group, capacities)
    isotropic = isotropic_limit(capacities)
    drops = tuple(
        Drop(
            factor=factor,
            capacity=c,
            measured=lost(excess, c),
            uniform=predicted["uniform"][k],
            measured_load=predicted["measured_load"][k],
            beta_binomial=predicted["beta_binomial"][k] if "beta_binomial" in predicted else None,
            blocks=predicted["blocks"][k] if "blocks" in predicted else None,
            expert_choice=lost(unprocessed, c),
            expert_choice_isotropic=None if isotropic is None else float(isotropic[k]),
            gaps={model: row[k] for model, row in gaps.items()},
        )
        for k, (factor, c) in enumerate(zip(setting.factors, capacities.tolist()))
    )

    def need(curve: Floats, **predicted: int | None) -> Need:
        whole = curve.sum(axis=0)
        value = int(counts.least(setting.loss, whole / whole[0]))
        low = high = None
        if groups > 1:
            part = (1.0 - np.eye(groups)) @ curve
            some = counts.least(setting.loss, part / part[:, :1])
            low, high = int(some.min()), int(some.max())
        return Need(value, value * experts / (top * tokens), low, high, **predicted)

    asked: dict[str, int | None] = {model: fitted.least(model, setting.loss) for model in fitted.models}
    advised = None if fitted.ratio is None else fitted.for_new().least("beta_binomial", setting.loss)
    choosing = need(excess, **asked, advised=advised)
    taking = need(unprocessed)
    furthest = min(tokens, max(_capacity(setting, max(2.0, *setting.factors), tokens), 2 * choosing.capacity))
    grid = np.unique(np.linspace(1, furthest, 120).round().astype(np.int64))
    whole = excess.sum(axis=0)
    curve = {
        "capacity": grid.tolist(),
        "measured": (whole[grid] / whole[0]).tolist(),
        **{model: fitted.drop(model, grid).tolist() if model in fitted.models else None for model in MODELS},
    }

    held_out_share, held_out_capacity = None, None
    if held_out is not None:
        held_out_share = float(held_out.sum(axis=0).max() / held_out.sum())
        curve_held_out = counts.excess(held_out, np.zeros(sequences, dtype=np.intp), tokens)[0]
        held_out_capacity = int(counts.least(setting.loss, curve_held_out / curve_held_out[0]))

    test = counts.relabelled(tally.load)
    fraction = fitted.share / fitted.share.sum()
    used = int((tally.chosen > 0).sum())
    between = float((np.square(tally.total).sum(axis=-1) / np.maximum(tally.chosen, 1)).sum())
    rest = scatter - between
    best = tally.chosen / tally.chosen.sum()
    return LayerRouting(
        centred=centred,
        load=tuple(share_of(i) for i in range(experts)),
        p_uniform=None if test is None else test[0],
        relabellings=None if test is None else test[2],
        total_variation=estimate(lambda w: 0.5 * np.abs(share(w) - 1 / experts).sum(axis=-1)),
        total_variation_chance=None if test is None else test[1],
        heaviest=estimate(lambda w: share(w).max(axis=-1)),
        held_out_heaviest=held_out_share,
        held_out_capacity=held_out_capacity,
        variation=float(np.std(fraction) / np.mean(fraction)),
        cosine=estimate(cosine),
        cosine_within=ratio(within[:, 0], within[:, 1]),
        cosine_neighbours=ratio(neighbour[:, 0], neighbour[:, 1]),
        same_expert=ratio(neighbour[:, 2], neighbour[:, 3]),
        same_expert_independent=float(np.square(best).sum()),
        zero_tokens=int(sequences * tokens - tally.size.sum()),
        affinity=_winning(np.ldexp(tally.winner, -exponent) if setting.inner else tally.winner, dim, setting),
        dispersion=spread,
        correlation=correlation,
        drops=drops,
        token_choice=choosing,
        resonance=choosing,  # identical loads, identical numbers kept
        expert_choice=taking,
        held_out=judged,
        splits=0 if judged is None else len(_halves(layer, group)) // 2,
        between_within=between / rest if rest > 0 else None,
        calinski_harabasz=(
            between / rest * (sequences * tokens - used) / (used - 1)
            if rest > 0 and 1 < used < sequences * tokens
            else None
        ),
        experts_used=used,
        curve=curve,
    )


def _gaps(fitted: counts.Fit, load: Whole, group: NDArray[np.intp], capacity: Whole) -> dict[str, list[Estimate]]:
    """Predicted less measured drop at each capacity by model; errors by fitting and measuring without each part."""
    groups = int(group[-1]) + 1
    parts = group * min(groups, DELETED) // groups
    number = int(parts[-1]) + 1

    def gap(fit: counts.Fit, some: Whole, model: str) -> Floats:
        excess = counts.excess(some, np.zeros(len(some), dtype=np.intp), fit.tokens)[0]
        return fit.drop(model, capacity) - excess[capacity] / excess[0]

    rest = [load[parts != part] for part in range(number)] if number > 2 else []
    again = [counts.fit(some, fitted.tokens, fitted.top) for some in rest]
    result = {}
    for model in fitted.models:
        value = gap(fitted, load, model)
        error = np.full(value.shape, math.nan)
        if rest and all(model in fit.models for fit in again):
            left = np.array([gap(fit, some, model) for fit, some in zip(again, rest)])
            error = np.sqrt((number - 1) * np.square(left - left.mean(axis=0)).mean(axis=0))
        result[model] = [Estimate(float(v), float(e) if math.isfinite(e) else None) for v, e in zip(value, error)]
    return result


def _winning(winner: Floats, dim: int, setting: Setting) -> Affinity:
    """Quantiles of the winning affinity against those of isotropic tokens, P(max >= a) = n h(a)."""
    ordered = np.sort(winner, axis=None)
    levels = np.array(QUANTILES)
    measured = np.quantile(ordered, levels)
    isotropic = distance = None
    if setting.orthogonal:

        def below(a: Floats) -> Floats:
            return 1 - np.asarray(candidates.percentile(np.clip(a, -1.0, 1.0), dim, setting.experts))

        low, high = np.full(levels.shape, -1.0), np.full(levels.shape, 1.0)
        for _ in range(50):
            middle = (low + high) / 2
            under = below(middle) < levels
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        isotropic = tuple(((low + high) / 2).tolist())
        # Kolmogorov's distance, on at most 4096 of the order statistics
        at = np.unique(np.linspace(0, ordered.size - 1, min(ordered.size, 4096)).round().astype(np.int64))
        law = below(ordered[at])
        distance = float(np.maximum((at + 1) / ordered.size - law, law - at / ordered.size).max())
    return Affinity(QUANTILES, tuple(measured.tolist()), isotropic, distance)
