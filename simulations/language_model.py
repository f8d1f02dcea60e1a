"""Training: a byte-level language model with mixtures of experts; loss against the tokens actually processed, by routing.

Text, network and training are those of `_language`. Run by run all arms share text, test windows, the weights of all parts
they have in common, rate and steps.

"loss" is causal: at evaluation tokens are kept by per-expert thresholds (`_causal`). "loss selected" lets each rule
select among all tokens of the window, as in training: what it gains is the leak from later tokens. "loss all" drops no
token. The n-gram lines have read the same training bytes as the networks; "4-gram, all text" has read every training file.
The premises of the TOML say when a comparison means anything; where one fails the study is a smoke test and claims nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from simulations import _corpus, _language, _ngram
from simulations._language import DEVICES, PACKAGES
from simulations._training import Counts, counts, parameters, takes

__all__ = ["DEVICES", "PACKAGES", "arms"]

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Training(_language.Sizes):
    device: str = "cpu"


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train networks of one arm one after the other; every metric in millionths."""
    import torch

    threads = torch.get_num_threads()
    if s.device == "cpu":
        torch.set_num_threads(1)
    found = []
    with torch.random.fork_rng():
        for _ in range(runs):
            data_rng, weight_rng, keep_rng = rng.spawn(3)
            data = _language.draw(data_rng, **s.text)
            model = _language.build(s.arm, s.size, int(weight_rng.integers(2**31))).to(s.device)
            torch.manual_seed(int(keep_rng.integers(2**31)))
            seen = _language.fit(model, data[0], s.rate, s.alpha, s.device)
            measured = _language.processed(seen, model, data[0])
            measured |= _language.measure(model, data[1], data[2], s.text["batch"], s.device)
            measured["operations"] = _language.operations(s.arm, s.size, measured["capacity"])
            found.append(measured)
    torch.set_num_threads(threads)
    return counts(found, MILLION)


@lru_cache(1)
def all_text(corpora: tuple[str, ...], tokens: int, order: int) -> list[_ngram.Table]:
    """The n-gram tables of every training window."""
    return _ngram.fit(_language.windows(_corpus.load(corpora)["training"], tokens), order)


@dataclass(frozen=True, kw_only=True)
class Line:
    """An n-gram model of so many bytes, of the training bytes of the run or of everything."""

    order: int
    text: dict[str, Any]
    everything: bool


@takes(Line)
def line(rng: np.random.Generator, runs: int, s: Line) -> Counts:
    """The loss of an n-gram model on the test windows of each run."""
    found = []
    for _ in range(runs):
        training, _, test = _language.draw(rng.spawn(3)[0], **s.text)
        if s.everything:
            tables = all_text(tuple(s.text["corpora"]), s.text["tokens"], s.order)
        else:
            tables = _ngram.fit(training.reshape(-1, training.shape[-1]), s.order)
        found.append({"loss": _ngram.loss(tables, test)})
    return counts(found, MILLION)


def arms(settings: dict[str, Any]) -> list[Arm]:
    shared = _language.shared(settings, settings["steps"])

    def ngram(label: str, order: int, everything: bool = False) -> Arm:
        return Arm(label, line, parameters(Line, shared, order=order, everything=everything), MILLION)

    result = [
        Arm(label, train, parameters(Training, settings | shared, arm=own), MILLION)
        for label, own in _language.routed(settings).items()
    ]
    result += [ngram(label, order) for order, label in ((2, "bigram"), (3, "trigram"), (4, "4-gram"), (5, "5-gram"))]
    return [*result, ngram("4-gram, all text", 4, everything=True)]
