"""V1. A common mean skews the loads; subtracting the sample's own mean token restores them exactly, from two tokens on.

Background tokens N(μ, I), orthonormal gates, m_i = <μ, w_i>, top-1: projections are independent N(m_i, 1), whatever d and the
part of μ off the gates, so π_i = ∫ φ(u - m_i) Π_{j≠i} Φ(u - m_j) du. About m = 0
    ∂π_i/∂m_i = (n-1) ∫ φ² Φ^{n-2} = e_n/n,  ∂π_i/∂m_j = -e_n/(n(n-1)),  e_n = E max of n normals = n(n-1) ∫ φ² Φ^{n-2},
so with a share f of the mean removed π_i = 1/n + (1-f)(m_i - m̄) e_n/(n-1) to first order: only gate coordinates matter, and
only their differences. With the mean of the N tokens themselves, x_k - x̄ ~ N(0, (1 - 1/N) I): exactly isotropic for every
N >= 2, so every load is 1/n in expectation, not only in the limit.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import special

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens.gaussian import Gaussian


def side(share: sp.Rational) -> SimpleNamespace:
    """Centring is claimed to make loads uniform already if this share of the sample mean is subtracted."""
    return SimpleNamespace(share=share)


claim = Claim(
    title="Centring by the sample mean makes the loads of a common-mean background exactly uniform",
    statement=r"$\pi_i=\int\varphi(u-m_i)\prod_{j\neq i}\Phi(u-m_j)\,du=\frac1n+\frac{e_n}{n-1}(m_i-\bar m)+O(|m|^2)$; for the "
    r"tokens $x_k-\bar x$ of a sample of $N\geq 2$ it is exactly $\frac1n$",
    hypotheses=(
        r"background tokens independent $N(\mu,\sigma^2I)$, orthonormal gates, top-1",
        r"$m_i=\langle\mu,w_i\rangle/\sigma$",
    ),
    source="ETR Assumption 4 (arXiv 2406.00023) with a common mean; new",
    tag="V1",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(sp.Integer(1)),
    mutant=side(sp.Rational(9, 10)),
    mutation="nine tenths of the mean subtracted",
    lemmas=("an isotropic normal vector is exchangeable over orthonormal gates",),
)


@claim.derivation("mean and covariance of what is left, and the derivatives of the load at no mean")
def mean_covariance_what_left_derivatives(side: SimpleNamespace) -> Outcome:
    mu, count, n, u = sp.symbols("mu N n u", positive=True)
    f = side.share
    # x_k - f x̄ = (1 - f/N) x_k - (f/N) Σ_{others} x
    weights = (1 - f / count, -f / count)
    variance = weights[0] ** 2 + (count - 1) * weights[1] ** 2
    normal = sp.exp(-(u**2) / 2) / sp.sqrt(2 * sp.pi)
    phi = sp.Function("Phi")
    # by parts: ∫ uφ Φ^{n-1} = (n-1) ∫ φ² Φ^{n-2}, i.e. the derivative of -φ Φ^{n-1} is uφΦ^{n-1} - (n-1) φ² Φ^{n-2}
    total = sp.diff(-normal * phi(u) ** (n - 1), u).subs(sp.Derivative(phi(u), u), normal)
    parts = (total, u * normal * phi(u) ** (n - 1) - (n - 1) * normal**2 * phi(u) ** (n - 2))
    return every(
        [
            identity(
                mu * weights[0], -mu * (count - 1) * weights[1], points=[{mu: 1, count: 5}], name="mean of x_k - f x̄"
            ),
            identity(variance, 1 - (2 * f - f**2) / count, name="variance - (1 - (2f - f²)/N)"),
            identity(*parts, name="integration by parts for e_n"),
        ]
    )


@claim.reference("loads left by centring, and the first order against the exact load")
def loads_left_centring_first_order(side: SimpleNamespace) -> Outcome:
    x, w = special.roots_legendre(400)
    grid = 10 * x
    for gate in ((3.0, 0.0, -1.0, 0.5), (2.0, 2.0, 0.0), (0.0, 5.0, 1.0, 1.0, 1.0, -4.0)):
        n, m = len(gate), np.array(gate)
        left = Gaussian(tuple((1 - float(side.share)) * m), 3.0, 64).load()
        if np.abs(left - 1 / n).max() > 1e-12:
            return fails(f"mean {gate}: loads {np.round(left, 4).tolist()} are left")
        density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
        top = 10 * float(w @ (grid * n * density * special.ndtr(grid) ** (n - 1)))
        for step in (1e-2, 1e-3):
            exact = Gaussian(tuple(step * m), 0.0, 64).load() - 1 / n
            first = step * (m - m.mean()) * top / (n - 1)
            if np.abs(exact - first).max() > 2 * step**2 * float(m @ m):
                return fails(f"first order is off at step {step}, mean {gate}")
    return holds("three means: uniform after centring, first order right to second order")


def sample(rng: np.random.Generator, trials: int, *, gate: list[float], off: float, tokens: int) -> dict[str, int]:
    """One token of each sample, through GrAP gates, with its sample's mean subtracted."""
    n, dim = len(gate), 8 * len(gate)
    basis = np.repeat(np.eye(n), 8, axis=1) / np.sqrt(8.0)
    mean = np.array(gate) @ basis
    mean[:2] += off * np.array([1.0, -1.0]) / np.sqrt(2.0)
    x = rng.standard_normal((trials, tokens, dim)) + mean
    raw = affinity(x[:, 0], n)
    centred = affinity(x[:, 0] - x.mean(axis=1), n)
    return {
        "first expert, raw": int(np.count_nonzero(raw.argmax(axis=-1) == 0)),
        "first expert, centred": int(np.count_nonzero(centred.argmax(axis=-1) == 0)),
    }


def law(side: SimpleNamespace, *, gate: list[float], off: float, tokens: int) -> dict[str, float]:
    f = float(side.share)
    left = (1 - f) * np.array(gate) / np.sqrt(1 - (2 * f - f * f) / tokens)
    return {
        "first expert, raw": float(Gaussian(tuple(gate), off, 8 * len(gate)).load()[0]),
        "first expert, centred": float(Gaussian(tuple(left), 0.0, 8 * len(gate)).load()[0]),
    }


claim.simulate(
    sample,
    cases=[
        {"gate": [6.0, 0.0, -2.0, 1.0], "off": 5.0, "tokens": 2},
        {"gate": [1.0, 0.5, 0.0, 0.0], "off": 0.0, "tokens": 6},
    ],
    law=law,
    trials=60_000,
    full=1_000_000,
)
