"""Add up the parts of a run: stores of simulate --shard, or ledgers of verify --shard."""

from __future__ import annotations

import argparse
import json
import os

from resonance_theory import _output
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
    if os.path.exists(options.out):
        raise ValueError(f"out = {str(options.out)!r} must be a new file")
    if all(part.endswith(".json") for part in options.parts):
        from resonance_theory.evidence.claims.merge import ledgers

        whole = ledgers(options.parts)
        _output.write(options.out, json.dumps(whole, indent=1, allow_nan=False) + "\n")
        show(f"{len(whole['claims'])} claims of {len(options.parts)} parts")
    else:
        from resonance_theory.evidence.sampling.store import merge

        show(merge(options.out, options.parts))
    return 0
