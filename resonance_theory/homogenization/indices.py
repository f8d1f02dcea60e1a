"""Homogenization measured on data: how far apart are the tokens of different experts?

Calinski-Harabasz, centroid cosines, linear CKA, dispatch entropy and information, dispersion of loads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments

__all__ = [
    "calinski_harabasz",
    "centroid_cosines",
    "centroids",
    "dispatch_entropy",
    "dispatch_information",
    "linear_cka",
    "linear_cka_chance",
    "load_cv",
    "load_cv_rms",
    "load_gini",
    "scatter",
]

Floats = NDArray[np.float64]


def _namespace(**arrays: Any) -> Any:
    """The array library of the arguments; one sentence for what is no array of one library."""
    for name, value in arrays.items():
        if not is_array_api_obj(value):
            raise TypeError(f"{name} is a {type(value).__name__} but must be an array of numbers")
    try:
        return array_namespace(*arrays.values())
    except TypeError:
        raise TypeError(f"{' and '.join(arrays)} must be arrays of one library") from None


def _tokens(x: Any, name: str = "x") -> Any:
    xp = _namespace(**{name: x})
    if x.ndim != 2 or x.shape[0] == 0:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)} but must have shape (tokens, features) with at least one token"
        )
    if not xp.isdtype(x.dtype, "real floating"):
        raise TypeError(f"{name} has dtype {x.dtype} but must hold real floating-point numbers")
    if x.dtype not in (xp.float32, xp.float64):
        x = xp.astype(x, xp.float32)
    if not bool(xp.all(xp.isfinite(x))):
        raise ValueError(f"{name} holds non-finite entries but every one must be finite")
    return x


def _membership(x: Any, labels: Any) -> Any:
    """One-hot membership (tokens, groups) of the groups that occur, in x's dtype."""
    xp = _namespace(x=x)
    labels = xp.asarray(labels)
    if tuple(labels.shape) != (x.shape[0],):
        raise ValueError(f"labels has shape {tuple(labels.shape)} but must have shape ({x.shape[0]},), one per token")
    if not xp.isdtype(labels.dtype, "integral"):
        raise TypeError(f"labels has dtype {labels.dtype} but must hold whole numbers, the expert of each token")
    present = xp.unique_values(labels)
    return xp.astype(labels[:, None] == present[None, :], x.dtype)


def centroids(x: Any, labels: Any) -> tuple[Any, Any]:
    """Mean token (groups, features) and number of tokens (groups,) of every expert that received some, by its index.

    x: (tokens, features) floats; labels: (tokens,) integers. NumPy, torch or any array-API library.

    >>> import numpy as np
    >>> import resonance_theory as rt
    >>> x, labels = np.random.default_rng(0).standard_normal((16, 4)), np.arange(16) % 2
    >>> print(f"{float(rt.homogenization.centroids(x, labels)[0][0, 0]):.6g}")
    0.0743018
    """
    x = _tokens(x)
    xp = _namespace(x=x)
    member = _membership(x, labels)
    count = xp.sum(member, axis=0)
    return xp.matmul(member.T, x) / count[:, None], count


def scatter(x: Any, labels: Any) -> tuple[Any, Any]:
    """Between-group and within-group sums of squares, Σ n_i |c_i - c|² and Σ_t |x_t - c_{i(t)}|².

    >>> import numpy as np
    >>> import resonance_theory as rt
    >>> x, labels = np.random.default_rng(0).standard_normal((16, 4)), np.arange(16) % 2
    >>> print(f"{float(rt.homogenization.scatter(x, labels)[0]):.6g}")
    2.77547
    """
    x = _tokens(x)
    xp = _namespace(x=x)
    x = x - xp.mean(x, axis=0)  # both are translation invariant; centred sums lose no digits to a common mean
    member = _membership(x, labels)
    count = xp.sum(member, axis=0)
    centre = xp.matmul(member.T, x) / count[:, None]
    between = xp.sum(count * xp.sum(centre * centre, axis=1))
    rest = x - xp.matmul(member, centre)
    return between, xp.sum(rest * rest)


