"""Audit of real tokens: hidden states in, measured assumptions of the theory and the capacity they call for out.

The theory assumes a uniform load (ETR Assumption 4) and independent tokens. Real tokens share a mean, which skews the
load, and neighbours share routes, which spreads the loads of a sequence beyond the binomial law. The audit
measures both, predicts the drop with and without them, and gives the capacity that each routing rule needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.audit.counts import Fit, fit
from resonance_theory.audit.files import Layer, read, read_gates
from resonance_theory.audit.log_blocks import mixed_documents
from resonance_theory.audit.log_result import LawError, LoadDrop, LogLayer, Remedy
from resonance_theory.audit.logs import LogReport, audit_log
from resonance_theory.audit.policy_law import PolicyTable, judge_policies
from resonance_theory.audit.report import AuditReport
from resonance_theory.audit.result import Affinity, Drop, Estimate, HeldOut, LayerAudit, LayerRouting, Need

__all__ = [
    "Affinity",
    "AuditReport",
    "Drop",
    "Estimate",
    "Fit",
    "HeldOut",
    "LawError",
    "LayerAudit",
    "LayerRouting",
    "LoadDrop",
    "LogLayer",
    "LogReport",
    "Need",
    "PolicyTable",
    "Remedy",
    "audit",
    "audit_log",
    "example",
    "fit",
    "judge_policies",
    "mixed_documents",
]


def example() -> Path:
    """The embedded hidden states of a small sentence encoder: 8 sequences of 256 tokens, 384 features, 3 layers."""
    return Path(__file__).parents[1] / "data" / "hidden_states.safetensors"


def audit(
    source: Any,
    *,
    experts: int | None = None,
    center: bool | None = None,
    gates: Any = None,
    inner: bool = False,
    top: int = 1,
    capacity_factors: Sequence[float] = (1.0, 1.1, 1.25, 2.0),
    target_loss: float = 0.01,
) -> AuditReport:
    """Audit hidden states, layer by layer, against the assumptions of the routing laws.

    source: a .safetensors or .npy file, an array, or a mapping of names to arrays. Floating-point tensors (float16,
        bfloat16, float32, float64) of shape (sequences, positions, features) or (tokens, features), which is one
        sequence, are layers; other tensors are named as ignored.
    experts: number of GrAP gates, 8 unless given; it must divide the number of features.
    gates: your own gates instead, (experts, features), as an array or a file.
    inner: True scores tokens by inner products with the given gates, as a linear router's logits do, not by cosines.
    center: True routes tokens minus their mean, False the tokens as they are, None reports both.
    top: experts per token, below their number. capacity_factors: positive; capacity = ceil(factor * top * s / n).
    target_loss: in (0, 1), the loss for which the capacities are computed.

    Raises ValueError, TypeError or FileNotFoundError, one sentence each. Deterministic. Files are mapped, not loaded.
    """
    factors = arguments.real("capacity_factors", capacity_factors, 0.0, open_low=True)
    if factors.ndim != 1 or factors.size == 0:
        raise ValueError(f"capacity_factors has shape {factors.shape} but must be a list of at least one number")
    loss = arguments.real("target_loss", target_loss, 0.0, 1.0, open_low=True, open_high=True)
    if loss.ndim:
        raise ValueError(f"target_loss has shape {loss.shape} but must be one number in (0, 1)")
    if center is not None and not isinstance(center, (bool, np.bool_)):
        raise TypeError(f"center = {center!r} must be True, False or None (both)")
    if not isinstance(inner, (bool, np.bool_)) or (inner and gates is None):
        raise TypeError(f"inner = {inner!r} must be False, or True with gates")
    matrix = None if gates is None else read_gates(gates)
    count = _one("experts", experts, 2) if experts is not None else 8 if matrix is None else len(matrix)
    if matrix is not None and count != len(matrix):
        raise ValueError(f"experts = {count} must be left out or be {len(matrix)}, the number of the given gates")
    number = _one("top", top, 1, count - 1)
    hidden = read(source)
    for layer in hidden.layers:
        _fits(layer, count, matrix)

    from resonance_theory.audit.measure import Setting, measure

    setting = Setting(
        experts=count,
        top=number,
        gates=matrix,
        orthogonal=matrix is None or (not inner and _orthogonal(matrix)),
        inner=bool(inner),
        factors=tuple(factors.tolist()),
        loss=float(loss),
    )
    centred = (False, True) if center is None else (bool(center),)
    return AuditReport(
        source=hidden.source,
        gates="GrAP" if matrix is None else "logits" if inner else "given",
        experts=count,
        top=number,
        loss=float(loss),
        layers=tuple(measure(layer, setting, centred) for layer in hidden.layers),
        ignored=hidden.ignored,
        metadata=dict(hidden.metadata),
    )


def _one(name: str, value: Any, low: int, high: int | None = None) -> int:
    array = arguments.integer(name, value, low, high, "experts - 1" if high is not None else "")
    if array.ndim:
        raise ValueError(f"{name} has shape {array.shape} but must be one whole number")
    return int(array)


def _fits(layer: Layer, experts: int, gates: NDArray[np.float64] | None) -> None:
    """Refuse a layer that the gates do not fit before any work is done."""
    dim = layer.data.shape[-1]
    if gates is not None:
        if gates.shape[1] != dim:
            raise ValueError(f"gates have {gates.shape[1]} features but {layer.where} has {dim}: they must agree")
        return
    from resonance_theory.gates import grap_gates

    try:
        grap_gates(dim, experts)
    except ValueError as problem:
        raise ValueError(f"{layer.where}: {problem}") from None


def _orthogonal(gates: NDArray[np.float64]) -> bool:
    """Whether the gates' directions are orthogonal, as the isotropic formulas need (only directions matter)."""
    if len(gates) > gates.shape[1]:
        return False
    unit = gates / np.abs(gates).max(axis=1, keepdims=True)
    unit /= np.sqrt(np.square(unit).sum(axis=1, keepdims=True))
    return bool(np.abs(unit @ unit.T - np.eye(len(gates))).max() < 1e-6)
