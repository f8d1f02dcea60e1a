"""Near neighbours of a claim's true side: does some check notice when a constant is slightly wrong?

A mutant is one false neighbour, chosen by hand. These are made by rule: every number of the true side, and every number
inside its functions, 0.1 % and one part in a million up and down, whole numbers one up and one down, flags turned over,
what a function returns 0.1 % up and down, its whole-number arguments shifted by one. All derivations, certificates and
references run on each until one does not hold. The two directions of a change are a pair:

    both rejected     the checks fix this number from both sides
    one rejected      a bound: it may move to the weaker side, which stays true
    none rejected     a survivor; `proofs/perturbed.toml` must say why, or the checks have no teeth there

A check that raises on a neighbour (an argument that no longer fits), or takes half a minute, decides nothing about it.
"""

from __future__ import annotations

import signal
import threading
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import flint
import sympy as sp

from resonance_theory.evidence.claims.claim import Claim, _outcome
from resonance_theory.evidence.claims.ledger import folder, load
from resonance_theory.evidence.outcome import Outcome
from resonance_theory.evidence.sampling import pool

__all__ = ["Neighbour", "Pair", "explained", "neighbours", "pairs", "reason", "run"]

PATIENCE = 30.0  # seconds for a check; computer algebra may search long for what is not there
SIZES = (Fraction(1, 10**3), Fraction(1, 10**6))


@dataclass(frozen=True)
class Neighbour:
    """A changed side: what was changed, by how much, in which direction (-1, +1; 0 for a flag)."""

    where: str
    change: str
    direction: int
    side: Any


@dataclass(frozen=True)
class Pair:
    """Both directions of one change of a claim.

    down, up: "rejected" by a check, "passed" all, "broke" (raised), or "" where there is no such direction.
    """

    claim: str
    where: str
    change: str
    down: str
    up: str

    @property
    def key(self) -> str:
        return f"{self.claim}: {self.where} {self.change}"

    @property
    def survives(self) -> bool:
        """Some direction passed all checks, and none was rejected."""
        said = {self.down, self.up}
        return "passed" in said and "rejected" not in said

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _scaled(number: Any, factor: Fraction) -> Any:
    if isinstance(number, float):
        return number * float(factor)
    if isinstance(number, flint.arb):
        return number * flint.arb(flint.fmpq(factor.numerator, factor.denominator))
    return number * (factor if isinstance(number, Fraction) else sp.Rational(factor.numerator, factor.denominator))


def _numbers(value: Any) -> Iterator[tuple[str, int, Any]]:
    """(change, direction, new value) of a leaf of a side."""
    if isinstance(value, bool):
        yield "turned over", 0, not value
    elif isinstance(value, int) or (isinstance(value, sp.Symbol) and value.is_integer):
        yield from (("by 1", sign, value + sign) for sign in (-1, 1))
    elif isinstance(value, float | Fraction | sp.Expr | flint.arb):
        for size in SIZES:
            for sign in (-1, 1):
                moved = sign * size if value == 0 else _scaled(value, 1 + sign * size)
                if value == 0:
                    moved = float(moved) if isinstance(value, float) else sp.Rational(str(moved))
                yield f"by {float(size):g}", sign, moved
    elif isinstance(value, types.FunctionType):
        yield from _functions(value)


def _functions(function: types.FunctionType) -> Iterator[tuple[str, int, Any]]:
    """A function with a number inside it changed, with its result scaled, or with a whole-number argument shifted."""
    code = function.__code__
    for k, constant in enumerate(code.co_consts):
        if type(constant) in (int, float) and constant not in (0, 1):  # 0 and 1 are mostly indices and complements
            for change, sign, new in _numbers(constant):
                consts = (*code.co_consts[:k], new, *code.co_consts[k + 1 :])
                changed = types.FunctionType(
                    code.replace(co_consts=consts),
                    function.__globals__,
                    function.__name__,
                    function.__defaults__,
                    function.__closure__,
                )
                changed.__kwdefaults__ = function.__kwdefaults__
                yield f"{constant} in it {change}", sign, changed
    for size in SIZES[:1]:
        for sign in (-1, 1):
            yield f"its result by {float(size):g}", sign, _times(function, 1 + sign * size)
    names = code.co_varnames[: code.co_argcount]
    for k, name in enumerate(names):
        for sign in (-1, 1):
            yield f"its argument {name} by 1", sign, _shifted(function, k, name, sign)


def _times(function: Callable[..., Any], factor: Fraction) -> Callable[..., Any]:
    def scaled(*args: Any, **options: Any) -> Any:
        def times(result: Any) -> Any:
            if isinstance(result, bool) or result is None:
                raise TypeError("the function returns no number")
            if isinstance(result, tuple | list):
                return type(result)(map(times, result))
            if isinstance(result, Mapping):
                return {key: times(value) for key, value in result.items()}
            if isinstance(result, int | sp.Basic | Fraction | flint.arb):
                return _scaled(sp.Integer(result) if isinstance(result, int) else result, factor)
            if isinstance(result, flint.fmpq):
                return result * flint.fmpq(factor.numerator, factor.denominator)
            return result * float(factor)

        return times(function(*args, **options))

    return scaled


