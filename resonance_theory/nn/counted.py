"""What a capacity took out of a model's choices, summed over its forwards."""

from __future__ import annotations

from typing import Any

import torch

from resonance_theory.nn.accumulate import over_ranks

__all__ = ["Counted"]


class Counted:
    """Sums over all forwards since `reset`, on the device where they were made: nothing waits for them but `summary`.

    Attributes:
        tokens: real tokens; pairs: of a token and an expert that it chose; cut: pairs taken out; dropped: tokens without
            any pair left.
    """

    def reset(self) -> None:
        """Begin to count anew."""
        self.tokens: Any = 0
        self.pairs: Any = 0
        self.cut: Any = 0
        self.dropped: Any = 0

    def add(self, tokens: Any, pairs: Any, cut: Any, dropped: Any) -> None:
        """Count one forward."""
        self.tokens, self.pairs = self.tokens + tokens, self.pairs + pairs
        self.cut, self.dropped = self.cut + cut, self.dropped + dropped

    def summary(self, *, reduce: bool = False, group: Any = None) -> dict[str, float]:
        """tokens, pairs, drop_rate (share of pairs cut) and dropped (share of tokens without any) since `reset`.

        With reduce those of all ranks of torch.distributed (in `group`) together; call it on all of them.
        """
        sums = [torch.as_tensor(v) for v in (self.tokens, self.pairs, self.cut, self.dropped)]
        device = next((v.device for v in sums if v.device.type != "cpu"), sums[0].device)
        counted = torch.stack([v.to(device) for v in sums])
        if reduce:
            counted, _ = over_ranks(counted, group)
        tokens, pairs, cut, dropped = counted.tolist()
        return {"tokens": tokens, "pairs": pairs, "drop_rate": cut / max(pairs, 1), "dropped": dropped / max(tokens, 1)}
