"""Looking at what training changed (spectra, ranks, truncated updates) and at what it costs (FLOPs, bytes)."""

from .flops import flops_by_kind, flops_by_phase, predicted_ratio, step_flops
from .memory import StepBytes, step_bytes
from .sizes import tensor_bytes
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
from .updates import linear_updates, truncated_updates, weight_updates

__all__ = [
    "Spectrum",
    "StepBytes",
    "effective_rank",
    "flops_by_kind",
    "flops_by_phase",
    "linear_updates",
    "predicted_ratio",
    "product_singular_values",
    "rank_at_energy",
    "singular_values",
    "spectrum",
    "stable_rank",
    "step_bytes",
    "step_flops",
    "tensor_bytes",
    "truncate",
    "truncated_updates",
    "weight_updates",
]