def calinski_harabasz(x: Any, labels: Any, *, normalized: bool = True) -> Any:
    """Calinski-Harabasz index of the experts' tokens: larger means less homogenized.

    normalized=True is the standard index, (between/(k-1)) / (within/(N-k)); False is between/within as ETR eq. 13
    prints it, which tends to `token_choice_scatter` for isotropic tokens. x: (N, features); labels: (N,) integers.
    Raises ValueError with fewer than two experts in use, and (normalized) unless N exceeds their number. Infinite when
    every token equals its centroid.

    >>> import numpy as np
    >>> import resonance_theory as rt
    >>> x, labels = np.random.default_rng(0).standard_normal((16, 4)), np.arange(16) % 2
    >>> print(f"{float(rt.homogenization.calinski_harabasz(x, labels)):.6g}")
    0.802055
    """
    x = _tokens(x)
    xp = _namespace(x=x)
    groups = int(xp.unique_values(xp.asarray(labels)).shape[0])
    if groups < 2:
        raise ValueError(f"labels name {groups} expert but must name at least 2")
    if normalized and x.shape[0] <= groups:
        raise ValueError(f"x has {x.shape[0]} tokens but must have more than the {groups} experts in use")
    between, within = scatter(x, labels)
    factor = (x.shape[0] - groups) / (groups - 1) if normalized else 1.0
    if float(within) == 0.0:
        return within + math.inf if float(between) > 0 else within + math.nan
    return factor * between / within


def centroid_cosines(x: Any, labels: Any) -> Any:
    """Cosines (groups, groups) between the experts' centroids about the mean token; -1/(n-1) off the diagonal for
    isotropic tokens, near 1 after collapse onto one direction. A centroid at the mean has cosine 0 with all.

    >>> import numpy as np
    >>> import resonance_theory as rt
    >>> x, labels = np.random.default_rng(0).standard_normal((16, 4)), np.arange(16) % 2
    >>> print(f"{float(rt.homogenization.centroid_cosines(x, labels)[0, 1]):.6g}")
    -1
    """
    x = _tokens(x)
    xp = _namespace(x=x)
    centre, _ = centroids(_scaled(xp, x - xp.mean(x, axis=0)), labels)
    norm = xp.sqrt(xp.sum(centre * centre, axis=1, keepdims=True))
    unit = xp.where(norm > 0, centre / xp.where(norm > 0, norm, xp.ones_like(norm)), xp.zeros_like(centre))
    return xp.matmul(unit, unit.T)


def linear_cka(a: Any, b: Any) -> Any:
    """Linear centred kernel alignment of two experts' outputs on the same tokens, in [0, 1]; 1 for equal ones.

    a: (tokens, p), b: (tokens, q) floats. Source: Kornblith et al. (2019), eq. 4. NaN if either is constant. Unrelated
    outputs do not give 0 but `linear_cka_chance`.

    >>> import numpy as np
    >>> import resonance_theory as rt
    >>> x, labels = np.random.default_rng(0).standard_normal((16, 4)), np.arange(16) % 2
    >>> print(f"{float(rt.homogenization.linear_cka(x[:8], x[8:])):.6g}")
    0.342194
    """
    a, b, xp = _pair(a, b)
    cross = xp.matmul(b.T, a)
    product = _gram_norm(a) * _gram_norm(b)
    return xp.sum(cross * cross) / product if float(product) > 0 else product + math.nan


def linear_cka_chance(a: Any, b: Any) -> Any:
    """Mean of `linear_cka(a, b)` had b met the tokens at random: tr K tr L / ((tokens - 1) |K| |L|), K and L centred Gram.

    Exact, given the outputs' own covariances, when b's centred outputs are turned by a uniformly random rotation of the
    space of tokens (as for Gaussian outputs independent of a): E[Q L Q^T] = tr L/(tokens - 1) I there by Schur's lemma.
    It is also the exact mean over random matchings of b's tokens with a's. Needs at least two tokens.

    Claim: cka_chance.

    >>> import numpy as np
    >>> import resonance_theory as rt
    >>> x, labels = np.random.default_rng(0).standard_normal((16, 4)), np.arange(16) % 2
    >>> print(f"{float(rt.homogenization.linear_cka_chance(x[:8], x[8:])):.6g}")
    0.399741
    """
    a, b, xp = _pair(a, b)
    if a.shape[0] < 2:
        raise ValueError("a and b have 1 token but must have at least 2")
    product = _gram_norm(a) * _gram_norm(b)
    traces = xp.sum(a * a) * xp.sum(b * b)
    return traces / (product * (a.shape[0] - 1)) if float(product) > 0 else product + math.nan


