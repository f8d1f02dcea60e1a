"""An auxiliary router that predicts expert choice from the token alone, for causal inference (MoMa eq. 3).

Expert choice compares tokens, later ones included, so a language model cannot use it to generate. The auxiliary router
learns, after training, which experts take a token: sigmoid(SiLU(x W1) W2), cross-entropy against the choices, and at
inference the expert is used where the score exceeds the threshold. Needs torch.
"""

from __future__ import annotations

from torch import Tensor, nn

from resonance_theory import _arguments as arguments

__all__ = ["CausalRouter"]


class CausalRouter(nn.Module):
    """Two-layer network (tokens, dim) -> (tokens, experts) of probabilities that an expert takes the token.

    Args:
        dim: Width of a token, at least 1.
        experts: Experts of the group, at least 1.
        hidden: Width of the hidden layer; dim // 2, at least 1, unless given.
        threshold: In (0, 1); an expert is used above it.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> import torch
        >>> router = CausalRouter(4, 2)
        >>> router.select(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """

    def __init__(self, dim: int, experts: int, hidden: int | None = None, threshold: float = 0.5) -> None:
        super().__init__()
        d, n = arguments.whole("dim", dim, 1), arguments.whole("experts", experts, 1)
        h = max(1, d // 2) if hidden is None else arguments.whole("hidden", hidden, 1)
        self.threshold = arguments.number("threshold", threshold, 0.0, 1.0, open_low=True, open_high=True)
        self.first, self.second = nn.Linear(d, h, bias=False), nn.Linear(h, n, bias=False)

    def logits(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.silu(self.first(x.detach())))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).sigmoid()

    def loss(self, x: Tensor, taken: Tensor) -> Tensor:
        """Mean binary cross-entropy against the choices `taken` (tokens, experts); no gradient reaches x.

        Raises:
            ValueError: taken has another shape than the scores.
        """
        scores = self.logits(x)
        if taken.shape != scores.shape:
            raise ValueError(f"taken has shape {tuple(taken.shape)} but must have shape {tuple(scores.shape)}")
        return nn.functional.binary_cross_entropy_with_logits(scores, taken.to(scores.dtype))

    def select(self, x: Tensor) -> Tensor:
        """Booleans (tokens, experts): which experts to use, from each token alone."""
        return self(x) > self.threshold
