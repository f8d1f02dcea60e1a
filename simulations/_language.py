"""A byte-level language model with mixtures of experts: its text, its arms, its training and its measurements.

A decoder-only transformer is trained on the text of `_corpus`. Its blocks' feed-forward layers are the package's own
`rt.nn.ResonanceMoE` under one arm's router, or one dense network of the size of an expert (equal active parameters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import homogenization
from resonance_theory.rules import Rates, token_choice
from simulations import _corpus
from simulations._metrics import mean_of_pairs

PACKAGES = ("torch",)
DEVICES = ("cpu", "cuda")
EPOCHS = 4
SIZES = ("dim", "hidden", "layers", "heads", "experts", "tokens", "grams", "table")
TEXT = ("corpora", "tokens", "batch", "calibration_windows", "test_windows")

Windows = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """arm: the arguments of `feed_forward` that are its own, empty for the dense network; text: those of `draw`; size: of
    the network; rate: AdamW's largest; alpha: weight of the load-balance loss."""

    arm: dict[str, Any]
    text: dict[str, Any]
    size: dict[str, Any]
    rate: float
    alpha: float


def shared(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """Text and size of all arms of a study that trains for so many steps."""
    text = {key: settings[key] for key in TEXT} | {"steps": steps}
    return {"text": text, "size": {key: settings[key] for key in SIZES}}


def windows(text: NDArray[np.uint8], tokens: int) -> Windows:
    """All of a split as windows of tokens + 1 bytes, each of which begins with the last byte of the one before."""
    count = (len(text) - 1) // tokens
    return np.lib.stride_tricks.sliding_window_view(text, tokens + 1)[: count * tokens : tokens]


def draw(
    rng: np.random.Generator,
    *,
    corpora: Sequence[str],
    tokens: int,
    batch: int,
    steps: int,
    calibration_windows: int,
    test_windows: int,
) -> tuple[Windows, Windows, Windows]:
    """(training windows (steps, batch, tokens + 1), calibration windows, test windows): the same for every arm of a run.

    Each pass over the training text shows every window once, in random order. Raises ValueError beyond EPOCHS passes.
    """
    text = _corpus.load(tuple(corpora))
    training, calibration, test = (windows(text[name], tokens) for name in ("training", "calibration", "test"))
    epochs = math.ceil(steps * batch / len(training))
    if epochs > EPOCHS:
        raise ValueError(f"steps = {steps} reads the text {epochs} times but must read it at most {EPOCHS} times")
    order = np.concatenate([rng.permutation(len(training)) for _ in range(epochs)])[: steps * batch]
    chosen = [
        rng.choice(len(w), n, replace=False) for w, n in ((calibration, calibration_windows), (test, test_windows))
    ]
    return training[order].reshape(steps, batch, -1), calibration[chosen[0]], test[chosen[1]]


def feed_forward(
    *, gates: str, rule: str, keep: str, capacity: dict[str, Any], dim: int, hidden: int, experts: int, tokens: int
) -> Any:
    """A mixture of experts under one arm's router; the experts draw their weights before the gates do."""
    from resonance_theory.nn import FeedForwardExperts, ResonanceMoE, ResonanceRouter
    from simulations._causal import CausalRouter, PositionTable

    body = FeedForwardExperts(dim, hidden, experts)
    # Cosines with unit vectors are about 1/sqrt(dim) in size, logits of a learned gate about 1: equal gate scales.
    scale = dim**-0.5 if gates not in ("linear", "positions") else 1.0
    gate: Any = PositionTable(tokens, experts) if gates == "positions" else gates
    router = ResonanceRouter(dim, experts, rule=rule, gates=gate, temperature=scale, statistics=False, **capacity)
    return ResonanceMoE(CausalRouter(router, keep), body)


def build(arm: dict[str, Any], size: dict[str, Any], seed: int) -> Any:
    """The transformer of one arm; arm: the arguments of `feed_forward` that are its own, empty for the dense network."""
    from simulations._transformer import Dense, Transformer

    dim, hidden, tokens = size["dim"], size["hidden"], size["tokens"]

    def feed(_: int) -> Any:
        if not arm:
            return Dense(dim, hidden)
        return feed_forward(**arm, dim=dim, hidden=hidden, experts=size["experts"], tokens=tokens)

    shape = {key: size[key] for key in ("dim", "layers", "heads", "tokens", "grams", "table")}
    return Transformer(feed, **shape, seed=seed)


def operations(arm: dict[str, Any], size: dict[str, Any], slots: float) -> float:
    """Multiply-adds of one forward pass per token; slots: slots computed per token in each layer, empty ones included."""
    dim, hidden, tokens = size["dim"], size["hidden"], size["tokens"]
    gate = {"linear": dim * size["experts"], "orthogonal": dim * dim, "positions": 0}.get(arm.get("gates", ""), dim)
    layer = 4 * dim * dim + 2 * tokens * dim + 2 * dim * hidden * slots + (gate if arm else 0)
    return size["layers"] * layer + 256 * dim


def batches(data: Windows, batch: int, device: str) -> Iterator[Any]:
    """Windows as tensors (batch, tokens + 1) of whole numbers."""
    import torch

    for first in range(0, len(data), batch):
        yield torch.from_numpy(data[first : first + batch].astype(np.int64)).to(device)


def routers_of(model: Any) -> list[Any]:
    from simulations._causal import CausalRouter

    return [module for module in model.modules() if isinstance(module, CausalRouter)]


def experts_of(model: Any, router: Any) -> Any:
    """The experts that a router sends tokens to."""
    return next(m for m in model.modules() if getattr(m, "router", None) is router).experts


def fit(
    model: Any, data: Windows, rate: float, alpha: float, device: str, watch: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Train on data (steps, batch, tokens + 1); returns counts, still on the device, of tokens kept and dropped and of
    slots over all layers. No host synchronisation but for a capacity that follows measurements, every 50 steps.

    watch: called with the number of steps done, from 0 to all of them; it must leave the model and torch's generators alone.
    """
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01, fused=device in DEVICES
    )
    steps, warm = len(data), max(1, len(data) // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    routers = routers_of(model)
    kept, slots, dropped = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))
    model.train()
    for step, x in enumerate(batches(data.reshape(-1, data.shape[-1]), data.shape[1], device)):
        if watch is not None:
            watch(step)
        for router in routers:
            router.seen = []
            if step % 50 == 0:
                router.inner.refresh()  # a capacity that follows measurements moves here
        loss = loss_of(model, x)
        for router in routers:
            _, routing = router.seen[0]
            loss = loss + routing.load_balance(alpha=alpha)
            kept += routing.filled.sum()
            slots += routing.filled.numel()
            dropped += routing.dropped.sum()
            router.seen = None
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    if watch is not None:
        watch(steps)
    return {"kept": kept, "slots": slots, "dropped": dropped}


def processed(counted: dict[str, Any], model: Any, data: Windows) -> dict[str, float]:
    """What the experts took of the training text, per token and layer."""
    seen = data[..., 1:].size * len(routers_of(model))
    if not seen:
        return {"processed": 1.0, "capacity": 1.0, "padding": 0.0, "dropped": 0.0}
    kept, slots, dropped = (int(counted[key]) for key in ("kept", "slots", "dropped"))
    return {"processed": kept / seen, "capacity": slots / seen, "padding": 1 - kept / slots, "dropped": dropped / seen}


def loss_of(model: Any, x: Any) -> Any:
    """Mean loss in nats per byte on windows x (batch, tokens + 1)."""
    from torch.nn import functional

    return functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def measure(model: Any, calibration: Windows, test: Windows, batch: int, device: str) -> dict[str, float]:
    """Losses on the test windows by each way to keep tokens, and what the routers do there."""
    import torch

    from resonance_theory.nn import RoutingStatistics
    from simulations._causal import calibrate

    model.eval()
    routers = routers_of(model)

    @torch.no_grad()
    def evaluate(data: Windows, mode: str) -> tuple[float, float]:
        """(loss, tokens processed per token) with all routers in that mode."""
        for router in routers:
            router.mode, router.seen = mode, []
        total, kept = 0.0, 0
        for x in batches(data, batch, device):
            total += float(loss_of(model, x)) * len(x)
        for router in routers:
            kept += sum(int(routing.filled.sum()) for _, routing in router.seen)
        return total / len(data), kept / (data[:, 1:].size * max(1, len(routers)))

    if not routers:
        return {"loss": evaluate(test, "all")[0]}
    found: dict[str, float] = {}
    for router in routers:
        router.inner.statistics = RoutingStatistics(router.inner.dim, router.inner.experts).to(device)
    evaluate(calibration, "select")
    shares = [router.inner.statistics.summary()["load"] for router in routers]
    calibrate(model, routers, [x[:, :-1] for x in batches(calibration, batch, device)])
    for router in routers:
        router.inner.statistics.reset()
    found["loss"], found["kept"] = evaluate(test, "threshold")
    found["kept calibration"] = evaluate(calibration, "threshold")[1]
    found["loss all"], _ = evaluate(test, "all")
    for router in routers:
        router.inner.statistics.reset()
    found["loss selected"], found["kept selected"] = evaluate(test, "select")
    tokens = test.shape[1] - 1
    each: list[dict[str, float]] = []
    for router, share in zip(routers, shares):
        summary = router.inner.statistics.summary()
        slots = router.seen[0][1].token.shape[-1]
        one = {
            "heaviest share": max(summary["load"]),
            "load cv": float(homogenization.load_cv(np.array(summary["load"]))),
            "dispatch entropy": float(homogenization.dispatch_entropy(np.array(summary["load_kept"]))),
            "calinski harabasz": summary["calinski_harabasz"],
            "dropped selected": summary["drop_rate"],
        } | {f"load {i}": value for i, value in enumerate(summary["load"])}
        if router.inner.rule != "expert_choice" and router.inner.mass is None:
            # With independent tokens of these shares, this is what the slots cannot hold.
            held = sum(float(token_choice.kept(tokens, slots, Rates(load=p))) for p in share if p > 0)
            one["dropped law"] = 1 - held / tokens
        each.append(one | alignment(model, router))
    for router in routers:
        router.seen = None
    found |= {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    return {key: value for key, value in found.items() if math.isfinite(value)}


def alignment(model: Any, router: Any, rows: int = 512) -> dict[str, float]:
    """Linear CKA of the experts' outputs on the same tokens, mean over pairs, and its value by chance."""
    import torch

    x = router.seen[0][0].flatten(0, 1)[:rows]
    with torch.no_grad():
        out = experts_of(model, router)(x.expand(router.inner.experts, *x.shape)).double().cpu().numpy()
    return {
        "cka": mean_of_pairs(homogenization.linear_cka, out),
        "cka chance": mean_of_pairs(homogenization.linear_cka_chance, out),
    }


def routed(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is each arm's own, by its label."""
    published = {"capacity_factor": settings["capacity_factor"]}
    less = {"capacity_factor": settings["less_capacity_factor"]}
    by_mass = published | {"mass": settings["mass"]}
    by_theory = {key: settings[key] for key in ("target", "discriminative")}
    token = {"gates": "grap", "rule": "token_choice", "keep": "position", "capacity": published}
    best = {"gates": "grap", "rule": "resonance", "keep": "affinity", "capacity": less}
    return {
        "dense": {},
        "linear top-1": token | {"gates": "linear"},
        "LocMoE": token,
        "expert choice": best | {"rule": "expert_choice"},
        "resonance": best,
        "resonance, adaptive": best | {"capacity": by_mass},
        "resonance, by theory": best | {"capacity": by_theory},
        "random keep": token | {"keep": "chance", "capacity": less},
        "position keep": token | {"capacity": less},
        "random routing": token | {"gates": "positions"},
        "learned gate": best | {"gates": "linear"},
        "centred": best | {"gates": "grap-centred"},
        "orthogonal map": best | {"gates": "orthogonal"},
    }
