"""What training changed (spectra, subspaces, intruders, agreement) and what it costs (FLOPs, bytes)."""

from .agreement import Cosines, argmax_agreement, update_cosines
from .amplification import Amplification, amplification
from .costs import StepBytes, flops_by_phase, predicted_ratio, step_bytes, step_flops, tensor_bytes
from .gradients import energy_share, layer_gradients
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
