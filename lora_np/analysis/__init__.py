"""What training changed (spectra, subspaces, intruders, agreement) and what it costs (FLOPs, bytes)."""

from .costs import StepBytes, flops_by_phase, predicted_ratio, step_bytes, step_flops, tensor_bytes
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
    energy_share,
    gaussian_similarity,
    principal_angles,
    product_right_directions,
    random_directions,
    right_directions,
    similarity_table,
    subspace_similarity,
)
from .update_and_base import Amplification, Intruders, amplification, intruder_dimensions, max_similarities
from .updates import Cosines, argmax_agreement, linear_updates, truncated_updates, update_cosines, weight_updates
