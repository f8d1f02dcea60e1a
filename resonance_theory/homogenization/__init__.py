"""How alike experts become: indices of data, their closed forms, and scatter over the cells of any gates."""

from resonance_theory.homogenization.closed_forms import (
    expected_max,
    kept_means,
    resonance_scatter,
    simplex_norm,
    skewed_scatter,
    token_choice_scatter,
)
from resonance_theory.homogenization.indices import (
    calinski_harabasz,
    centroid_cosines,
    centroids,
    dispatch_entropy,
    dispatch_information,
    linear_cka,
    linear_cka_chance,
    load_cv,
    load_cv_rms,
    load_gini,
    scatter,
)

__all__ = [
    "calinski_harabasz",
    "centroid_cosines",
    "centroids",
    "dispatch_entropy",
    "dispatch_information",
    "expected_max",
    "kept_means",
    "linear_cka",
    "linear_cka_chance",
    "load_cv",
    "load_cv_rms",
    "load_gini",
    "resonance_scatter",
    "scatter",
    "simplex_norm",
    "skewed_scatter",
    "token_choice_scatter",
]
