"""Two records of verification runs: what was lost, what changed, and whether an estimate moved.

Lost are: a verdict, a claim, a check, a rate, an estimate that moved, and power (a detectable error that grew). Changed are
texts, and gained what is new; neither fails a comparison.

The estimates of a rate in both runs are compared by Fisher's exact test of equal probabilities, at a level of
`statistics.ALPHA` divided by the number of rates in both: the probability that any of them is called moved where none has is
at most `statistics.ALPHA`, if the runs are independent. Runs with the same seed and code draw the same numbers, and
nothing moves. How much could have moved unseen is in `Comparison.hidden`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.evidence import statistics

__all__ = ["FORMAT", "Change", "Comparison", "compare", "equal_rates", "moved_between"]

FORMAT = "resonance-theory comparison 1"
GROWN = 1.05
"""A detectable error that grew by more than this factor is lost power; a claim more in the ledger makes less of a difference."""
SLOWER = 2.0
"""A claim that takes this many times as long, and ten seconds longer, is told; it is no loss."""
_RANK = {"PROVED": 3, "CORRECTED": 3, "REFUTED": 3, "SUPPORTED": 2, "NOT REPRODUCIBLE HERE": 1}
_TEXTS = ("title", "statement", "hypotheses", "kind", "source", "correction", "mutation", "lemmas", "formal", "reason")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        claim: Id of the claim; empty for the run as a whole.
        effect: "lost", "changed" or "gained".
        what: verdict, claim, check, rate, estimate, detectable error, time, or the name of a text.
        old, new: As in the records, as words.
    """

    claim: str
    effect: str
    what: str
    old: str
    new: str


@dataclass(frozen=True)
class Comparison:
    """Differences of two records.

    Attributes:
        changes: Losses first, then by claim.
        claims: Number of claims in both records.
        rates: Number of estimates in both.
        alpha: Probability that any estimate is called moved where none has.
        hidden: No rate of both records moved by more than this, with an error probability of alpha for all of them together;
            0 where there are none.
        seconds: How long each of the runs took.
    """

    changes: Sequence[Change]
    claims: int
    rates: int
    alpha: float
    hidden: float
    seconds: tuple[float, float]

    @property
    def lost(self) -> list[Change]:
        """The changes that fail a comparison."""
        return [change for change in self.changes if change.effect == "lost"]

    def summary(self) -> str:
        """One line."""
        counts = [
            f"{sum(c.effect == effect for c in self.changes)} {effect}" for effect in ("lost", "changed", "gained")
        ]
        rates = "no rate in both"
        if self.rates:
            rates = (
                f"{self.rates} rate{'s' * (self.rates > 1)} in both, none of them off by more than {self.hidden:.2g} "
                f"(false-alarm rate {self.alpha:.0e})"
            )
        old, new = self.seconds
        return f"{', '.join(counts)}; {self.claims} claim{'s' * (self.claims != 1)} and {rates}; {old:.0f} s, now {new:.0f} s"

    def table(self) -> str:
        """Lines for a terminal."""
        lines = [f"{c.effect:<8} {_where(c)}: {_from_to(c)}" for c in self.changes]
        return "\n".join([*lines, *([""] if lines else []), self.summary()])

    def markdown(self) -> str:
        """A table for a pull request."""
        lines = [f"**{'Lost ground' if self.lost else 'Nothing lost'}**: {_cell(self.summary())}"]
        if self.changes:
            lines += ["", "| | claim | what | before | now |", "|---|---|---|---|---|"]
        lines += [
            "| "
            + " | ".join(map(_cell, (f"{'❌ ' * (c.effect == 'lost')}{c.effect}", c.claim, c.what, c.old, c.new)))
            + " |"
            for c in self.changes
        ]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return {
            "format": FORMAT,
            "passed": not self.lost,
            "changes": [vars(change) for change in self.changes],
            "claims": self.claims,
            "rates": self.rates,
            "alpha": self.alpha,
            "hidden": self.hidden,
            "seconds": list(self.seconds),
            "summary": self.summary(),
            "markdown": self.markdown(),
        }


def _where(change: Change) -> str:
    return f"{change.claim}, {change.what}" if change.claim else change.what


def _from_to(change: Change) -> str:
    return f"{change.old} -> {change.new}" if change.old and change.new else change.old or change.new


def _cell(text: str) -> str:
    return re.sub(r"[&\\`*_\[\]<>|$#~@]", lambda mark: f"&#{ord(mark[0])};", text).replace("\n", " ")


