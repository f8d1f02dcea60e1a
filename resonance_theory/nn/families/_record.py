"""The choices of a model's own routers on a text, as they were made: captured in the forward, not computed again."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resonance_theory.logs import RoutingLog
from resonance_theory.nn.families._find import find_blocks
from resonance_theory.nn.families._layout import Block, Hook, PerThread

__all__ = ["record_routing"]


def record_routing(
    model: nn.Module, batches: Iterable[Any], *, blocks: Sequence[str] | None = None, source: str = ""
) -> RoutingLog:
    """Run a model and log what its routers decide: a `RoutingLog` of every token's experts and weights.

    Decisions are read where the experts get them, so that scoring, correction biases, groups and scaling are in them.
    Of each batch only these are kept, k whole numbers and k weights a token and layer; no hidden states. The model
    runs as it is, with hooks of its own such as those of `device_map`, in inference mode and evaluation mode.

    Args:
        model: a model whose blocks `find_blocks` finds.
        batches: token ids (samples, tokens), or mappings of the model's arguments. Each sample is one document.
            Where `attention_mask` (samples, tokens) is given, tokens of 0 are padding and have the choices -1.
        blocks: names of the blocks to log; all that were run unless given.
        source: the log's source; the model's class unless given.

    Returns:
        Choices (tokens, layers, k) and weights of that shape; notes say how often the k largest of the router's own
        logits are the choice, layer by layer: less than always where a bias or groups decide, or logits agree.

    Raises:
        ValueError: no block was found or run, or the blocks differ in their experts or in the tokens that they see.
        TypeError: an argument of the wrong kind.
    """
    found = {block.name: block for block in find_blocks(model)}
    if not found:
        raise ValueError(f"model is a {type(model).__name__} that has no Mixture-of-Experts blocks")
    if any(isinstance(hook, Hook) for m in model.modules() for hook in m._forward_pre_hooks.values()):
        raise ValueError("model has replaced blocks: put its own back first, by restore_router(model)")
    if any(p.is_meta for p in model.parameters()) and not any(hasattr(m, "_hf_hook") for m in model.modules()):
        raise ValueError("model has weights on the meta device: load it whole first, or by device_map")
    unknown = sorted(set(blocks or ()) - set(found))
    if unknown:
        raise ValueError(f"blocks names {unknown[0]!r} but the model's blocks are {', '.join(found)}")
    taps = [Tap(block) for name, block in found.items() if blocks is None or name in blocks]
    training = {module: module.training for module in model.modules()}
    documents: list[int] = []
    part: Any = model.get_encoder if hasattr(model, "get_encoder") else None
    encoder = set(part().modules()) if part else set()
    try:
        for tap in taps:
            tap.open()
        model.eval()
        with torch.inference_mode():
            for batch in batches:
                arguments = _arguments(model, batch)
                before = [tap.tokens for tap in taps]
                model(**arguments)
                masks = _masks(arguments)
                for tap, start in zip(taps, before):
                    tap.count(tap.tokens - start, masks[tap.block.module not in encoder and len(masks) > 1])
                documents += [masks[0].shape[1]] * masks[0].shape[0]
    finally:
        for module, mode in training.items():
            module.training = mode
        for tap in taps:
            tap.close()
    return _log(taps, documents, source or type(model).__name__)


def _arguments(model: nn.Module, batch: Any) -> dict[str, Any]:
    if not isinstance(batch, (Mapping, Tensor, np.ndarray)):
        raise TypeError(f"batches holds a {type(batch).__name__} but must hold token ids or mappings of arguments")
    given: dict[str, Any] = dict(batch) if isinstance(batch, Mapping) else {"input_ids": torch.as_tensor(batch)}
    ids = given.get("input_ids")
    if isinstance(ids, Tensor) and ids.ndim != 2:
        raise ValueError(f"input_ids has shape {tuple(ids.shape)} but must be (samples, tokens)")
    device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
    given = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in given.items()}
    parameters = inspect.signature(model.forward).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and hasattr(model, "config")
    if "use_cache" in parameters or free:
        given.setdefault("use_cache", False)
    return given


def _masks(given: Mapping[str, Any]) -> list[NDArray[np.bool_]]:
    """(samples, tokens), True where the token is real: of what is read, and of what a decoder reads besides."""
    found = []
    for begin in ("", "decoder_"):
        names = (f"{begin}input_ids", f"{begin}inputs_embeds")
        tokens = next((v for name in names if isinstance(v := given.get(name), Tensor) and v.ndim > 1), None)
        if tokens is None:
            continue
        mask, shape = given.get(f"{begin}attention_mask"), tuple(tokens.shape[:2])
        known = isinstance(mask, Tensor) and tuple(mask.shape) == shape
        found.append((mask != 0).cpu().numpy() if known else np.ones(shape, bool))  # type: ignore[union-attr]
    return found or [np.zeros((0, 0), bool)]  # no text: what the blocks see is not known


class Tap:
    """What one block decides, as long as it is open."""

    def __init__(self, block: Block) -> None:
        self.block, self.state = block, PerThread()
        self.handles: list[Any] = []
        self.choices: list[NDArray[Any]] = []
        self.weights: list[NDArray[Any]] = []
        self.tokens, self.same, self.judged = 0, 0, 0
        self.real: list[NDArray[np.bool_]] = []
        self.aligned = True  # every batch gave as many decisions as it has tokens

    def open(self) -> None:
        router, place = self.block.router, self.block.logits
        if router is not None and place is not None:  # before the decision that it belongs to is read
            self.handles.append(router.register_forward_hook(Hook(_logits, self.state, place)))
        self.handles += self.block.intercept(self.read)

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def read(self, expert: Tensor, weight: Tensor) -> None:
        self.choices.append(expert.to(torch.int32).cpu().numpy())
        self.weights.append(weight.float().cpu().numpy())
        self.tokens += expert.shape[0]
        logits = self.state.take("logits")
        if isinstance(logits, Tensor) and logits.ndim >= 2 and logits.shape[-1] >= self.block.experts:
            best = logits.reshape(-1, logits.shape[-1]).topk(expert.shape[-1], dim=-1).indices
            whole = (expert >= 0).all(-1)
            if best.shape == expert.shape:
                agree = (best.sort(-1).values == expert.sort(-1).values).all(-1)
                self.same += int((agree & whole).sum())
                self.judged += int(whole.sum())

    def count(self, tokens: int, mask: NDArray[np.bool_]) -> None:
        self.aligned = self.aligned and tokens == mask.size
        self.real.append(mask.flatten())

    @property
    def agreement(self) -> float | None:
        """Share of tokens whose choice the largest logits are; None where the router's logits are not known."""
        return self.same / self.judged if self.judged else None


