"""Train experts in alternating phases, one of them orthogonal to the inputs of the other experts (OMoE, arXiv 2310.09762).

Accumulating phase: the base optimizer steps as ever, and every expert gathers XᵀX of the inputs of its layers.
Orthogonal phase: of each step of the base optimizer an expert keeps what the other experts' projectors leave, their
mean ("average", as the paper's abstract says) or the projector off all their inputs together ("joint"). The
displacement is projected, not the gradient, so that the guarantee holds for Adam and momentum as well. The paper's text
is not available: phases, their lengths and where the projector applies are this package's reading. Another OMoE
(2501.10062) orthogonalises outputs of LoRA experts. Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory import _arguments as arguments

__all__ = ["OrthogonalExperts"]

KINDS = ("average", "joint")


class OrthogonalExperts:
    """A wrapper of a torch optimizer; step, zero_grad, state_dict and load_state_dict as usual; close when done.

    Args:
        optimizer: The base optimizer, of all parameters to be trained.
        experts: For each expert its linear layers, in the same order: [[up_1, down_1], [up_2, down_2], ...].
        accumulate: Steps of an accumulating phase, at least 1.
        orthogonal: Steps of an orthogonal phase, at least 0; 0 is the base optimizer.
        ridge: a > 0, relative to the mean square input: P = a (aI + XᵀX/rows)^-1 over the last accumulating phase.
        projection: "average" or "joint".

    Attributes:
        phase: "accumulating" or "orthogonal", that of the next step.

    Raises:
        TypeError: An expert holds something else than linear layers.
        ValueError: Fewer than two experts, unequal layers, or a number outside its range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> experts = [[nn.Linear(3, 2)], [nn.Linear(3, 2)]]
        >>> base = torch.optim.SGD([p for e in experts for m in e for p in m.parameters()], lr=0.1)
        >>> optimizer = OrthogonalExperts(base, experts, accumulate=1, orthogonal=1)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     sum(e[0](torch.randn(4, 3)).square().mean() for e in experts).backward()
        ...     print(optimizer.phase)
        ...     optimizer.step()
        accumulating
        orthogonal
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        experts: Sequence[Sequence[nn.Linear]],
        *,
        accumulate: int = 10,
        orthogonal: int = 10,
        ridge: float = 1e-3,
        projection: str = "average",
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer is a {type(optimizer).__name__} but must be a torch.optim.Optimizer")
        self.optimizer = optimizer
        self.experts = [list(layers) for layers in experts]
        self._check()
        self.accumulate = arguments.whole("accumulate", accumulate, 1)
        self.orthogonal = arguments.whole("orthogonal", orthogonal, 0)
        self.ridge = arguments.number("ridge", ridge, 0.0, open_low=True)
        self.projection = arguments.choice("projection", projection, KINDS)
        self.steps = 0
        self._gram: dict[tuple[int, int], Tensor] = {}
        self._count: dict[tuple[int, int], int] = {}
        self._projector: dict[tuple[int, int], Tensor] = {}
        self._hooks = [
            layer.register_forward_pre_hook(self._gather(i, k))
            for i, layers in enumerate(self.experts)
            for k, layer in enumerate(layers)
        ]

    def _check(self) -> None:
        if len(self.experts) < 2:
            raise ValueError(f"experts holds {len(self.experts)} but must hold at least 2")
        for i, layers in enumerate(self.experts):
            for layer in layers:
                if not isinstance(layer, nn.Linear):
                    raise TypeError(f"experts[{i}] holds a {type(layer).__name__} but must hold nn.Linear layers")
            shapes = [tuple(layer.weight.shape) for layer in layers]
            first = [tuple(layer.weight.shape) for layer in self.experts[0]]
            if shapes != first or not shapes:
                raise ValueError(
                    f"experts[{i}] has layers of shapes {shapes} but must have those of experts[0], {first}"
                )

    @property
    def phase(self) -> str:
        place = self.steps % (self.accumulate + self.orthogonal)
        return "accumulating" if place < self.accumulate else "orthogonal"

    def _gather(self, expert: int, place: int) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            if self.orthogonal and layer.training and torch.is_grad_enabled() and self.phase == "accumulating":
                x = inputs[0].detach().flatten(0, -2).double()  # small ridges need the digits
                key = (expert, place)
                self._gram[key] = self._gram.get(key, 0.0) + x.T @ x
                self._count[key] = self._count.get(key, 0) + len(x)

        return hook

    def _projectors(self) -> None:
        """Projector of each expert's layers from the inputs of the other experts in the phase that ends."""
        self._projector = {}
        n = len(self.experts)
        for k, layer in enumerate(self.experts[0]):
            zero = torch.zeros(layer.in_features, layer.in_features, device=layer.weight.device, dtype=torch.float64)
            grams = [self._gram.get((i, k), zero) / max(self._count.get((i, k), 0), 1) for i in range(n)]
            scale = torch.stack(grams).diagonal(dim1=-2, dim2=-1).mean().clamp_min(1e-300)
            alone = [_projector(gram, self.ridge * scale) for gram in grams]
            for i in range(n):
                rest = [j for j in range(n) if j != i]
                if self.projection == "average":
                    self._projector[i, k] = torch.stack([alone[j] for j in rest]).mean(0)
                else:
                    joint = torch.stack([grams[j] for j in rest]).sum(0)
                    self._projector[i, k] = _projector(joint, self.ridge * scale)
        self._gram, self._count = {}, {}

    def projector(self, expert: int, layer: int = 0) -> Tensor:
        """The projector (in, in) that an expert's layer used last; the identity before the first orthogonal phase."""
        identity = torch.eye(self.experts[expert][layer].in_features)
        return self._projector.get((expert, layer), identity)

    @torch.no_grad()
    def step(self) -> None:
        """One step of the base optimizer, projected in an orthogonal phase."""
        place = self.steps % (self.accumulate + self.orthogonal)
        if place < self.accumulate:
            self.optimizer.step()
        else:
            if place == self.accumulate:
                self._projectors()
            weights = {(i, k): m.weight for i, layers in enumerate(self.experts) for k, m in enumerate(layers)}
            before = {key: weight.detach().clone() for key, weight in weights.items()}
            self.optimizer.step()
            for key, weight in weights.items():
                moved = (weight - before[key]) @ self._projector[key].to(weight)
                weight.copy_(before[key] + moved)
        self.steps += 1

    def close(self) -> None:
        """Stop gathering inputs: the layers are as they were before."""
        for hook in self._hooks:
            hook.remove()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and the base optimizer's state, from which training goes on exactly."""
        kept = {name: {f"{i}.{k}": v for (i, k), v in getattr(self, f"_{name}").items()} for name in TABLES}
        return {"optimizer": self.optimizer.state_dict(), "steps": self.steps, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        for name in TABLES:
            table = {tuple(map(int, key.split("."))): value for key, value in state[name].items()}
            setattr(self, f"_{name}", table)


TABLES = ("gram", "count", "projector")


def _projector(gram: Tensor, ridge: Tensor) -> Tensor:
    """a (aI + G)^-1 by G's eigenvalues, which rounding does not make negative here."""
    value, vector = torch.linalg.eigh(gram)
    return (vector * (ridge / (ridge + value.clamp_min(0)))) @ vector.T
