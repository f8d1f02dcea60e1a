"""Drop policies by law: fitted on half of a log's documents or blocks, beside what they keep of the other half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.audit.load_laws import FittedLoads
from resonance_theory.audit.log_blocks import LogBlocks
from resonance_theory.logs import RoutingLog
from resonance_theory.logs.drop_policies import POLICIES, Kept, policies
from resonance_theory.results import Result

__all__ = ["JudgedPolicy", "PolicyTable", "expected", "judge_policies"]

Floats = NDArray[np.float64]

_PLACES = 33  # of the place among an expert's candidates, between which the law is interpolated
_LOADS = 48  # quantiles of an expert's load, over which the law is averaged


def expected(log: RoutingLog, policy: str, capacity_factor: float, block: int) -> Kept:
    """What a policy keeps of new tokens like the log's, by the resonance law.

    An expert's load in a block is beta-binomial with its share and correlation in the log (allowing for the error of the
    shares). A choice at the place ρ among its expert's candidates, 0 first, is kept if fewer than C of the others come
    before it: Bin(s-1, p ρ) of them, p the expert's random load, weighted by p. ρ is the rank of the gate weight for "probs", the
    position in the block for "position", uniform for "random". Experts and layers count as independent given the token.
    The law is averaged over 48 quantiles of the load and interpolated between 33 places: good to about 0.1 points.
    """
    arguments.choice("policy", policy, tuple(POLICIES))
    blocks = LogBlocks.of(log, block)
    log = blocks.log
    choices = np.asarray(log.choices, np.int64)[: len(blocks.load) * block]
    real = choices >= 0
    weights = np.ones(choices.shape) if log.weights is None else np.asarray(log.weights, np.float64)[: len(choices)]
    weights = np.where(real, weights, 0.0)
    keep = np.zeros(choices.shape)
    for layer in range(choices.shape[1]):
        loads = blocks.layer(layer)
        law = FittedLoads.to(loads).for_new(block)
        curve = _keeps(law, loads.capacity(capacity_factor), block)  # (experts, places)
        chosen = np.maximum(choices[:, layer], 0)
        if policy == "random":
            keep[:, layer] = np.asarray(np.trapezoid(curve, axis=1))[chosen] / (_PLACES - 1)
            continue
        if policy == "position":
            place = np.broadcast_to(((np.arange(len(choices)) % block + 0.5) / block)[:, None], chosen.shape)
        else:
            place = _ranks(chosen, np.where(real[:, layer], weights[:, layer], -1.0), log.experts)
        low = np.minimum((place * (_PLACES - 1)).astype(np.int64), _PLACES - 2)
        part = place * (_PLACES - 1) - low
        keep[:, layer] = (1 - part) * curve[chosen, low] + part * curve[chosen, low + 1]
    lost = np.where(real, 1 - keep, 1.0).prod(axis=2)  # (tokens, layers): independent experts
    anywhere = float(1 - (1 - lost).prod(axis=1).mean())
    return Kept(
        policy=policy,
        weight=float((keep * weights).sum() / weights.sum()),
        choices=float(keep[real].mean()),
        lost=float(lost.mean()),
        lost_anywhere=anywhere,
        lost_layers=float(lost.sum(axis=1).mean()) / anywhere if anywhere > 0 else 0.0,
        depth=None,
        whole=float(np.where(real, keep, 1.0).prod(axis=(1, 2)).mean()),
    )


def _keeps(law: FittedLoads, capacity: int, tokens: int) -> Floats:
    """P(kept | chosen, place), (experts, places): the mean of p P(Bin(s-1, p ρ) < C) over that of p, p the Beta load."""
    from scipy.special import betainc, betaincinv

    place, share = np.linspace(0.0, 1.0, _PLACES), np.clip(law.share, 1e-12, 1 - 1e-12)
    load = share[:, None]
    if law.correlation:
        level, scale = (np.arange(_LOADS) + 0.5) / _LOADS, (1 - law.correlation) / law.correlation
        load = betaincinv(load * scale, (1 - load) * scale, level)
        load *= (share / load.mean(axis=1))[:, None]  # the mean of the quantiles is a little less
    if capacity >= tokens:
        return np.ones((share.size, _PLACES))
    above = np.clip(load[:, None, :] * place[:, None], 0.0, 1.0)
    kept = betainc(tokens - capacity, capacity, 1 - above)
    # a choice is more likely to fall into a block where its expert's load is high
    return np.asarray((kept * load[:, None]).sum(axis=2) / load.sum(axis=1)[:, None])


def _ranks(chosen: NDArray[np.int64], weight: Floats, experts: int) -> Floats:
    """(rank + 1/2)/load of each choice among its expert's by falling weight."""
    order = np.lexsort((-weight.ravel(), chosen.ravel()))
    line = chosen.ravel()[order]
    start = np.searchsorted(line, np.arange(experts + 1))
    place = np.empty(line.size)
    place[order] = (np.arange(line.size) - start[line] + 0.5) / np.diff(start)[line]
    return place.reshape(chosen.shape)