def compare(old: Record, new: Record) -> Comparison:
    """What the new record of `resonance verify` lost against the old one, and what changed.

    Args:
        old, new: Records as `record.read` gives them.

    Returns:
        All differences.

    Example:
        >>> book = {"claims": [], "full": False, "seconds": 1.0}
        >>> compare(book, book).summary()
        '0 lost, 0 changed, 0 gained; 0 claims and no rate in both; 1 s, now 1 s'
    """
    before, after = ({claim["id"]: claim for claim in record["claims"]} for record in (old, new))
    both = [i for i in before if i in after]
    pairs = [(i, *rows) for i in both for rows in _paired_rows(before[i], after[i])]
    alpha = statistics.ALPHA / max(len(pairs), 1)
    changes = [Change(i, "lost", "claim", before[i]["verdict"], "gone") for i in before if i not in after]
    changes += [Change(i, "gained", "claim", "", after[i]["verdict"]) for i in after if i not in before]
    if old["full"] != new["full"]:
        changes.append(
            Change("", "changed", "size of the run", *("full" if r["full"] else "quick" for r in (old, new)))
        )
    for i in both:
        changes += _of_claim(before[i], after[i])
    hidden = 0.0
    for i, name, row, now in pairs:
        changes += _of_rate(i, name, row, now, alpha)
        low, high = moved_between(row["successes"], row["trials"], now["successes"], now["trials"], alpha)
        hidden = max(hidden, -low, high)
    order = {"lost": 0, "changed": 1, "gained": 2}
    changes.sort(key=lambda change: (order[change.effect], change.claim))
    seconds = (float(old["seconds"]), float(new["seconds"]))
    return Comparison(tuple(changes), len(both), len(pairs), statistics.ALPHA, hidden, seconds)


def _of_claim(old: Record, new: Record) -> Iterator[Change]:
    name = old["id"]
    if old["verdict"] != new["verdict"]:
        better = _RANK.get(new["verdict"], 0) > _RANK.get(old["verdict"], 0)
        yield Change(name, "gained" if better else "lost", "verdict", old["verdict"], new["verdict"])
    elif old["passed"] and not new["passed"]:  # the verdict is the same, but another is expected
        yield Change(name, "lost", "verdict", f"{old['verdict']} as expected", f"{new['expected']} expected")
    for text in _TEXTS:
        if _words(old[text]) != _words(new[text]):
            yield Change(name, "changed", text, _words(old[text]), _words(new[text]))
    before, after = _checks(old), _checks(new)
    for key, check in before.items():
        if key not in after:
            yield Change(name, "lost", "check", _check_name(key), "gone")
        elif check["passed"] and not after[key]["passed"] and old["verdict"] == new["verdict"]:
            yield Change(name, "lost", "check", _check_name(key), "does not pass")
    for key in after:
        if key not in before:
            yield Change(name, "gained", "check", "", _check_name(key))
    if new["seconds"] > max(SLOWER * old["seconds"], old["seconds"] + 10):
        yield Change(name, "changed", "time", f"{old['seconds']:.1f} s", f"{new['seconds']:.1f} s")
    for key in (key for key in before if key in after):
        was, now = _rows(before[key]), _rows(after[key])
        for rate in (*was, *now):
            words = f"{key[1]}: {rate[0]} at {rate[1]}"
            if rate not in now:
                yield Change(name, "lost", "rate", words, "gone")
            elif rate not in was:
                yield Change(name, "gained", "rate", "", words)


def _of_rate(claim: str, check: str, old: Record, new: Record, alpha: float) -> Iterator[Change]:
    name = f"{check}: {old['key']} at {_case(old)}"
    p = equal_rates(old["successes"], old["trials"], new["successes"], new["trials"])
    if p <= alpha:
        counts = (f"{row['estimate']:.6g} ({row['successes']} of {row['trials']})" for row in (old, new))
        yield Change(claim, "lost", f"estimate of {name}", *counts)
    if not math.isclose(old["law"], new["law"], rel_tol=1e-9, abs_tol=1e-12):
        yield Change(claim, "changed", f"law of {name}", repr(old["law"]), repr(new["law"]))
    if not math.isclose(old["mutant"], new["mutant"], rel_tol=1e-9, abs_tol=1e-12):
        yield Change(claim, "changed", f"mutant of {name}", repr(old["mutant"]), repr(new["mutant"]))
    if old["detectable"] * GROWN < new["detectable"]:
        sizes = (f"{row['detectable']:.3g}" for row in (old, new))
        yield Change(claim, "lost", f"detectable error of {name}", *sizes)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else "; ".join(map(str, value))


