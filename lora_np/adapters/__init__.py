"""Adapters: small trainable additions to the linear layers of a frozen model."""

from .adapter import (
    HEAD,
    Adapter,
    adapter_deltas,
    adapter_shapes,
    check_ranks,
    fitting_arrays,
    head_arrays,
    init_adapter,
    layer_arrays,
    start_adapter,
    trainable_report,
    trained_weights,
    whole_weights,
)
from .compact import compact_pattern, compact_targets
from .config import AdapterConfig, adapted_modules, linear_layers, module_config, module_rank, scaling
from .kinds import KINDS, VARIANTS, variant_config
from .merge import merge, merge_errors, merge_in_format, unmerge
from .mix import compress, for_original_base, mix

__all__ = [
    "Adapter", "AdapterConfig", "HEAD", "KINDS", "VARIANTS", "adapted_modules", "adapter_deltas",
    "adapter_shapes", "check_ranks", "compact_pattern", "compact_targets", "compress", "fitting_arrays",
    "for_original_base", "head_arrays", "init_adapter", "layer_arrays", "linear_layers", "merge", "merge_errors",
    "merge_in_format", "mix", "module_config", "module_rank", "scaling", "start_adapter", "trainable_report",
    "trained_weights", "unmerge", "variant_config", "whole_weights",
]  # fmt: skip