def _shifted(function: Callable[..., Any], place: int, name: str, by: int) -> Callable[..., Any]:
    def shifted(*args: Any, **options: Any) -> Any:
        def whole(value: Any) -> Any:
            kind = getattr(getattr(value, "dtype", None), "kind", None)
            symbolic = isinstance(value, sp.Basic) and bool(value.is_integer)
            if (isinstance(value, int) and not isinstance(value, bool)) or kind in ("i", "u") or symbolic:
                return value + by
            raise TypeError(f"{name} is no whole number")

        if name in options:
            return function(*args, **options | {name: whole(options[name])})
        return function(*(whole(v) if k == place else v for k, v in enumerate(args)), **options)

    return shifted


def _parts(side: Any) -> tuple[list[tuple[Any, Any]], Callable[[Any, Any], Any]] | None:
    """The parts of a composed side, and how to put a new one in the place of an old; None for a leaf."""
    if isinstance(side, Mapping):
        return list(side.items()), lambda key, new: {**side, key: new}
    if hasattr(side, "_replace"):
        return list(side._asdict().items()), lambda key, new: side._replace(**{key: new})
    if isinstance(side, tuple):
        return list(enumerate(side)), lambda key, new: (*side[:key], new, *side[key + 1 :])
    if isinstance(side, types.SimpleNamespace) or hasattr(side, "__dataclass_fields__"):
        return list(vars(side).items()), lambda key, new: type(side)(**{**vars(side), key: new})
    return None


def neighbours(side: Any) -> Iterator[Neighbour]:
    """Every neighbour of a side: a namespace, dictionary, tuple, number, expression or function."""
    composed = _parts(side)
    if composed is None:
        yield from (Neighbour("side", *change) for change in _numbers(side))
        return
    parts, put = composed
    for key, value in parts:
        for inner in neighbours(value):
            where = str(key) if inner.where == "side" else f"{key}.{inner.where}"
            yield Neighbour(where, inner.change, inner.direction, put(key, inner.side))


def pairs(claim: Claim) -> list[Pair]:
    """How a claim's checks take the neighbours of its true side: one pair for each change."""
    checks = [check for check in claim.checks if check.kind != "counterexample"]
    order = {"derivation": 0, "certificate": 1, "reference": 2}
    checks.sort(key=lambda check: order[check.kind])
    found: dict[tuple[str, str], dict[int, str]] = {}
    for neighbour in neighbours(claim.truth):
        said = "passed"
        for k, check in enumerate(checks):
            outcome = _within(PATIENCE, check.run, neighbour.side)
            if outcome.broke:
                said = "broke"
            elif not outcome.holds:
                said = "rejected"
                checks.insert(0, checks.pop(k))  # what noticed one change will notice the next
                break
        found.setdefault((neighbour.where, neighbour.change), {})[neighbour.direction] = said
    return [
        Pair(claim.id, where, change, said.get(-1, ""), said.get(1, said.get(0, "")))
        for (where, change), said in found.items()
    ]


def _within(seconds: float, run: Callable[[Any], Outcome], side: Any) -> Outcome:
    """A check's outcome; one that takes longer is broken off, where the system has timers and this is the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        return _outcome(run, side)

    def late(*_: object) -> None:
        raise TimeoutError(f"it took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return _outcome(run, side)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def explained() -> dict[str, dict[str, str]]:
    """Why a survivor is no error: a table for each claim, by "where change" or by "where" alone."""
    return tomllib.loads((folder("proofs") / "perturbed.toml").read_text(encoding="utf-8"))


def reason(pair: Pair, known: Mapping[str, Mapping[str, str]]) -> str:
    """The reason given for a survivor, or ""."""
    table = known.get(pair.claim, {})
    return table.get(f"{pair.where} {pair.change}") or table.get(pair.where, "")


def run(
    ids: Sequence[str], *, workers: int = 1, on_result: Callable[[str, list[Pair]], None] | None = None
) -> list[Pair]:
    """The pairs of several claims over a pool of processes.

    Args:
        ids: Names of claims.
        workers: Processes, at least 1.
        on_result: Receives each claim's id and pairs as they come in.
    """
    found: dict[int, list[Pair]] = {}

    def collect(index: int, result: list[Pair]) -> None:
        found[index] = result
        if on_result is not None:
            on_result(ids[index], result)

    pool.each(_pairs, [(claim_id,) for claim_id in ids], workers=workers, finish=collect)
    return [pair for index in sorted(found) for pair in found[index]]


def _pairs(claim_id: str) -> list[Pair]:
    return pairs(load(claim_id))
