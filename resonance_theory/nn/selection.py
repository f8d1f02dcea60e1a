"""Another rule over the choices that a model's own router has made: which of an expert's candidates it keeps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory import _arguments as arguments
from resonance_theory import capacity_factor as factors
from resonance_theory.nn.accumulate import counts
from resonance_theory.nn.counted import Counted
from resonance_theory.nn.families import Block
from resonance_theory.nn.families._layout import Hook, PerThread
from resonance_theory.nn.padding import Padding
from resonance_theory.rules import Rule
from resonance_theory.rules import rule as rule_named
from resonance_theory.rules.adaptive import Adaptive

__all__ = ["Kept", "Selection", "hooks_of", "misfit", "select_within", "selections", "unselect", "within_capacity"]

OPTIONS = ("rule", "capacity", "capacity_factor")
EXPERTS_CHOOSE = (
    "needs a weight of every token for every expert, but these routers weigh only the experts that a token chose: "
    "take a rule by which tokens choose"
)


def within_capacity(expert: Tensor, priority: Tensor | None, slots: Tensor | int, experts: int) -> Tensor:
    """Which pairs (token, chosen expert) lie within the expert's slots, (samples, tokens, k) booleans.

    Args:
        expert: (samples, tokens, k) whole numbers; -1 in places without a pair, which are never cut.
        priority: (samples, tokens, k), the order in which an expert takes its candidates, highest first; ties, and None,
            go by position.
        slots: of each expert in a sample, one number or (samples,).
        experts: number of experts.

    Example:
        >>> within_capacity(torch.tensor([[[0], [0], [1], [0]]]), None, 2, 2)[0, :, 0].tolist()
        [True, True, True, False]
    """
    samples, tokens, k = expert.shape
    chosen = torch.where(expert >= 0, expert, experts).reshape(samples, tokens * k)
    if priority is None:
        order = chosen.sort(dim=-1, stable=True).indices
    else:  # two stable sorts, the lesser key first
        order = priority.reshape(chosen.shape).sort(dim=-1, descending=True, stable=True).indices
        order = order.gather(1, chosen.gather(1, order).sort(dim=-1, stable=True).indices)
    line = chosen.gather(1, order)
    place = torch.arange(tokens * k, device=expert.device) - torch.searchsorted(line, line)
    limit = slots[:, None] if isinstance(slots, Tensor) else slots
    kept = torch.zeros_like(chosen, dtype=torch.bool).scatter(1, order, place < limit)
    return (kept | (chosen == experts)).reshape(expert.shape)


@dataclass(frozen=True)
class Kept:
    """What a selection did in one forward; B samples, s tokens, k choices each, n experts.

    expert: (B, s, k), the router's choices, -1 where there is none and in padding. weight: (B, s, k), the router's
    weights. kept: (B, s, k), the pairs that stay. real: (B, s), False for padding, or None without any.
    """

    expert: Tensor
    weight: Tensor
    kept: Tensor
    real: Tensor | None
    experts: int

    @property
    def load(self) -> Tensor:
        """Candidates of each expert, (B, n)."""
        return (self.expert.flatten(1)[..., None] == torch.arange(self.experts, device=self.expert.device)).sum(1)

    @property
    def cut(self) -> Tensor:
        """Pairs that the selection took out, (B, s, k)."""
        return (self.expert >= 0) & ~self.kept

    @property
    def drop_rate(self) -> float:
        """Share of the pairs that was taken out; 0 without any. Synchronises with the host."""
        return float(self.cut.sum() / (self.expert >= 0).sum().clamp(min=1))

    @property
    def dropped(self) -> Tensor:
        """Real tokens that chose experts and lost them all, (B, s)."""
        chosen = self.expert >= 0
        return chosen.any(-1) & ~(chosen & self.kept).any(-1)


class Selection(Counted):
    """A rule and a capacity over one block's own choices; the model keeps its gate, weights and shared experts.

    A pair beyond the capacity loses its weight, nothing else changes: weights of other pairs are not normalised anew.

    Attributes:
        name: of the block; layout: how its router hands over decisions; experts: their number.
        kept: `Kept` of this thread's last forward. tokens, pairs, cut, dropped: sums over all forwards since `reset`.
    """

    def __init__(
        self,
        block: Block,
        padding: Padding,
        *,
        rule: str | Rule = "resonance",
        capacity: int | None = None,
        capacity_factor: float | None = None,
    ) -> None:
        self.rule = rule_named(rule)
        if not self.rule.tokens_choose:
            raise ValueError(f"rule = {self.rule.name!r} {EXPERTS_CHOOSE}")
        if isinstance(self.rule, Adaptive):
            raise ValueError(
                f"rule = {self.rule.name!r} keeps a share of the affinity and has no capacity: take resonance"
            )
        try:
            self.rule.priority(torch.zeros(1))
        except (NotImplementedError, TypeError, ValueError) as problem:
            raise ValueError(f"rule = {self.rule.name!r} cannot select among given choices: {problem}") from None
        if capacity is not None and capacity_factor is not None:
            raise ValueError("capacity and capacity_factor are given together but must be given one at a time")
        self.name, self.layout, self.experts = block.name, block.layout.name, block.experts
        self.capacity = None if capacity is None else arguments.whole("capacity", capacity, 1)
        self.capacity_factor = None
        if capacity is None:
            given = 1.25 if capacity_factor is None else capacity_factor
            self.capacity_factor = arguments.number("capacity_factor", given, 0.0, open_low=True)
        self._padding, self._state, self._last = padding, PerThread(), threading.local()
        self.reset()

    @property
    def kept(self) -> Kept:
        last: Kept | None = getattr(self._last, "kept", None)
        if last is None:
            raise ValueError("kept is not there before the first forward: call the model first")
        return last

    def install(self, block: Block, model: nn.Module) -> None:
        """Hook the block and the stage whose input has samples and tokens."""
        self.watch(block, model)
        block.intercept(self.select)

    def watch(self, block: Block, model: nn.Module) -> None:
        """Hook the stage: the shape and the padding of what goes in, and whether the block's decision passed by here."""
        stage = model.get_submodule(block.stage)
        stage.register_forward_pre_hook(Hook(_enter, self), with_kwargs=True)
        stage.register_forward_hook(Hook(_leave, self))

    def select(self, expert: Tensor, weight: Tensor) -> Tensor:
        """Which of the router's pairs to keep; expert, weight: (samples * tokens, k)."""
        self._state.put("called", True)
        samples, tokens, real = self._sample(len(expert))
        expert, score = expert.reshape(samples, tokens, -1), weight.detach().reshape(samples, tokens, -1)
        if real is not None:
            expert = torch.where(real[..., None], expert, -1)
        kept = within_capacity(expert, self.rule.priority(score), self._slots(expert, real), self.experts)
        if counts():
            self._count(Kept(expert, score, kept, real, self.experts))
        return kept.reshape(weight.shape)

    def _sample(self, n: int) -> tuple[int, int, Tensor | None]:
        """Samples and tokens of a decision about n tokens, and which are real, (samples, tokens), None for all."""
        shape, real = self._state.peek("shape") or (None, None)
        samples, tokens = shape if shape and shape[0] * shape[1] == n else (1, n)
        return samples, tokens, real if real is not None and tuple(real.shape) == (samples, tokens) else None

    def _slots(self, expert: Tensor, real: Tensor | None) -> Any:
        _, tokens, top = expert.shape
        if self.capacity is not None:  # all of a sample is no limit, even where a token names an expert twice
            return self.capacity if self.capacity < tokens else tokens * top
        assert self.capacity_factor is not None
        above, below = _share(self.capacity_factor, min(top, self.experts), self.experts)
        if above >= below:
            return tokens * top
        return -(-above * (tokens if real is None else real.sum(-1)) // below)

    def _count(self, kept: Kept) -> None:
        if torch.compiler.is_compiling():
            return
        self._last.kept = kept
        tokens = kept.expert[..., 0].numel() if kept.real is None else kept.real.sum()
        self.add(tokens, (kept.expert >= 0).sum(), kept.cut.sum(), kept.dropped.sum())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_last"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._last = threading.local()


def _share(factor: float, top: int, experts: int) -> tuple[int, int]:
    return factors.share(factor, top, experts)


# torch.compile calls it once for each set of arguments and takes the result as a constant.
_share._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _enter(selection: Selection, module: nn.Module, args: Any, kwargs: Any) -> None:
    """Before a block: the shape of its samples, and their padding."""
    x = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point()), None)
    selection._state.put("called", False)
    if x is None or x.ndim != 3:
        selection._padding.tell(f"{selection.name} is given tokens without samples: all of a call share its slots")
        selection._state.put("shape", None)
        return
    padded = selection._padding.of(x, module)
    selection._state.put("shape", (tuple(x.shape[:2]), None if padded is None else ~padded))


