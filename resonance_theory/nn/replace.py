"""Put these routers into a Hugging Face model with Mixtral's kind of Mixture-of-Experts blocks, by one call."""

from __future__ import annotations

import inspect
import threading
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory.nn.accumulate import counts
from resonance_theory.nn.counted import Counted
from resonance_theory.nn.families import find_blocks
from resonance_theory.nn.families._layout import Hook
from resonance_theory.nn.gates import LinearGate
from resonance_theory.nn.moe import ResonanceMoE
from resonance_theory.nn.padding import Padding
from resonance_theory.nn.regate import Regated, regate, ungate
from resonance_theory.nn.router import ResonanceRouter
from resonance_theory.nn.routing import Routing
from resonance_theory.nn.selection import OPTIONS, Selection, select_within, selections, unselect
from resonance_theory.rules import rule as rule_named
from resonance_theory.rules.adaptive import Adaptive

__all__ = ["GatedExperts", "ReplacedMoE", "replace_router", "restore_router"]

WITHOUT_LOGITS = "the replaced blocks record no router logits: output_router_logits = True is taken as False"


class GatedExperts(nn.Module):
    """Experts of Mixtral's kind, all in one batched product: down(act(gate x) * up x), (n, rows, dim) -> (n, rows, dim).

    gate_up_proj: (n, 2 hidden, dim), gate before up; down_proj: (n, dim, hidden); shared with the model, not copied.
    """

    def __init__(self, gate_up_proj: nn.Parameter, down_proj: nn.Parameter, activation: Any) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj, self.act_fn = gate_up_proj, down_proj, activation

    def forward(self, x: Tensor) -> Tensor:
        gate, up = torch.bmm(x, self.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)
        return torch.bmm(self.act_fn(gate) * up, self.down_proj.transpose(1, 2))


