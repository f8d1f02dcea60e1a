"""The padding of a model's forward that is under way, for blocks which are given hidden states alone."""

from __future__ import annotations

import contextvars
import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Padding", "keys", "padded"]

UNKNOWN = "what the model was given as attention_mask is of an unknown form, so padding takes slots: "


PACKED = "packed documents share each expert's slots of their row: unpack them into padded samples"


class Padding:
    """Reads the mask where a model is called, and hands it to the blocks inside for as long as that call lasts.

    Nothing of a call stays here: calls in other threads and calls inside calls have their own masks. What checkpointing
    computes again in the backward, after its call has ended, finds the mask at the storage of its saved inputs.
    """

    def __init__(self) -> None:
        self.current: contextvars.ContextVar[Any] = contextvars.ContextVar("padding", default=None)
        self.again: contextvars.ContextVar[Any] = contextvars.ContextVar("again", default=None)
        self.traced: Any = None  # `current` under torch.compile, which knows no context variables
        self.told: set[str] = set()

    def __deepcopy__(self, memo: Any) -> Padding:
        return self  # it holds no state but that of calls under way

    def __reduce__(self) -> Any:
        return Padding, ()

    def watch(self, model: nn.Module, blocks: list[str]) -> None:
        """Hook the modules of `model` that hold the blocks of these names and are called with the mask."""
        inner: set[str] = set()
        for name in blocks:
            path = ["", *(name[:k] for k, letter in enumerate(name) if letter == ".")]
            taking = [part for part in path if _takes(model.get_submodule(part), "attention_mask")]
            # The innermost that takes whole texts: others above may lengthen or rename the mask.
            whole = [part for part in taking if _takes(model.get_submodule(part), "input_ids", "inputs_embeds")]
            if not taking:
                self.tell(f"no module around {name} takes an attention_mask, so padding takes slots")
            else:
                owner = (whole or taking)[-1]
                self._hook(model.get_submodule(owner), self._enter, self._leave)
                inner |= {part for part in [*path, name] if part.startswith(owner) and part != owner}
        for name in inner:
            self._hook(model.get_submodule(name), self._mark, self._pass_on)
        for name in inner - set(blocks):
            for child in model.get_submodule(name).children():
                self._hook(child, self._find)

    def _hook(self, module: nn.Module, before: Any, after: Any = None) -> None:
        if any(getattr(hook, "__self__", None) is self for hook in module._forward_pre_hooks.values()):
            return
        module.register_forward_pre_hook(before, with_kwargs=True)
        if after is not None:
            module.register_forward_hook(after, with_kwargs=True, always_call=True)

    def tell(self, sentence: str) -> None:
        """Warn, once."""
        if sentence not in self.told:
            self.told.add(sentence)
            warnings.warn(sentence, stacklevel=2)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        given = given | given.get("kwargs", {})
        cache = given.get("cache") if given.get("past_key_values") is None else given["past_key_values"]
        self._push(_Call(given.get("attention_mask"), cache, given.get("cache_position")))
        if any(isinstance(given.get(name), Tensor) for name in ("cu_seq_lens_q", "cu_seqlens", "seq_idx")):
            self.tell(PACKED)
        elif given.get("attention_mask") is None and not torch.compiler.is_compiling():
            position = given.get("position_ids")
            rows = isinstance(position, Tensor) and position.ndim == 2 and position.shape[1] > 1
            if rows and bool((position.diff(dim=1) != 1).any()):
                self.tell(PACKED)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._pop()

    def _push(self, call: Any) -> None:
        if torch.compiler.is_compiling():
            self.traced = (call, self.traced)
        else:
            self.current.set((call, self.current.get()))

    def _pop(self) -> None:
        if torch.compiler.is_compiling():
            self.traced = self.traced[1] if self.traced else None
        else:
            held = self.current.get()
            self.current.set(held[1] if held else None)

    def _now(self) -> Any:
        held = self.traced if torch.compiler.is_compiling() else self.current.get()
        return held[0] if held else None

    def _mark(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Leave the call's mask at the input, for what is computed again; or find it there."""
        if torch.compiler.is_compiling():
            return
        inputs, call = _tensors(args, kwargs), self._now()
        if call is None:
            call = next((found for found in map(_found, inputs[:1]) if found), None)
        elif torch.is_grad_enabled() or module.training:
            _leave_at(inputs[:1], call)
        self._push(call)

    def _pass_on(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if _again() and self._now() is not None:
            _leave_at(_tensors(output if isinstance(output, tuple) else (output,), {}), self._now())
        self._pop()

    def _find(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Where only the forward of a layer is computed again, its hooks are not called, but those of its parts are."""
        if not torch.compiler.is_compiling() and _again() and self._now() is None:
            call = next((found for found in map(_found, _tensors(args, kwargs)[:1]) if found), None)
            if call is not None:
                self.again.set((call, set()))

    def _served(self, block: nn.Module) -> Any:
        """What was found last, once for each block: a second time would be another layer's, or another call's."""
        call, served = self.again.get() or (None, set[nn.Module]())
        if call is None or block in served:
            raise ValueError(
                "the padding of a forward is not at hand where checkpointing computes its block again: checkpoint whole "
                "layers, or keep saved activations on their device"
            )
        served.add(block)
        return call

    def of(self, x: Tensor, block: nn.Module) -> Tensor | None:
        """(samples, tokens) booleans, True for padding; None where there is none. x: (samples, tokens, dim)."""
        call = self._now()
        if call is None:
            if torch.compiler.is_compiling() or not _again():
                return None
            call = _found(x) or self._served(block)
        try:
            return padded(call.mask, x, call.begin)
        except TypeError as problem:
            self.tell(UNKNOWN + str(problem))
            return None


class _Call:
    """The mask of one call, and where its tokens begin in the cache; None where that is not known."""

    def __init__(self, mask: Any, cache: Any, position: Any) -> None:
        self.mask = mask
        # The cache grows during the call: ask it now.
        length = getattr(cache, "get_seq_length", None)
        self.begin = position[0] if isinstance(position, Tensor) and position.ndim == 1 and position.numel() else None
        if self.begin is None and length is not None:
            begin = length()
            self.begin = begin.clone() if isinstance(begin, Tensor) else begin


def _again() -> bool:
    """Whether a backward is under way, in which checkpointing computes activations again."""
    return torch._C._current_graph_task_id() != -1


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]


def _takes(module: nn.Module, *names: str) -> bool:
    return bool(set(names) & set(inspect.signature(module.forward).parameters))


def _leave_at(tensors: list[Tensor], call: _Call) -> None:
    for tensor in tensors:
        storage: Any = tensor.untyped_storage()  # lives as long as the graph that saved the tensor
        notes = storage.__dict__.setdefault("_resonance_padding", {})
        notes[tensor.storage_offset(), tuple(tensor.shape)] = call


def _found(tensor: Tensor) -> Any:
    notes = tensor.untyped_storage().__dict__.get("_resonance_padding", {})
    return notes.get((tensor.storage_offset(), tuple(tensor.shape)))


def keys(mask: Tensor) -> Tensor:
    """Which keys a mask lets be seen, as booleans; mask: booleans, whole numbers, or floats that are added to scores."""
    if mask.dtype == torch.bool or not mask.is_floating_point():
        return mask != 0
    # 1 and 0 in floats, or 0 and large negative numbers.
    return torch.where((mask > 0).any(), mask > 0, mask == 0)


def padded(mask: Any, x: Tensor, start: Any = None) -> Tensor | None:
    """Padding that an attention mask speaks of, (samples, tokens) booleans, True for padding; None without any mask.

    Args:
        mask: (samples, keys) or (samples, queries, keys) or (samples, heads, queries, keys), as booleans (True: seen),
            whole numbers (not 0: seen) or floats (1 and 0, or what is added to scores); a dictionary of such; or None.
        x: (samples, tokens, dim), the tokens.
        start: the place of the first of them among the keys, where the mask speaks of more keys than tokens; the last
            places where it is not known. Places after the tokens are cache slots to come.

    Raises:
        TypeError: the mask has another form.
    """
    if isinstance(mask, dict):
        known = [value for value in mask.values() if value is not None]
        whole = mask.get("full_attention")
        return padded(known[0] if whole is None and known else whole, x, start)
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise TypeError(f"it is a {type(mask).__name__} but must be a tensor")
    samples, tokens = x.shape[:2]
    shape = tuple(mask.shape)
    fits = mask.ndim in (2, 3, 4) and shape[0] in (1, samples) and shape[-1] >= tokens
    if not fits or (mask.ndim > 2 and shape[-2] not in (1, tokens)):
        raise TypeError(f"its shape is {shape} for {samples} samples of {tokens} tokens")
    seen = keys(mask.to(x.device))
    if mask.ndim == 4:
        seen = seen.any(1)  # (samples, queries, keys)
    if shape[-1] == tokens:
        place = torch.arange(tokens, device=x.device)
    else:
        first = shape[-1] - tokens if start is None else start
        place = torch.arange(tokens, device=x.device) + first  # (tokens,)
        place = place.clamp(max=shape[-1] - 1)
    if mask.ndim == 2:
        return (~seen.index_select(1, place)).expand(samples, tokens)
    column = seen.index_select(2, place)  # (samples, queries, tokens)
    if column.shape[1] == 1:
        return (~column[:, 0]).expand(samples, tokens)
    # A token is real if it sees itself. Rows of padding are opened to all keys by some attentions, which would divide
    # 0 by 0: such a row says nothing unless other rows see the token too, or it is the last, which may see all.
    itself = column.diagonal(dim1=1, dim2=2)
    opened = seen.all(-1)  # (samples, queries)
    opened = opened & ~opened.all(-1, keepdim=True)
    others = (column & ~opened[..., None]).any(1)
    last = torch.arange(tokens, device=x.device) == tokens - 1
    return (~itself | (opened & ~last & ~others)).expand(samples, tokens)
