"""Hit rates of caches of experts against their slots."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from resonance_theory._style import canvas

DATA = ("expert_cache.jsonl",)
CAPTION = """With independent requests the cache of the most used experts is never beaten; for equal shares both hit
slots over experts. Measured: share of requests that find their expert, caches kept by hand, bars: 99.9999 % intervals of all
rates together; lines: the exact laws."""
COLOURS = {"equal": "0.35", "mild": "#4AA3D8", "steep": "#0B3C6F"}
RULES = {"lru": ("last used", "o", "--"), "static": ("most used", "s", "-")}


def draw(lines: list[dict[str, Any]]) -> Figure:
    figure, panel = canvas(5, 3.1)
    rates = [line for line in lines if "estimate" in line]
    for name, colour in COLOURS.items():
        for place, (rule, (label, sign, style)) in enumerate(RULES.items()):
            mine = [r for r in rates if r["key"] == rule and r["case"].startswith(f"{name},")]
            slots = [int(r["case"].split(", ")[1].split()[0]) for r in mine]
            panel.plot(slots, [r["law"] for r in mine], color=colour, linestyle=style, linewidth=1)
            values = [r["estimate"] for r in mine]
            bars = [[v - r["low"] for v, r in zip(values, mine)], [r["high"] - v for v, r in zip(values, mine)]]
            at = [c + 0.1 * (2 * place - 1) for c in slots]
            panel.errorbar(at, values, yerr=bars, color=colour, fmt=sign, markersize=4, label=f"{name}, {label}")
    panel.set(xlim=(0, 7), ylim=(0, 1.02), xlabel="slots for eight experts", ylabel="hit rate")
    panel.legend(loc="lower right", ncols=1, fontsize=7)
    return figure
