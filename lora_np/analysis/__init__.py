"""What training changed (spectra, subspaces, intruders, distances) and what it costs (FLOPs, bytes)."""

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
