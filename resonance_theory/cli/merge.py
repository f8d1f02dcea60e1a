"""Add up the parts of a run: stores of simulate --shard, or ledgers of verify --shard."""

from __future__ import annotations

import argparse

from resonance_theory.cli._files import Input, Output
from resonance_theory.cli._terminal import show

EXAMPLES = """
resonance simulate success_rate --shard 1/2 --store 1.jsonl    one job of an array
resonance simulate success_rate --shard 2/2 --store 2.jsonl    the other
resonance merge all.jsonl 1.jsonl 2.jsonl
resonance simulate success_rate --store all.jsonl --resume     the result
resonance verify --shard 1/2 --json 1.json                     the same for claims, merged into a ledger
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Output, metavar="OUT", help="the sum; a new file")
    parser.add_argument("parts", type=_inputs, nargs="+", metavar="PART", help="stores (.jsonl) or ledgers (.json)")


def _inputs(text: str) -> Input:
    return Input(text)


def run(options: argparse.Namespace) -> int:
    import os

    from resonance_theory.evidence import merge

    if os.path.exists(options.out):
        raise ValueError(f"out = {str(options.out)!r} must be a new file")
    show(merge.merge(options.out, options.parts))
    return 0
