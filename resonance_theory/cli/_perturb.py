"""`resonance verify --perturb`: which small changes of the claims no check notices."""

from __future__ import annotations

from collections import Counter
from typing import Any

from resonance_theory.cli._terminal import emit, show
from resonance_theory.provenance import provenance

__all__ = ["perturbed"]


def perturbed(ids: list[str], workers: int, target: Any) -> int:
    """Exit status 0 if every survivor has a reason in proofs/perturbed.toml and every reason a survivor."""
    from resonance_theory.evidence.claims import perturb

    known, quiet, used = perturb.explained(), target == "-", set()

    def each(claim_id: str, pairs: list[perturb.Pair]) -> None:
        survivors = [pair for pair in pairs if pair.survives]
        if not quiet:
            show(f"{claim_id}: {len(pairs)} changes, {len(survivors)} not noticed")
            for pair in survivors:
                why = perturb.reason(pair, known)
                show(f"    {'=' if why else '✗'} {pair.where} {pair.change}{': ' + why if why else ''}")

    pairs = perturb.run(ids, workers=workers, on_result=each)
    survivors = [pair for pair in pairs if pair.survives]
    for pair in survivors:
        used |= {(pair.claim, f"{pair.where} {pair.change}"), (pair.claim, pair.where)}
    stale = [f"{i}: {key}" for i in ids for key in known.get(i, {}) if (i, key) not in used]
    bare = [pair.key for pair in survivors if not perturb.reason(pair, known)]
    counts = Counter(
        "noticed both ways"
        if {pair.down, pair.up} <= {"rejected", ""}
        else "noticed one way"
        if "rejected" in (pair.down, pair.up)
        else "not noticed"
        if pair.survives
        else "not decided, as the check raised"
        for pair in pairs
    )
    record = {
        "format": "resonance-theory perturbed 1",
        "provenance": provenance(),
        "pairs": [{**pair.to_json(), "reason": perturb.reason(pair, known)} for pair in pairs],
        "unexplained": bare,
        "stale": stale,
    }
    lines = [f"{len(pairs)} changes of {len(ids)} claims: " + ", ".join(f"{n} {what}" for what, n in counts.items())]
    lines += [f"without a reason in proofs/perturbed.toml: {key}" for key in bare]
    lines += [f"a reason for what the checks do notice: {key}" for key in stale]
    emit(record, target, "\n".join(lines))
    return 1 if bare or stale else 0