def _leave(selection: Selection, module: nn.Module, args: Any, output: Any) -> None:
    selection._state.take("shape")
    if selection._state.take("called") is False and not torch.compiler.is_compiling():
        raise RuntimeError(
            f"{selection.name} ran without handing its router's choices to its experts as in its trial, so that nothing "
            "was selected: put the model's own routing back by restore_router(model)"
        )


# --- a whole model ----------------------------------------------------------------------------------------------------


def select_within(model: nn.Module, blocks: Sequence[Block], **options: Any) -> list[Selection]:
    """Put a `Selection` on every block, or on none: a block that fails its trial leaves the model as it was.

    Args:
        model: the model of the blocks.
        blocks: of `find_blocks(model)`.
        options: of `Selection`.

    Raises:
        ValueError: a block where a pair cannot be taken out by its weight, with the reason; or a wrong option.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError(
                f"{name} = {value!r} must be left out where the model's own blocks and gates stay: they take "
                f"{', '.join(OPTIONS)}"
            )
    padding = Padding()
    made = [Selection(block, padding, **options) for block in blocks]
    if problem := shared(blocks):
        raise ValueError(f"model cannot be replaced: {problem}")
    for block in blocks:
        with torch.random.fork_rng(devices=[]):  # the draws of the trial are none of the user's
            reason = misfit(block)
        if reason:
            raise ValueError(f"{block.name} ({type(block.module).__name__}) cannot be replaced: {reason}")
    padding.watch(model, list(dict.fromkeys(block.stage for block in blocks)))
    for block, selection in zip(blocks, made):
        selection.install(block, model)
    return made


def shared(blocks: Sequence[Block]) -> str | None:
    """Which two blocks have the same experts, whose calls could not be told apart; None where none have."""
    seen: dict[int, str] = {}
    for block in blocks:
        experts = id(getattr(block.module, "experts", block.module))
        if experts in seen:
            return f"{block.name} has the experts of {seen[experts]}, so that their calls could not be told apart"
        seen[experts] = block.name
    return None


@torch.no_grad()
def misfit(block: Block) -> str | None:
    """Why pairs cannot be cut in this block, by a trial on a random batch; None where they can.

    What it gives with some of the pairs, plus what it gives with the others, must be what it gives with all of them,
    plus what it gives with none.
    """
    modes = {module: module.training for module in block.module.modules()}
    block.module.eval()
    try:
        run = block.layout.trial(block)
        plain = run()
        whole, none, some, others = (_with(block, run, choose) for choose in (_all, _none, _some, _others))
    except Exception as problem:
        if any(p.is_meta for p in block.module.parameters()):
            return "its weights are not loaded (on the meta device): load the model whole first"
        return f"a trial on a random batch fails ({type(problem).__name__}: {' '.join(str(problem).split())[:200]})"
    finally:
        for module, mode in modes.items():
            module.training = mode
    if whole is None or none is None or some is None or others is None:
        return "its router's choices do not pass where its layout reads them"
    if not torch.equal(whole, plain):
        return "it gives other values where every pair is kept"
    plain, none, some, others = (value.double() for value in (plain, none, some, others))
    size = float((plain - none).abs().max())
    if not size > 0:
        return "it gives the same whatever its router chooses, so that the trial says nothing"
    error = float((some + others - plain - none).abs().max())
    half = whole.dtype in (torch.float16, torch.bfloat16)
    if not error <= (0.05 if half else 1e-3) * float(plain.abs().max()):
        return f"it is not a sum over its pairs: the parts of a random batch differ by {error:.3g} from values of {size:.3g}"
    return None


def _with(block: Block, run: Callable[[], Tensor], choose: Callable[[Tensor], Tensor]) -> Tensor | None:
    """What the trial gives where only the chosen pairs are kept; None if no decision was read."""
    seen = []

    def act(expert: Tensor, weight: Tensor) -> Tensor:
        seen.append(expert)
        return choose(expert)

    handles = block.intercept(act)
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    return result if seen else None


def _all(expert: Tensor) -> Tensor:
    return torch.ones_like(expert, dtype=torch.bool)


def _none(expert: Tensor) -> Tensor:
    return torch.zeros_like(expert, dtype=torch.bool)


def _some(expert: Tensor) -> Tensor:
    return (torch.arange(expert.numel(), device=expert.device) % 3 == 0).reshape(expert.shape)


def _others(expert: Tensor) -> Tensor:
    return ~_some(expert)


def selections(model: nn.Module) -> list[Selection]:
    """The selections on a model, also on a copy of one, in the order of its modules."""
    found: dict[int, Selection] = {}
    for module in model.modules():
        for hook in hooks_of(module):
            if hook.function is _enter:
                found.setdefault(id(hook.values[0]), hook.values[0])
    return list(found.values())


def hooks_of(module: nn.Module) -> list[Hook]:
    """The hooks of this package before a module's forward."""
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, Hook)]


def unselect(model: nn.Module) -> None:
    """Take every selection off: the model is as it was before."""
    watching = {id(selection._padding) for selection in selections(model)}
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            ours = [
                key
                for key, hook in hooks.items()
                if isinstance(hook, Hook) or id(getattr(hook, "__self__", None)) in watching
            ]
            for key in ours:
                module._forward_pre_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_always_called.pop(key, None)
                del hooks[key]
