"""Adapters: small trainable additions to the linear layers of a frozen model."""

from .adapter import (
    HEAD,
    Adapter,
    TrainableReport,
    adapter_deltas,
    adapter_shapes,
    check_ranks,
    fitting_arrays,
    init_adapter,
    layer_arrays,
    start_adapter,
    trainable_report,
    trained_weights,
    whole_weights,
)
from .compact import compact_pattern, compact_targets
from .config import AdapterConfig, adapted_modules, linear_layers, module_config, module_rank, scaling
from .kinds import KINDS
from .merge import FormatLoss, MergedInFormat, MergeErrors, merge, merge_errors, merge_in_format, unmerge
from .mix import Compressed, compress, mix, on_given_base
from .variants import VARIANTS, variant_config
