"""Sums that outlive a forward: they keep their dtype through casts and are counted once, whatever is computed again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Accumulators", "average", "counts", "over_ranks"]


def counts() -> bool:
    """Whether this forward is to be counted: not where checkpointing computes it again, nor where it is exported."""
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting()
    return torch._C._current_graph_task_id() == -1  # recomputation happens inside a backward


class Accumulators(nn.Module):
    """A module with sums that follow its device but never its dtype.

    They are plain attributes, not buffers: DistributedDataParallel would overwrite buffers by those of its first rank,
    and `.half()` would cast them. Those named persistent are part of the state_dict. On the meta device, and where no
    one has loaded them after it, they are zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self._persistent: dict[str, bool] = {}

    def accumulate(self, persistent: bool, **shapes: tuple[tuple[int, ...], torch.dtype]) -> None:
        """Add sums of these shapes and dtypes, all zero."""
        for name, (shape, dtype) in shapes.items():
            setattr(self, name, torch.zeros(shape, dtype=dtype))
            self._persistent[name] = persistent

    def accumulators(self) -> dict[str, Tensor]:
        """The sums by name."""
        return {name: getattr(self, name) for name in self._persistent}

    def settle(self, device: torch.device) -> None:
        """Move the sums to that device."""
        for name in self._persistent:
            value = getattr(self, name)
            if value.device != device:
                setattr(self, name, torch.zeros_like(value, device=device) if value.is_meta else value.to(device))

    @torch.no_grad()
    def reset(self) -> None:
        """Forget what was summed."""
        for value in self.accumulators().values():
            value.zero_()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        untyped: Any = super()
        untyped._apply(fn, recurse)
        for value in self.accumulators().values():
            self.settle(fn(torch.empty(0, dtype=torch.float32, device=value.device)).device)
            break
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, persistent in self._persistent.items():
            if persistent:
                destination[prefix + name] = getattr(self, name).detach()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, unexpected: Any, errors: Any
    ) -> None:
        names = {prefix + name: name for name, persistent in self._persistent.items() if persistent}
        others = {key: value for key, value in state_dict.items() if key not in names}
        super()._load_from_state_dict(others, prefix, metadata, strict, missing, unexpected, errors)
        for key, name in names.items():
            own, value = getattr(self, name), state_dict.get(key)
            if value is None:
                missing.extend([key] if strict else [])
            elif value.shape != own.shape:
                errors.append(f"{key} has shape {tuple(value.shape)} but must have shape {tuple(own.shape)}")
            else:
                device = value.device if own.is_meta else own.device
                setattr(self, name, value.detach().to(device=device, dtype=own.dtype, copy=True))


def over_ranks(value: Tensor, group: Any = None) -> tuple[Tensor, int]:
    """The sum of `value` over the ranks of torch.distributed, and their number; itself and 1 where there are none."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return value, 1
    value = value.clone()
    distributed.all_reduce(value, group=group)
    return value, distributed.get_world_size(group)


@torch.no_grad()
def average(module: Accumulators, group: Any = None) -> None:
    """Give every rank the mean of all ranks' floating-point sums."""
    for value in module.accumulators().values():
        if value.is_floating_point():
            total, ranks = over_ranks(value, group)
            value.copy_(total / ranks)
