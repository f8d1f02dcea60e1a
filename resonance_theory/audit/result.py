"""The numbers that an audit reports, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MODELS", "Affinity", "Drop", "Estimate", "HeldOut", "LayerAudit", "LayerRouting", "Need"]

MODELS = {
    "uniform": "uniform",
    "measured_load": "meas. load",
    "beta_binomial": "beta-bin.",
    "blocks": "blocks",
}
"""The models of an expert's load, from the poorest, and what the table calls them."""


class _Short:
    """A notebook's cell must not print a hundred thousand characters."""

    def summary(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"


@dataclass(frozen=True)
class Estimate:
    """A measured value and its standard error, by the jackknife over sequences.

    The error is None with a single sequence, and for a loss of 0, which says nothing about it; the value is NaN (None
    in the JSON) where nothing defines it: a mean over pairs of which there are none.
    """

    value: float
    error: float | None


@dataclass(frozen=True)
class Affinity:
    """Quantiles of the winning affinity; those of isotropic tokens and the Kolmogorov distance to them are None where
    the gates are not orthogonal, as their law needs."""

    levels: tuple[float, ...]
    measured: tuple[float, ...]
    isotropic: tuple[float, ...] | None
    kolmogorov: float | None


@dataclass(frozen=True)
class Drop:
    """Losses at one capacity factor: capacity C = ceil(factor * top * s / n) per expert and sequence.

    measured        fraction of (token, expert) candidates dropped, the same for token choice and resonance
    uniform         its prediction by binomial loads with every share top/n
    measured_load   by binomial loads with the measured shares
    beta_binomial   by beta-binomial loads with the measured shares and correlation; None with one sequence
    blocks          by runs of neighbours on one expert, of the measured variance; None with one sequence
    gaps            predicted less measured by model, with the jackknife error of that difference: the model is fitted
                    anew without each sequence, so that its own error counts, and what it shares with the measured cancels
    expert_choice   fraction of tokens that expert choice leaves to no expert at all
    expert_choice_isotropic  its limit for long isotropic sequences; None unless the gates are orthogonal
    """

    factor: float
    capacity: int
    measured: Estimate
    uniform: float
    measured_load: float
    beta_binomial: float | None
    blocks: float | None
    expert_choice: Estimate
    expert_choice_isotropic: float | None
    gaps: Mapping[str, Estimate]

    def covers(self, model: str) -> bool | None:
        """Whether a model's prediction is within three standard errors of the measured drop, the errors being those of
        their difference; None where it or the error is unknown."""
        gap = self.gaps.get(model)
        if gap is None or gap.error is None or self.measured.error is None:
            return None
        return bool(abs(gap.value) <= 3 * gap.error)


@dataclass(frozen=True)
class HeldOut:
    """A model fitted on one half of the sequences and judged on the other, averaged over splits and both directions.

    The over-dispersed ones allow for the error of the fitted shares, as `Need.advised` does. Standard errors are the
    jackknife's: each sequence is left out of all halves, fitted or judged (where tokens are centred, not of the half's mean).

    error, bias     mean of |predicted - measured| and of predicted - measured, over the capacity factors; error has its own
                    standard error, None with fewer than six sequences
    against         error less that of the binomial law with measured shares, and the standard error of this difference;
                    None for that law itself
    capacity, loss  the least capacity that the fitted model asks for, and the drop it has on the other half
    worst           the largest such drop
    """

    model: str
    error: Estimate
    bias: float
    against: Estimate | None
    capacity: float
    loss: float
    worst: float


@dataclass(frozen=True)
class Need:
    """Least capacity (tokens per expert and sequence) for the target loss.

    capacity, factor  measured; the same as a capacity factor, capacity * n / (top * s)
    low, high         range of the measured capacity when each sequence is left out in turn; None with one sequence
    uniform, measured_load, beta_binomial, blocks   what the laws of `Drop` ask for; None for expert choice
    advised   what the beta-binomial law asks for on new sequences, whose loads also differ from the estimated shares
    """

    capacity: int
    factor: float
    low: int | None
    high: int | None
    uniform: int | None = None
    measured_load: int | None = None
    beta_binomial: int | None = None
    blocks: int | None = None
    advised: int | None = None


@dataclass(frozen=True, repr=False)
class LayerRouting(_Short):
    """One layer routed by one set of gates, raw or centred (the mean token subtracted).

    load                    share of the candidates that each expert receives
    p_uniform, relabellings p value of the uniform load (`counts.relabelled`); None with one sequence
    total_variation         distance of the shares to uniform; `_chance`: expected if no expert were favoured
    heaviest, variation     largest share; coefficient of variation of the shares
    held_out_heaviest, held_out_capacity   the largest share and token choice's capacity when every sequence is centred
                            by the mean of the others, as in use; None for raw tokens and for one sequence
    cosine                  mean cosine of two tokens; within one sequence; of neighbours
    same_expert             neighbours with the same best expert; and if tokens were independent
    zero_tokens             tokens without a direction (affinity 0 with every gate)
    affinity                the winning affinities
    dispersion, correlation variance of the loads over the binomial one; intra-sequence correlation
    drops                   one for each capacity factor
    token_choice, resonance, expert_choice   the capacity each rule needs
    held_out, splits        the models on sequences they have not seen (centred tokens: with the mean of the fitted half),
                            and the number of splits; None and 0 with fewer than four sequences
    between_within          scatter of the best experts' tokens, between over within (ETR eq. 13)
    calinski_harabasz       the same with the usual (N-k)/(k-1); experts_used: k
    curve                   drop against capacity, for the figure
    """

    centred: bool
    load: tuple[Estimate, ...]
    p_uniform: float | None
    relabellings: int | None
    total_variation: Estimate
    total_variation_chance: float | None
    heaviest: Estimate
    variation: float
    held_out_heaviest: float | None
    held_out_capacity: int | None
    cosine: Estimate
    cosine_within: Estimate
    cosine_neighbours: Estimate
    same_expert: Estimate
    same_expert_independent: float
    zero_tokens: int
    affinity: Affinity
    dispersion: Estimate | None
    correlation: Estimate | None
    drops: tuple[Drop, ...]
    token_choice: Need
    resonance: Need
    expert_choice: Need
    held_out: tuple[HeldOut, ...] | None
    splits: int
    between_within: float | None
    calinski_harabasz: float | None
    experts_used: int
    curve: Mapping[str, Any]

    @property
    def name(self) -> str:
        return "centred" if self.centred else "raw"

    def summary(self) -> str:
        return f"{self.name}, {len(self.load)} experts, least capacity {self.token_choice.capacity}"


@dataclass(frozen=True, repr=False)
class LayerAudit(_Short):
    """One tensor: its shape, and its routings. between_within_isotropic: closed form for isotropic tokens;
    repeated: tokens equal to the one before in their sequence, as padding is."""

    name: str
    sequences: int
    tokens: int
    dim: int
    dtype: str
    between_within_isotropic: float | None
    routings: tuple[LayerRouting, ...]
    repeated: int

    def summary(self) -> str:
        return f"{self.name!r}, {self.sequences} x {self.tokens} tokens of {self.dim} features"