def _pair(a: Any, b: Any) -> tuple[Any, Any, Any]:
    a, b = _tokens(a, "a"), _tokens(b, "b")
    xp = _namespace(a=a, b=b)
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"a and b have {a.shape[0]} and {b.shape[0]} tokens but must have the same ones")
    return _scaled(xp, a - xp.mean(a, axis=0)), _scaled(xp, b - xp.mean(b, axis=0)), xp


def _scaled(xp: Any, x: Any) -> Any:
    """x over its largest entry, for measures that scale does not change: fourth powers must neither overflow nor vanish."""
    largest = xp.max(xp.abs(x))
    return x / xp.where(largest > 0, largest, xp.ones_like(largest))


def _gram_norm(m: Any) -> Any:
    """Frobenius norm of m m^T, by the smaller of the two Gram matrices."""
    xp = _namespace(m=m)
    gram = xp.matmul(m.T, m) if m.shape[1] <= m.shape[0] else xp.matmul(m, m.T)
    return xp.sqrt(xp.sum(gram * gram))


def _loads(load: ArrayLike) -> Floats:
    values = arguments.real("load", load, 0.0)
    if values.ndim == 0 or values.shape[-1] < 1:
        raise ValueError("load must have a last axis of experts")
    largest = values.max(axis=-1, keepdims=True)
    if np.any(largest <= 0):
        raise ValueError("load sums to 0 over its experts but must have a positive total")
    return values / largest  # only ratios matter, and sums must not overflow


def dispatch_entropy(load: ArrayLike) -> Floats:
    """Entropy in nats of the experts' shares of the tokens, over the last axis: ln n if balanced, 0 for one expert.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.dispatch_entropy([10, 20, 30])):.6g}")
    1.0114
    """
    from scipy.special import entr

    values = _loads(load)
    return entr(values / values.sum(axis=-1, keepdims=True)).sum(axis=-1)


def dispatch_information(table: ArrayLike) -> float:
    """Mutual information in nats between a token's group (rows) and its expert (columns), from their counts.

    The plug-in estimate: biased upwards by about (rows-1)(columns-1)/(2 N); where groups have nothing to do with experts its mean
    is at most log(1 + (rows-1)(columns-1)/(N-1)) (claim dispatch_chance).

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.dispatch_information([[9, 1], [1, 9]])):.6g}")
    0.368064
    """
    from scipy.special import entr

    counts = arguments.real("table", table, 0.0)
    if counts.ndim != 2 or not np.any(counts > 0):
        raise ValueError(f"table has shape {counts.shape} but must have shape (groups, experts) and a positive total")
    p = counts / counts.max()
    p /= p.sum()
    return float(entr(p.sum(axis=0)).sum() + entr(p.sum(axis=1)).sum() - entr(p).sum())


def load_cv(load: ArrayLike) -> Floats:
    """Coefficient of variation (population standard deviation over mean) of the loads over the last axis.

    `load_cv_rms` is what chance alone leaves of it.

    Claim: load_dispersion.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.load_cv([10, 20, 30])):.6g}")
    0.408248
    """
    values = _loads(load)
    return values.std(axis=-1) / values.mean(axis=-1)


@arguments.broadcasting
def load_cv_rms(tokens: ArrayLike, share: ArrayLike) -> Floats:
    """Root mean square of `load_cv` when each of N tokens takes its expert independently with the shares π (..., n).

    sqrt(n Σπ² - 1 + n (1 - Σπ²)/N), which for equal shares is sqrt((n-1)/N): what chance alone leaves of imbalance.
    tokens: whole numbers of at least 1, broadcast against the leading axes of share, which sums to 1.

    Claim: load_dispersion.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.load_cv_rms(256, [0.125] * 8)):.6g}")
    0.165359
    """
    count = arguments.integer("tokens", tokens, 1)
    p = arguments.distribution("share", share)
    n = p.shape[-1]
    excess = n * ((p - 1 / n) ** 2).sum(axis=-1)  # n Σπ² - 1 without cancellation
    return np.sqrt(excess + (n - 1 - excess) / count)


def load_gini(load: ArrayLike) -> Floats:
    """Gini coefficient of the loads over the last axis: 0 when balanced, 1 - 1/n when one expert has all.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.load_gini([10, 20, 30])):.6g}")
    0.222222
    """
    values = np.sort(_loads(load), axis=-1)
    n = values.shape[-1]
    return (values * (2 * np.arange(1, n + 1) - n - 1)).sum(axis=-1) / (n * values.sum(axis=-1))
