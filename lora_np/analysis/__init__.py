"""Looking at what training changed (spectra, subspaces, intruders, distances) and at what it costs (FLOPs, bytes)."""

from .amplification import Amplification, amplification
from .costs import StepBytes, flops_by_phase, predicted_ratio, step_bytes, step_flops, tensor_bytes
from .distances import PerLayer, argmax_agreement, mean_kl, update_cosines, weight_distances
from .gradient_spectra import energy_share, gradient_spectra, layer_gradients, noted_spectra, noting_spectra
from .intruders import Intruders, intruder_dimensions, max_similarities
from .spectra import (
    Spectrum,
    effective_rank,
    product_singular_values,
    rank_at_energy,
    singular_values,
    spectrum,
    stable_rank,
    truncate,
)
from .subspaces import (
    gaussian_similarity,
    principal_angles,
    product_right_directions,
    random_directions,
    right_directions,
    similarity_table,
    subspace_similarity,
)
from .updates import linear_updates, truncated_updates, weight_updates

__all__ = [
    "Amplification",
    "Intruders",
    "PerLayer",
    "Spectrum",
    "StepBytes",
    "amplification",
    "argmax_agreement",
    "effective_rank",
    "energy_share",
    "flops_by_phase",
    "gaussian_similarity",
    "gradient_spectra",
    "intruder_dimensions",
    "layer_gradients",
    "linear_updates",
    "max_similarities",
    "mean_kl",
    "noted_spectra",
    "noting_spectra",
    "predicted_ratio",
    "principal_angles",
    "product_right_directions",
    "product_singular_values",
    "random_directions",
    "rank_at_energy",
    "right_directions",
    "similarity_table",
    "singular_values",
    "spectrum",
    "stable_rank",
    "step_bytes",
    "step_flops",
    "subspace_similarity",
    "tensor_bytes",
    "truncate",
    "truncated_updates",
    "update_cosines",
    "weight_distances",
    "weight_updates",
]