def _checks(claim: Record) -> dict[tuple[str, str, int], Record]:
    """Checks by kind, name and how often that pair came before."""
    found: dict[tuple[str, str, int], Record] = {}
    for check in claim["checks"]:
        number = sum(key[:2] == (check["kind"], check["name"]) for key in found)
        found[check["kind"], check["name"], number] = check
    return found


def _check_name(key: tuple[str, str, int]) -> str:
    return f"{key[0]}: {key[1]}"


def _case(row: Record) -> str:
    return json.dumps(row["case"], sort_keys=True)


def _rows(check: Record) -> dict[tuple[str, str, int], Record]:
    found: dict[tuple[str, str, int], Record] = {}
    for row in check["rows"]:
        number = sum(key[:2] == (row["key"], _case(row)) for key in found)
        found[row["key"], _case(row), number] = row
    return found


def _paired_rows(old: Record, new: Record) -> Iterator[tuple[str, Record, Record]]:
    """Name of the simulation and both rows, of the rates that both records have."""
    before, after = _checks(old), _checks(new)
    for key in (key for key in before if key in after):
        mine, its = _rows(before[key]), _rows(after[key])
        yield from ((key[1], mine[rate], its[rate]) for rate in mine if rate in its)


# --- two counts -------------------------------------------------------------------------------------------------------


def equal_rates(successes: int, trials: int, successes2: int, trials2: int) -> float:
    """p-value of equal probabilities behind two independent binomial counts: twice the smaller tail, at most 1.

    Given the sum of the counts, the first is hypergeometric whatever the common probability is, so the test keeps its
    level exactly or from below (Fisher 1935). Relative error below 1e-6 for up to 10^9 trials, where it is not below
    1e-300.

    Args:
        successes, trials: Of the first; whole numbers, successes at most trials, trials at least 1.
        successes2, trials2: Of the second.

    Example:
        >>> round(equal_rates(5, 10, 9, 10), 6)  # 2 (C(10,5) C(10,1) + C(10,4)) / C(20,6)
        0.140867
    """
    k, n = _count(successes, trials)
    k2, n2 = _count(successes2, trials2)
    total = k + k2
    mean = total * n / (n + n2)
    if k == mean:
        return 1.0
    tail = _lower_tail(k, n, n2, total) if k < mean else _lower_tail(k2, n2, n, total)
    return min(1.0, 2.0 * tail)


def _count(successes: int, trials: int) -> tuple[int, int]:
    n = arguments.whole("trials", trials, 1)
    return arguments.whole("successes", successes, 0, n, "trials"), n


def _lower_tail(k: int, n: int, m: int, total: int) -> float:
    """P(K <= k) for the number K of marked among `n` drawn of n + m, `total` of them marked, and k below the mean."""
    from scipy.special import betaln, logsumexp

    least = max(0, total - m)
    spread = math.sqrt(total * n / (n + m) * (m / (n + m)) + 1.0)
    low = max(least, k - int(60 * spread) - 1000)  # below there is less than 1e-300 of what is above
    i = np.arange(low, k + 1, dtype=np.float64)

    def log_choose(top: float, take: Any) -> Any:
        return -betaln(top - take + 1.0, take + 1.0) - math.log(top + 1.0)

    terms = log_choose(float(n), i) + log_choose(float(m), total - i) - log_choose(float(n + m), float(total))
    return float(np.exp(logsumexp(terms)))


def moved_between(successes: int, trials: int, successes2: int, trials2: int, alpha: float) -> tuple[float, float]:
    """Limits of the second probability minus the first, missing with probability at most alpha; from exact limits of each.

    Args:
        successes, trials, successes2, trials2: As for `equal_rates`.
        alpha: In (0, 1).

    Example:
        >>> low, high = moved_between(500, 1000, 500, 1000, 0.05)
        >>> round(high, 4), low == -high
        (0.0718, True)
    """
    k, n = _count(successes, trials)
    k2, n2 = _count(successes2, trials2)
    low, high = statistics.clopper_pearson([k, k2], [n, n2], alpha / 2)
    return float(low[1] - high[0]), float(high[1] - low[0])