@dataclass(frozen=True)
class JudgedPolicy:
    """A policy at one capacity factor: measured on one half, and expected by the law fitted on the other."""

    capacity_factor: float
    measured: Kept
    law: Kept | None


@dataclass(frozen=True, repr=False)
class PolicyTable(Result):
    """Policies measured and expected, held out. source: of the log; block: tokens; documents: whether they were split."""

    source: str
    block: int
    documents: bool
    policies: tuple[JudgedPolicy, ...]

    def summary(self) -> str:
        return f"{self.source}, drop policies at {len({p.capacity_factor for p in self.policies})} capacity factors"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each policy and factor; what the law expects begins with `law_`."""
        return [
            {"capacity_factor": p.capacity_factor, **asdict(p.measured)}
            | {f"law_{name}": value for name, value in (asdict(p.law) if p.law else {}).items() if name != "policy"}
            for p in self.policies
        ]

    def to_json(self) -> dict[str, Any]:
        """The fields with version, commit and time."""
        return self.record("resonance-theory policies 1", asdict(self))

    def table(self) -> str:
        """Lines for a terminal: in every cell measured / law."""
        half = "documents" if self.documents else "blocks"
        lines = [
            f"{self.source}, blocks of {self.block}: measured on half of the {half} / law fitted on the other half, in %",
            "",
            f"  factor  {'policy':14}  {'gate weight kept':>16}  {'lose all experts':>16}  {'... in any layer':>16}  "
            f"{'layers then':>13}  {'keep all, always':>16}",
        ]
        for p in self.policies:
            m, law = p.measured, p.law
            weight = (
                _pair(m.weight, None if law is None else law.weight)
                if m.low is None
                else f"{100 * m.low:.1f} to {100 * m.weight:.1f}"
            )
            cells = [_pair(getattr(m, k), None if law is None else getattr(law, k)) for k in ("lost", "lost_anywhere")]
            layers = _pair(m.lost_layers, None if law is None else law.lost_layers, 1)
            lines.append(
                f"  {p.capacity_factor:<6g}  {m.policy.replace('_', ' '):14}  {weight:>16}  {cells[0]:>16}  {cells[1]:>16}  "
                f"{layers:>13}  {_pair(m.whole, None if law is None else law.whole):>16}"
            )
        return "\n".join(lines)


def _pair(measured: float | None, law: float | None, unit: int = 100) -> str:
    if measured is None:
        return "-"
    return f"{unit * measured:.2f}" + ("" if law is None else f" / {unit * law:.2f}")


def judge_policies(
    log: RoutingLog, *, factors: Sequence[float] = (1.0, 1.25, 1.5, 2.0), block: int | None = None
) -> PolicyTable:
    """Measure drop policies on one half of a log, beside the law fitted on the other.

    Args:
        log: a log of choices, best with gate weights and documents; without documents its blocks are halved.
        factors: capacity factors, positive.
        block: tokens of a block; chosen as `audit_log` does unless given.

    Returns:
        A `PolicyTable`: `table()`, `rows()`, `to_json()`.

    Raises:
        ValueError, TypeError: one sentence with what is allowed.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> scores = np.random.default_rng(0).dirichlet(np.full(8, 0.5), size=(4096, 1))
        >>> chosen = np.argsort(-scores, axis=-1)[..., :2]
        >>> log = rt.logs.RoutingLog(experts=8, choices=chosen, weights=np.take_along_axis(scores, chosen, -1))
        >>> for p in rt.audit.judge_policies(log, factors=[0.8], block=128).policies[:3]:
        ...     print(f"{p.measured.policy:8} measured {p.measured.weight:.3f}, law {p.law.weight:.3f}")
        probs    measured 0.895, law 0.891
        position measured 0.809, law 0.803
        random   measured 0.805, law 0.804
    """
    if not isinstance(log, RoutingLog):
        raise TypeError(f"log is a {type(log).__name__} but must be a RoutingLog")
    if log.choices is None:
        raise ValueError("log counts tokens but must hold each token's choices: a policy chooses among them")
    wanted = arguments.real("factors", factors, 0.0, open_low=True)
    if wanted.ndim != 1 or wanted.size == 0:
        raise ValueError(f"factors has shape {wanted.shape} but must be a list of at least one number")
    blocks = LogBlocks.of(log, block)
    fitted, judged = blocks.two_logs()
    found = []
    for factor in wanted.tolist():
        for kept in policies(judged, factor, blocks.block).kept:
            law = expected(fitted, kept.policy, factor, blocks.block) if kept.policy in POLICIES else None
            found.append(JudgedPolicy(factor, kept, law))
    return PolicyTable(log.source, blocks.block, blocks.log.documents is not None, tuple(found))
