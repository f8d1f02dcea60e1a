"""From arrays to a RoutingLog: padding left out, what repeats said, what is missing named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.logs import counting, repeats
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._options import Options

__all__ = ["choices_log", "counts_log", "documents_of", "whole_numbers"]


def choices_log(
    where: str,
    name: str,
    options: Options,
    choices: Any,
    *,
    experts: int | None,
    weights: Any = None,
    documents: Any = None,
    layers: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> RoutingLog:
    """A log of choices (tokens, layers, k), without the tokens and layers that took no expert at all."""
    said = list(notes)
    names = tuple(options.layer_names or layers)
    if np.ndim(choices) != 3:
        raise ValueError(f"{where}: choices has shape {np.shape(choices)} but must have the axes (tokens, layers, k)")
    tokens, depth, top = choices.shape
    if 0 in choices.shape:
        raise ValueError(
            f"{where}: choices has shape {choices.shape} with the axes (tokens, layers, k), of which each must be at "
            "least 1"
        )
    if depth > max(tokens, 128):
        raise ValueError(
            f"{where}: choices has shape {choices.shape}, {depth} layers of {tokens} tokens: its axes must be "
            "(tokens, layers, k)"
        )
    if options.documents is not None:
        documents = options.documents
    if documents is not None and np.shape(documents) != (tokens,):
        raise ValueError(
            f"{where}: documents has shape {np.shape(documents)} but must have one entry for each of the {tokens} tokens"
        )
    names = names or tuple(f"layer.{k}" for k in range(depth))
    if len(names) != depth:
        raise ValueError(f"{where}: layers names {len(names)} layers but the file has {depth}")
    seen = _scan(where, names, choices)
    if not seen.used.any():
        why = "names one expert k times in every layer" if seen.stuck.any() else "is -1 throughout"
        raise ValueError(f"{where}: choices {why}, all padding, but must hold some token's experts")
    if not seen.used.all():
        idle = [names[k] for k in np.flatnonzero(~seen.used)]
        why = "name one expert k times throughout" if seen.stuck.any() else "took no expert at all"
        said.append(
            f"{len(idle)} layers {why} (no experts, or a buffer that was not filled) and are left out: {_listed(idle)}."
        )
        choices, weights = choices[:, seen.used], None if weights is None else weights[:, seen.used]
        names = tuple(n for n, used in zip(names, seen.used) if used)
    keep = ~seen.padding
    if seen.padding.any():
        said.append(_padding(seen, tokens))
        choices, weights = choices[keep], None if weights is None else weights[keep]
        documents = None if documents is None else np.asarray(documents)[keep]
    if seen.largest >= 2**31:
        raise ValueError(f"{where}: choices holds {seen.largest} but the ids of experts must be below 2^31")
    if experts is None:
        experts = max(2, seen.largest + 1, top)
        said.append(
            f"The number of experts is not in the file: {experts} is the largest id plus one; give experts= if it is more."
        )
    if seen.twice:
        said.append(
            f"CAUTION: in {seen.twice:.1%} of the first {min(tokens, seen.looked)} tokens an expert is named twice in one "
            "layer, which no top-k router does: the buffer may not have been filled."
        )
    arguments.choice("repeats", options.repeats, ("keep", "drop"))
    found = repeats.find(_codes(choices))
    share = float("nan") if found is None else found.excess
    if found is not None:
        said.extend(_repeated(found, choices.shape, experts))
        if options.repeats == "drop" and share >= 0.01:
            keep = _fresh(choices, found.lag)
            said.append(f"{int((~keep).sum())} tokens whose row repeats the one {found.lag} before are left out.")
            choices, weights = choices[keep], None if weights is None else weights[keep]
            documents = None if documents is None else np.asarray(documents)[keep]
            share = 0.0
    return RoutingLog(
        experts=experts,
        choices=choices,
        weights=weights,
        documents=documents,
        layers=names,
        source=name,
        notes=tuple(said),
        repeated=share,
    )


class _Seen:
    """What one pass finds: padding tokens and why, layers in use, the largest id, tokens that name an expert twice."""

    def __init__(self, tokens: int, depth: int) -> None:
        self.padding = np.zeros(tokens, bool)
        self.empty = self.constant = 0
        self.used, self.stuck = np.zeros(depth, bool), np.zeros(depth, bool)
        self.largest = -1
        self.twice, self.looked = 0.0, 0


def _blocks(choices: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    size = max(1, counting.BLOCK // int(np.prod(choices.shape[1:])))
    for start in range(0, len(choices), size):
        yield start, counting.native(choices[start : start + size])


def _scan(where: str, names: Sequence[str], choices: Any) -> _Seen:
    seen = _Seen(*choices.shape[:2])
    varied = np.zeros(choices.shape[1], bool)
    top = choices.shape[2]
    for start, part in _blocks(choices):
        high, same = part[:, :, 0].copy(), np.ones(part.shape[:2], bool)
        for slot in range(1, top):  # far faster than along so short an axis
            np.maximum(high, part[:, :, slot], out=high)
            same &= part[:, :, slot] == part[:, :, 0]
        if part.dtype.kind == "i" and part.min() < -1:
            token, layer, slot = (int(k) for k in np.argwhere(part < -1)[0])
            raise ValueError(
                f"{where}: choices holds {int(part[token, layer, slot])} (token {start + token}, layer {names[layer]!r}) but "
                "must hold ids from 0 on, and -1 where there is none"
            )
        some = high >= 0
        seen.used |= some.any(axis=0)
        varied |= (some & ~same).any(axis=0) if top > 1 else True
        empty = ~some.any(axis=1)
        constant = (same | ~some).all(axis=1) & ~empty if top > 1 else np.zeros(len(part), bool)
        seen.padding[start : start + len(part)] = empty | constant
        real = high[~(empty | constant)]
        seen.largest = max(seen.largest, int(real.max()) if real.size else -1)
        seen.empty += int(empty.sum())
        seen.constant += int(constant.sum())
        if start == 0 and top > 1:
            first = ~seen.padding[: min(len(part), 2**14)]
            order = np.sort(part[: len(first)][first], axis=2)
            again = ((order[..., 1:] == order[..., :-1]) & (order[..., 1:] >= 0)).any(axis=(1, 2))
            seen.twice, seen.looked = float(again.mean()) if again.size else 0.0, len(order)
    if top > 1:
        seen.stuck = seen.used & ~varied
        seen.used &= varied
        if seen.stuck.any():  # their rows said nothing about repeated ids
            order = np.sort(counting.native(choices[: 2**14][:, seen.used][~seen.padding[: 2**14]]), axis=2)
            again = ((order[..., 1:] == order[..., :-1]) & (order[..., 1:] >= 0)).any(axis=(1, 2))
            seen.twice = float(again.mean()) if again.size else 0.0
    return seen


def _padding(seen: _Seen, tokens: int) -> str:
    why = []
    if seen.empty:
        why.append(f"{seen.empty} have -1 for every expert (padding, or a prefix that was cached)")
    if seen.constant:
        why.append(f"{seen.constant} name one expert k times in every layer (a buffer that was not filled)")
    share = (seen.empty + seen.constant) / tokens
    return f"{share:.1%} of {tokens} tokens are padding and left out: {'; '.join(why)}."


def _codes(choices: Any) -> Iterator[NDArray[np.uint64]]:
    return (repeats.row_codes(part) for _, part in _blocks(choices))


def _fresh(choices: Any, lag: int) -> NDArray[np.bool_]:
    """Tokens whose row is not that of the token `lag` before."""
    before, keep = np.zeros(0, np.uint64), []
    for codes in _codes(choices):
        line = np.concatenate([before, codes])
        new = np.ones(len(line), bool)
        new[lag:] = line[lag:] != line[:-lag]
        keep.append(new[len(before) :])
        before = line[-lag:]
    return np.concatenate(keep)


def _repeated(found: repeats.Repeats, shape: tuple[int, ...], experts: int) -> list[str]:
    """What to say about rows that repeat."""
    said = []
    row = "the row before" if found.lag == 1 else f"the row {found.lag} before"
    short = repeats.bits(shape[1], shape[2], max(experts, shape[2])) < 16
    loud = found.excess >= 0.2 and (not short or found.excess >= 0.8)
    if found.excess >= 0.01:
        text = (
            f"{found.share:.1%} of the tokens have the very choices of {row} ({found.chance:.2%} by chance; longest run "
            f"{found.longest})"
        )
        if loud:
            said.append(
                f"CAUTION: {text}: dummy batches or a stuck buffer. Whatever is computed from this log is wrong unless "
                "they are left out (repeats='drop')."
            )
        elif short:
            said.append(f"{text}: with so few experts a row this may be real.")
        else:
            said.append(f"{text}.")
    if found.copies >= 0.5 and not short and not loud:
        said.append(
            f"{found.copies:.1%} of the first {min(shape[0], 2**16)} tokens have the very choices of an earlier token: "
            "prompts with a common beginning, or dummy batches."
        )
    return said


def counts_log(
    where: str,
    name: str,
    options: Options,
    counts: Any,
    *,
    top: int | None,
    tokens: Any = None,
    layers: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> RoutingLog:
    """A log of counts (steps, layers, experts), without the steps and layers that counted nothing."""
    said = list(notes)
    array = whole_numbers(where, "counts", counts)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"{where}: counts has shape {array.shape} but must have the axes (steps, layers, experts), none empty"
        )
    names = tuple(options.layer_names or layers) or tuple(f"layer.{k}" for k in range(array.shape[1]))
    if len(names) != array.shape[1]:
        raise ValueError(f"{where}: layers names {len(names)} layers but the file has {array.shape[1]}")
    low = np.argwhere(array < 0)
    if low.size:
        step, layer, expert = (int(k) for k in low[0])
        raise ValueError(
            f"{where}: counts[{step}, {layer}, {expert}] = {array[step, layer, expert]}, layer {names[layer]!r}, must be at "
            "least 0"
        )
    if array.max() > 2**53:
        raise ValueError(f"{where}: counts holds {int(array.max())} but must be at most 2^53")
    if array.shape[2] < 2:
        raise ValueError(f"{where}: counts has shape {array.shape}, one expert, but must have at least 2")
    if options.experts is not None and options.experts != array.shape[2]:
        raise ValueError(f"{where}: counts has {array.shape[2]} experts but experts = {options.experts} was given")
    steps, used = np.any(array, axis=(1, 2), keepdims=True).ravel(), np.any(array, axis=(0, 2), keepdims=True).ravel()
    if not steps.any():
        raise ValueError(f"{where}: counts is 0 throughout but must hold some tokens")
    if not used.all():
        idle = [n for n, u in zip(names, used) if not u]
        said.append(f"{len(idle)} layers counted nothing and are left out: {_listed(idle)}.")
    if not steps.all():
        said.append(f"{int((~steps).sum())} of {len(steps)} steps counted nothing and are left out.")
    if top is not None and top > array.shape[2]:
        raise ValueError(f"{where}: top = {top} must be at most the {array.shape[2]} experts")
    given = options.tokens if options.tokens is not None else tokens
    array = array[steps][:, used]
    if given is not None:
        each = arguments.integer("tokens", given, 0)
        each = np.broadcast_to(each, steps.shape)[steps] if each.ndim == 0 or each.shape == steps.shape else each
    else:
        if top is None:
            said.append(
                "Neither tokens nor top is in the file: every choice is taken for a token (top-1); capacities are the same, "
                "give top= for the loads' law."
            )
        most = array.sum(axis=2).max(axis=1)
        each = np.maximum(-(-most // (top or 1)), array.max(axis=(1, 2)))
    return RoutingLog(
        experts=array.shape[2],
        counts=array,
        tokens=each,
        layers=tuple(n for n, u in zip(names, used) if u),
        source=name,
        notes=tuple(said),
    )


def whole_numbers(where: str, name: str, value: Any) -> NDArray[np.int64]:
    """An array of whole numbers as int64, also where they are stored as floating-point numbers."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        bad = ~(np.abs(array) < 2**53) | (array != np.rint(array))
        if bad.any():
            raise ValueError(f"{where}: {name} holds {array[bad].flat[0].item()} but must hold whole numbers")
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{where}: {name} has dtype {array.dtype} but must hold whole numbers")
    if array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:
        raise ValueError(f"{where}: {name} holds {int(array.max())} but must be below 2^63")
    return array.astype(np.int64, copy=False)


def documents_of(lengths: Sequence[int]) -> NDArray[np.int64]:
    """The document of each token of documents of these lengths."""
    return np.repeat(np.arange(len(lengths)), np.asarray(lengths, np.int64))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
