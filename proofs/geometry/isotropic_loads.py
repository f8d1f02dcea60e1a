"""ETR Assumption 4: does isotropy alone give every expert 1/n of the tokens? Only with gates that r cannot tell apart.

In the plane an isotropic token has a uniform angle and goes to the gate nearest in angle: gate i receives the half-gaps on
both of its sides, π_i = (left gap + right gap)/(4π). Gates at 0°, 60°, 180° receive 1/3, 1/4 and 5/12. Equal norms and
isotropy, LocMoE's Lemma 1 and Assumption 2, do not suffice; what suffices is that permuting the gates is a rotation or
reflection of the space (orthonormal or simplex gates): then the loads are equal by symmetry, which is LocMoE's Lemma 2.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

CASES = [[0, 60, 180], [0, 90], [0, 120, 240], [0, 10, 100, 250]]


def side(share: Callable[..., Any]) -> SimpleNamespace:
    """`share(left, right, n)`: the load of a gate with these gaps, in degrees, to its neighbours."""
    return SimpleNamespace(share=share)


claim = Claim(
    title="Isotropic tokens load experts equally only if the gates are exchangeable",
    statement=r"in the plane $\pi_i=\frac{\mathrm{gap}_{left}+\mathrm{gap}_{right}}{4\pi}$: gates at "
    r"$0^\circ,60^\circ,180^\circ$ get "
    r"$\frac{1}{3},\frac{1}{4},\frac{5}{12}$; if every permutation of the gates is an isometry, $\pi_i=\frac{1}{n}$ in "
    r"every dimension",
    hypotheses=(r"$r$ isotropic, gates of equal norm, top-1",),
    source="ETR Assumption 4, eq. 9 (arXiv 2406.00023); LocMoE Lemma 1, Assumption 2 and Lemma 2 (arXiv 2401.13920)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=side(lambda left, right, n: (left + right) / 720),
    mutant=side(lambda left, right, n: right / 360),
    mutation="the whole gap on one side in place of both halves",
    printed=side(lambda left, right, n: 1 / (n + 0 * left)),
    correction=r"Printed: isotropy gives $\frac{1}{n}$. Gates at $0^\circ,60^\circ,180^\circ$ receive "
    r"$\frac{1}{3},\frac{1}{4},\frac{5}{12}$. "
    r"Orthonormal gates (GrAP with $n$ dividing $d$) or simplex gates are needed besides.",
    lemmas=("invariance of an isotropic law under isometries",),
)


def loads(side: SimpleNamespace, angles: list[int]) -> list[float]:
    gaps = np.diff([*angles, angles[0] + 360])
    return [float(side.share(float(gaps[i - 1]), float(gaps[i]), len(angles))) for i in range(len(angles))]


@claim.derivation("the region of a gate runs from bisector to bisector")
def region_gate_runs_bisector_bisector(side: SimpleNamespace) -> Outcome:
    left, right, angle, n = sp.symbols("l r a n", positive=True)
    low, high = angle - left / 2, angle + right / 2
    # same cosine with both gates at a bisector: the angles to them are equal
    tie = (sp.cos(high - angle), sp.cos(angle + right - high))
    return every(
        [
            identity(*tie, name="difference of affinities at the bisector"),
            identity((high - low) / 360, side.share(left, right, n), name="(high - low)/360 - π_i"),
        ]
    )


@claim.reference("angles counted on a fine ring through the package's affinity")
def angles_counted_fine_ring_through(side: SimpleNamespace) -> Outcome:
    ring = (np.arange(72_000) + 0.5) * (2 * np.pi / 72_000)
    tokens = np.stack([np.cos(ring), np.sin(ring)], axis=1)
    for angles in CASES:
        gates = np.stack([np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))], axis=1)
        best = np.argmax(np.asarray(affinity(tokens, gates=gates)), axis=1)
        counted = np.bincount(best, minlength=len(angles)) / len(ring)
        if np.abs(counted - loads(side, angles)).max() > 1e-4:
            return fails(f"gates at {angles}: counted {counted.round(4)}, claimed {np.round(loads(side, angles), 4)}")
    return holds(f"{len(CASES)} sets of gates agree to 1e-4; 0°, 60°, 180°: 1/3, 1/4, 5/12")


@claim.counterexample("gates at 0°, 60°, 180°")
def counterexample_gates(side: SimpleNamespace) -> Outcome:
    claimed = loads(side, CASES[0])
    text = f"claimed loads {np.round(claimed, 4).tolist()}, bisectors at 30°, 120°, 270° give 120/360, 90/360, 150/360"
    return holds(text) if np.allclose(claimed, [120 / 360, 90 / 360, 150 / 360]) else fails(text)


def sample(rng: np.random.Generator, trials: int, *, angles: list[int]) -> dict[str, int]:
    gates = np.stack([np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))], axis=1)
    scores = np.asarray(affinity(rng.normal(size=(trials, 2)), gates=gates))
    counts = np.bincount(np.argmax(scores, axis=1), minlength=len(angles))
    return {f"expert {i}": int(c) for i, c in enumerate(counts)}


def law(side: SimpleNamespace, *, angles: list[int]) -> dict[str, float]:
    return {f"expert {i}": load for i, load in enumerate(loads(side, angles))}


claim.simulate(sample, cases=[{"angles": angles} for angles in CASES], law=law)
