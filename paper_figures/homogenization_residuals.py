"""The closed forms of homogenization against simulation through the real router."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from paper_figures._residuals import draw as residuals
from paper_figures._residuals import look

DATA = ("homogenization.jsonl", "homogenization_scale.jsonl")
CAPTION = """The mean cosines behind the homogenization laws agree with simulation through the real router in every
setting: s = 8 to 64 tokens routed with a capacity, d = 2 to 16; affinities, and whole token vectors, up to d = 8192 and n =
256 of which the best share f is kept. Each rate is (1 + mean cosine / c)/2 with c at most 1, of the order of 1/√d: with the
gate of the expert that kept the token (winning), with another gate (losing), or between two tokens of an expert (pair). Right:
differences in units of the smallest error that each run detects with certainty (false alarms below 1e-6 over all its rates);
bars are the simulation's intervals at that level, 2 million samples a point, 20 000 with whole vectors; a wrong law lies
outside ±1."""

# how the key of a rate begins and ends -> its name and look
_KINDS = (
    ("token choice", "winning", "token choice, winning", look("#D55E00", "^")),
    ("token choice", "losing", "token choice, losing", look("#F5C04A", "v")),
    ("resonance", "winning", "resonance, winning", look("#0B3C6F", "s")),
    ("winning f", "", "best share f, winning", look("#4AA3D8", "D")),
    ("losing f", "", "best share f, losing", look("0.85", "d")),
    ("pair", "", "pair", look("#0B7A5C", "o")),
)


def draw(lines: list[dict[str, Any]], scale: list[dict[str, Any]]) -> Figure:
    rows = [*lines[1:], *scale[1:]]
    groups = {
        label: ([row for row in rows if row["key"].startswith(begin) and row["key"].endswith(end)], style)
        for begin, end, label, style in _KINDS
    }
    return residuals(groups, "rate", (0.25, 0.82), shift=0.002)
