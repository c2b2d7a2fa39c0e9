"""Looking at what training changed: spectra, ranks, truncated updates, sizes in bytes."""

from .sizes import tensor_bytes
from .spectra import (
    Spectrum,
    effective_rank,
    rank_at_energy,
    singular_values,
    spectrum,
    stable_rank,
    truncate,
)
from .updates import linear_updates, truncated_updates, weight_updates

__all__ = [
    "Spectrum",
    "effective_rank",
    "linear_updates",
    "rank_at_energy",
    "singular_values",
    "spectrum",
    "stable_rank",
    "tensor_bytes",
    "truncate",
    "truncated_updates",
    "weight_updates",
]