def _logits(state: PerThread, place: int, router: nn.Module, args: Any, output: Any) -> None:
    if isinstance(output, (tuple, list)):
        output = output[place] if place < len(output) else None
    state.put("logits", output)


def _log(taps: Sequence[Tap], documents: Sequence[int], source: str) -> RoutingLog:
    used = [tap for tap in taps if tap.tokens]
    if not used:
        raise ValueError("batches ran none of the model's Mixture-of-Experts blocks")
    kinds = {(tap.block.experts, tap.tokens): tap.block.name for tap in used}
    if len(kinds) > 1:
        said = "; ".join(f"{name}: {n} experts, {tokens} tokens" for (n, tokens), name in kinds.items())
        raise ValueError(f"the model's blocks differ ({said}): name those of one log by blocks")
    top = max(part.shape[1] for tap in used for part in tap.choices)
    choices = np.stack([_joined(tap.choices, top, -1) for tap in used], axis=1)
    weights: Any = np.stack([_joined(tap.weights, top, 0.0) for tap in used], axis=1)
    notes = [f"{tap.block.name}: not run, left out" for tap in taps if not tap.tokens]
    for tap in used:
        if tap.agreement is not None:
            share = f"{100 * tap.agreement:.2f} % of the tokens"
            notes.append(f"{tap.block.name}: the largest logits are the choice of {share}")
    of_each = None
    if all(tap.aligned for tap in used):
        of_each = np.repeat(np.arange(len(documents)), documents)
        padded = np.stack([~np.concatenate(tap.real) for tap in used], axis=1)  # (tokens, layers)
        if padded.any():
            choices[padded], weights[padded] = -1, 0.0
            notes.append(f"{int(padded[:, 0].sum())} of {len(padded)} tokens are padding")
    else:
        notes.append("the blocks see other tokens than the batches hold: neither documents nor padding are known")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        notes.append("weights below 0 or not finite: they are left out")
        weights = None
    return RoutingLog(
        experts=used[0].block.experts,
        choices=choices,
        weights=weights,
        documents=of_each,
        layers=tuple(tap.block.name for tap in used),
        source=source,
        notes=tuple(notes),
    )


def _joined(parts: Sequence[NDArray[Any]], top: int, empty: float) -> NDArray[Any]:
    """(tokens, top), with empty places at the end where a layer has fewer choices."""
    whole = np.concatenate(parts)
    return np.pad(whole, ((0, 0), (0, top - whole.shape[1])), constant_values=empty)
