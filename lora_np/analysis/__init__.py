"""Measure what training changed (spectra, subspaces, intruder dimensions) and what it costs (FLOPs, bytes)."""

from .costs import flops_by_phase, predicted_ratio, step_bytes, step_flops, tensor_bytes
from .spectra import (
    effective_rank,
    product_singular_values,
    rank_at_energy,
    singular_values,
    spectrum,
    stable_rank,
    truncate,
)
from .subspaces import (
    energy_share,
    gaussian_similarity,
    product_right_directions,
    random_directions,
    right_directions,
    similarity_table,
    subspace_similarity,
)
from .update_and_base import Amplification, amplification, intruder_dimensions, max_similarities
from .updates import linear_updates, truncated_updates, weight_updates

__all__ = [
    "Amplification", "amplification", "effective_rank", "energy_share", "flops_by_phase", "gaussian_similarity",
    "intruder_dimensions", "linear_updates", "max_similarities", "predicted_ratio", "product_right_directions",
    "product_singular_values", "random_directions", "rank_at_energy", "right_directions", "similarity_table",
    "singular_values", "spectrum", "stable_rank", "step_bytes", "step_flops", "subspace_similarity", "tensor_bytes",
    "truncate", "truncated_updates", "weight_updates",
]  # fmt: skip
