"""Random keep: each token goes to its Top-l experts; an expert keeps C of its candidates, drawn at random."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from resonance_theory.rules import _law
from resonance_theory.rules.rates import Rates
from resonance_theory.rules.rule import Rule
from resonance_theory.typing import Array, Whole

__all__ = ["RandomKeep", "random_keep"]


class RandomKeep(Rule):
    """Random keep: experts keep C random candidates; blind to position and to affinity.

    success = hit x E min(1, C/(N+1)), N the other candidates, for every dependence between tokens. For independent tokens
    that is token choice's rate. `route` needs `rng`, a `numpy.random.Generator`; torch affinities may go without and then
    draw from torch's own generator. Claims: exchangeability_identity, dependent_counts.

    >>> import resonance_theory as rt
    >>> runs = rt.Rates(experts=8, counts=rt.Blocks(16))
    >>> print(f"{rt.random_keep.success(256, 40, runs):.4f} {rt.token_choice.success(256, 40, runs):.4f}")
    0.9096 0.8984
    """

    name, title = "random_keep", "random keep"

    def place(self, tokens: Whole, capacity: Whole, rates: Rates) -> _law.Logs:
        return rates.counts.shuffled(tokens, capacity, rates.share)

    def priority(self, affinity: Array, rng: Any = None) -> Array | None:
        if isinstance(rng, np.random.Generator):
            xp = array_api_compat.array_namespace(affinity)
            return xp.asarray(rng.random(tuple(affinity.shape)), device=array_api_compat.device(affinity))
        if rng is None and array_api_compat.is_torch_array(affinity):
            import torch

            return torch.rand(affinity.shape, device=affinity.device)
        raise TypeError(f"rng is a {type(rng).__name__} but must be a numpy.random.Generator: random keep draws")


random_keep = RandomKeep()
