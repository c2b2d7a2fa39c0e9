"""Adapters: small trainable additions to the linear layers of a frozen model."""

from .adapter import (
    HEAD,
    Adapter,
    adapter_deltas,
    adapter_parts,
    adapter_shapes,
    check_ranks,
    fitting_parts,
    init_adapter,
    start_adapter,
    trained_weights,
    whole_weights,
)
from .compact import compact_pattern, compact_targets
from .config import LINEAR_LAYERS, AdapterConfig, adapted_modules, linear_layers, module_config, module_rank, scaling
from .kinds import KINDS
from .merge import MergeErrors, merge, merge_errors, unmerge
from .merge_in_format import FormatLoss, MergedInFormat, merge_in_format
from .mix import Compressed, compress, mix, on_given_base
from .named import (
    AdapterRow,
    AdapterSet,
    activate,
    active_adapter,
    adapter_set,
    add_adapter,
    add_mix,
    list_adapters,
    remove_adapter,
    row_adapters,
)
from .report import TrainableReport, trainable_report
from .variants import VARIANTS, variant_config

__all__ = [
    "HEAD",
    "KINDS",
    "LINEAR_LAYERS",
    "VARIANTS",
    "Adapter",
    "AdapterConfig",
    "AdapterRow",
    "AdapterSet",
    "Compressed",
    "FormatLoss",
    "MergeErrors",
    "MergedInFormat",
    "TrainableReport",
    "activate",
    "active_adapter",
    "adapted_modules",
    "adapter_deltas",
    "adapter_parts",
    "adapter_set",
    "adapter_shapes",
    "add_adapter",
    "add_mix",
    "check_ranks",
    "compact_pattern",
    "compact_targets",
    "compress",
    "fitting_parts",
    "init_adapter",
    "linear_layers",
    "list_adapters",
    "merge",
    "merge_errors",
    "merge_in_format",
    "mix",
    "module_config",
    "module_rank",
    "on_given_base",
    "remove_adapter",
    "row_adapters",
    "scaling",
    "start_adapter",
    "trainable_report",
    "trained_weights",
    "unmerge",
    "variant_config",
    "whole_weights",
]