class _Idle(nn.Module):
    """The model's own gate while another routes: kept in the state_dict, where the model's loader looks for it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())


class ReplacedMoE(Counted, ResonanceMoE):
    """A `ResonanceMoE` in the place of a model's block: hidden states (samples, tokens, dim) in and out.

    gate: the model's own gate under its own name, whether or not it routes. tokens, pairs, cut, dropped, `summary`: as of
    a `Selection`; where experts choose, a pair is one that has a slot.
    """

    def __init__(self, block: Any, router: ResonanceRouter, padding: Padding, dropped: str) -> None:
        experts = GatedExperts(block.experts.gate_up_proj, block.experts.down_proj, block.experts.act_fn)
        super().__init__(router, experts, dropped=dropped)
        self.own = isinstance(router.gate, LinearGate) and router.gate.weight is block.gate.weight
        self.gate = router.gate if self.own else _Idle(block.gate.weight)
        if self.own:  # one name in the state_dict, that which the model's loader knows
            del router._modules["gate"]
            router.__dict__["gate"] = self.gate
        self._padding, self._block, self._last = padding, (block,), threading.local()
        self.reset()

    @property
    def routing(self) -> Routing:
        """The `Routing` of this thread's last forward, whose `load_balance` and others are the auxiliary losses."""
        last: Routing | None = getattr(self._last, "routing", None)
        if last is None:
            raise ValueError("routing is not there before the first forward: call the model, then take its losses")
        return last

    def forward(self, hidden_states: Tensor) -> Tensor:  # type: ignore[override]
        y, routing = super().forward(hidden_states, self._padding.of(hidden_states, self), return_routing=True)
        if counts():
            self._last.routing = routing
            if not torch.compiler.is_compiling():
                self._count(routing)
        output: Tensor = y.to(hidden_states.dtype)
        return output

    def _count(self, routing: Routing) -> None:
        tokens = routing.expert[..., 0].numel() if routing.real is None else routing.real.sum()
        router: Any = self.router
        kept = routing.filled.sum()
        pairs = routing.load.sum() if router._rule.tokens_choose else kept
        self.add(tokens, pairs, pairs - kept, routing.dropped.sum())

    def _route(self, x: Tensor, padding_mask: Tensor | None) -> Routing:
        if self.own and self.router.__dict__["gate"] is not self.gate:  # a replica of DataParallel has its own
            self.router.__dict__["gate"] = self.gate
        return super()._route(x, padding_mask)

    def __getstate__(self) -> dict[str, Any]:
        # Results inside a graph can be neither copied nor stored.
        return {name: value for name, value in self.__dict__.items() if name != "_last"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        untyped: Any = super()
        untyped.__setstate__(state)
        self._last = threading.local()

    def restored(self) -> Any:
        """The model's own block, with the weights as they are now."""
        block: Any = self._block[0]
        weight: Any = self.gate.weight
        block.gate.weight = weight if self.own else nn.Parameter(weight, block.gate.weight.requires_grad)
        block.experts.gate_up_proj, block.experts.down_proj = self.experts.gate_up_proj, self.experts.down_proj
        return block.train(self.training)


def replace_router(
    model: nn.Module,
    *,
    gates: str | nn.Module = "grap",
    dropped: str = "zero",
    lookahead: bool = False,
    **options: Any,
) -> list[ReplacedMoE] | list[Selection] | list[Regated]:
    """Replace the router of every Mixture-of-Experts block of `model`, in place.

    With gates = "own" the model keeps all its modules. Its routers choose and weigh as ever, by their own scoring, biases,
    groups and scaling, and a `Selection` then takes out the pairs beyond the capacity. A block must pass a trial first:
    taking out pairs must take out their share of the output.

    With other gates, or other options than a `Selection` has, a block of Mixtral's kind becomes a `ReplacedMoE`, whose
    experts compute the kept slots alone. It is replaced only if it acts as Mixtral's: with the own gate and no drops, the
    new block must give what the old one gives on a random batch. The experts' weights and the own gate stay, under their
    names in the state_dict. In blocks of other kinds a `Regated` router chooses and weighs before their experts, where
    these are called with indices and weights.

    Padding is read from the `attention_mask` with which the model, or the part of it that holds the blocks, is called,
    whatever its form (`rt.nn.padding.padded`). Packed documents of one row share its slots. A `Selection` leaves router
    logits and the model's own auxiliary loss alone. The others switch them off, since they route by other logits: add up
    `block.routing.load_balance()` instead. Capacities are those of one call: a step of generation with a
    cache has one token a sample, which always finds a slot. Expert choice and capacities below the number of tokens let
    a token's output depend on later tokens of its sample.

    Args:
        model: a Hugging Face model, or one that holds such a model.
        gates: as in `ResonanceRouter`, or "own" for the model's learned gate.
        dropped: as in `ResonanceMoE`; "zero" where the model's own blocks stay.
        lookahead: let `model.generate` run though experts choose among tokens still to come; refused otherwise.
        options: all others of `ResonanceRouter`, where `top` and `normalize` are the model's unless given; of a
            `Selection`, rule, and capacity or capacity_factor.

    Returns:
        The new blocks, in the model's order; or one `Selection`, or `Regated`, for each block.

    Raises:
        ValueError: no such block, or one that cannot be replaced, with the reason; the model is as it was.
        TypeError: an argument of the wrong kind.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__} but must be a torch module")
    if selections(model) or any(isinstance(module, ReplacedMoE) for module in model.modules()):
        raise ValueError("model has replaced blocks already: put its own back first, by restore_router(model)")
    found: list[tuple[str, Any]] = [(name, block) for name, block in model.named_modules() if _is_moe(block)]
    if isinstance(gates, str) and gates == "own" and _selects(dropped, **options) and (families := find_blocks(model)):
        return select_within(model, families, **options)
    reasons = ((name, block, reason) for name, block in found if (reason := _reason(block)))
    wrong = next(reasons, None)
    if (wrong or not found) and (families := find_blocks(model)):
        if dropped != "zero":
            raise ValueError(f"dropped = {dropped!r} must be 'zero' where the model's own blocks stay")
        if isinstance(gates, str) and gates == "own":
            return select_within(model, families, **options)
        regated = regate(model, families, gates, **options)
        _idle_logits(model)
        _guard_saving(model, regated[0].router)
        return list(regated)
    if not found:
        raise ValueError(f"model is a {type(model).__name__} without blocks of a gate and experts")
    if wrong:
        name, block, reason = wrong
        raise ValueError(f"{name} ({type(block).__name__}) cannot be replaced: {reason}")
    padding, blocks = Padding(), []
    for _, block in found:  # all of them first: an error leaves the model as it was
        router = _router(block, gates, **options).to(block.gate.weight.device)
        blocks.append(ReplacedMoE(block, router, padding, dropped).train(block.training))
    for (_, block), new in zip(found, blocks):
        _put(model, block, new)
    padding.watch(model, [name for name, _ in found])
    _idle_logits(model)
    if not router._rule.tokens_choose and not lookahead:
        for module in model.modules():
            if callable(getattr(type(module), "generate", None)):
                module.generate = _no_generation  # type: ignore[assignment]
    _guard_saving(model, blocks[0].router)
    return blocks


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """One module in the place of another, under all of its names."""
    for name in [name for name, module in model.named_modules(remove_duplicate=False) if module is old]:
        model.set_submodule(name, new)


def _selects(dropped: str, *, rule: Any = "resonance", **options: Any) -> bool:
    """Whether a `Selection` can do what is asked of the model's own gates."""
    known = rule_named(rule)
    return (
        known.tokens_choose and not isinstance(known, Adaptive) and dropped == "zero" and set(options) <= set(OPTIONS)
    )


def _idle_logits(model: nn.Module) -> None:
    """Logits of a gate that no longer routes are not recorded, and no loss is made of them."""
    for module in model.modules():
        if "output_router_logits" in inspect.signature(module.forward).parameters:
            module.register_forward_pre_hook(Hook(_without_logits), with_kwargs=True)
    config: Any = getattr(model, "config", None)
    if getattr(config, "output_router_logits", False):
        config.output_router_logits = False


def _guard_saving(model: nn.Module, router: nn.Module) -> None:
    learned = [name for name, _ in router.named_parameters()]
    if learned and hasattr(model, "save_pretrained"):
        model.save_pretrained = _no_saving  # type: ignore[assignment]


def restore_router(model: nn.Module) -> None:
    """Put the model's own routing back in the place of that of `replace_router`, with the weights as they are now.

    Args:
        model: a model that went through `replace_router`.

    Raises:
        ValueError: it has no replaced block.
        TypeError: it is no torch module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__} but must be a torch module")
    if selections(model):
        ungate(model)
        unselect(model)
        model.__dict__.pop("save_pretrained", None)
        return
    found = [(name, block) for name, block in model.named_modules() if isinstance(block, ReplacedMoE)]
    if not found:
        raise ValueError(f"model is a {type(model).__name__} without replaced blocks")
    for _, block in found:
        for module in model.modules():
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key in [key for key, hook in hooks.items() if _of(hook, block._padding)]:
                    module._forward_pre_hooks_with_kwargs.pop(key, None)
                    module._forward_hooks_with_kwargs.pop(key, None)
                    module._forward_hooks_always_called.pop(key, None)
                    del hooks[key]
        _put(model, block, block.restored())
    model.__dict__.pop("save_pretrained", None)
    for module in model.modules():
        if module.__dict__.get("generate") is _no_generation:
            del module.generate


def _of(hook: Any, padding: Padding) -> bool:
    ours = isinstance(hook, Hook) and hook.function is _without_logits
    return ours or getattr(hook, "__self__", None) is padding


def _no_saving(*args: Any, **kwargs: Any) -> None:
    raise ValueError(
        "save_pretrained would lose the new gates' weights, which the model's loader does not know: use "
        "torch.save(model.state_dict(), path), or restore_router(model) first"
    )


def _no_generation(*args: Any, **kwargs: Any) -> None:
    raise ValueError(
        "experts choose among all tokens of a prompt, also those to come, so that each step would choose otherwise: "
        "generate by a rule by which tokens choose, or ask for it by replace_router(..., lookahead = True)"
    )


def _without_logits(module: nn.Module, args: Any, kwargs: Any) -> Any:
    if not kwargs.get("output_router_logits"):
        return None
    if not torch.compiler.is_compiling():
        warnings.warn(WITHOUT_LOGITS, stacklevel=2)
    return args, kwargs | {"output_router_logits": False}


def _router(block: Any, gates: Any, **options: Any) -> ResonanceRouter:
    experts, dim = block.gate.weight.shape
    own = {"top": block.gate.top_k, "normalize": getattr(block.gate, "norm_topk_prob", True)} | options
    gate = gates
    if isinstance(gates, str) and gates == "own":
        gate = LinearGate(dim, experts)
        gate.weight = block.gate.weight
    return ResonanceRouter(dim, experts, gates=gate, **own)


def _is_moe(block: nn.Module) -> bool:
    """Whether it has experts with their weights and something that chooses among them."""
    names = {name for name, _ in block.named_children()}
    return "experts" in names and bool(names & {"gate", "router"})


def _reason(block: Any) -> str | None:
    """Why it is no block of Mixtral's kind; None where it is."""
    with torch.random.fork_rng(devices=[]):  # the draws of the trial are none of the user's
        return _misfit(block) or _differs(block)


def _misfit(block: Any) -> str | None:
    """What the block has that Mixtral's has not, or lacks; None where nothing."""
    names = {name for name, _ in block.named_children()}
    if names != {"gate", "experts"}:
        return f"its parts are {', '.join(sorted(names))} but must be experts, gate alone"
    gate = {name: tuple(p.shape) for name, p in block.gate.named_parameters()}
    experts = {name: tuple(p.shape) for name, p in block.experts.named_parameters()}
    own = [name for name, _ in (*block.named_parameters(recurse=False), *block.named_buffers())]
    if own:
        return f"it also keeps {', '.join(own)}"
    if set(gate) != {"weight"} or set(experts) != {"gate_up_proj", "down_proj"} or len(gate["weight"]) != 2:
        return (
            f"its gate has the weights {', '.join(gate) or 'none'} (must be weight) and its experts "
            f"{', '.join(experts) or 'none'} (must be gate_up_proj, down_proj)"
        )
    if any(p.is_meta for p in block.parameters()):
        return "its weights are not loaded (offloaded by accelerate, or on the meta device): load the model whole first"
    n, d = gate["weight"]
    hidden = experts["down_proj"][-1]
    if experts["gate_up_proj"] != (n, 2 * hidden, d) or experts["down_proj"] != (n, d, hidden):
        return f"its experts' weights have the shapes {experts} but must be (n, 2 hidden, d) and (n, d, hidden)"
    missing = [name for part, name in ((block.gate, "top_k"), (block.experts, "act_fn")) if not hasattr(part, name)]
    if missing:
        return f"it has no {' and no '.join(missing)}"
    noise = getattr(block, "jitter_noise", 0)
    return f"it multiplies tokens by noise in training (jitter_noise = {noise})" if noise else None


@torch.no_grad()
def _differs(block: Any) -> str | None:
    """How it acts otherwise than a softmax gate with gated experts, on a random batch; None where it does not."""
    experts, dim = block.gate.weight.shape
    weight = {name: p.detach().float() for name, p in block.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 16, dim, generator=generator).to(block.gate.weight.device)
    spread = (x @ weight["gate.weight"].T).std()
    x = x * torch.where(spread > 0, 2 / spread, 1.0)  # logits of size 2, where kinds of gates differ
    router = _router(block, "own", rule="token_choice", capacity_factor=float(experts), statistics=False)
    gated = GatedExperts(block.experts.gate_up_proj, block.experts.down_proj, block.experts.act_fn)
    new = ResonanceMoE(router, gated).eval()
    renamed = {name.replace("gate.weight", "router.gate.weight"): p for name, p in weight.items()}
    training = block.training
    block.eval()
    try:
        wanted = torch.func.functional_call(block, weight, (x,))
        got = torch.func.functional_call(new, renamed, (x,))
    except Exception as problem:
        return f"it does not act as a softmax gate with gated experts ({type(problem).__name__} on a random batch)"
    finally:
        block.train(training)
    if not isinstance(wanted, Tensor) or wanted.shape != got.shape:
        return "it returns something else than hidden states"
    error, size = float((got - wanted).abs().max()), float(wanted.abs().max())
    if not error <= 1e-3 * size:
        return (
            f"on a random batch it gives values of size {size:.3g}, a softmax gate with gated experts {error:.3g} off"
        )
    return None
