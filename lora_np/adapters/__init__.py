"""Adapters: small trainable additions to the linear layers of a frozen model."""

from .adapter import (
    Adapter,
    adapter_deltas,
    adapter_parts,
    adapter_shapes,
    fitting_parts,
    init_adapter,
    whole_weights,
)
from .config import LINEAR_LAYERS, AdapterConfig, adapted_modules, module_config, scaling
from .kinds import KINDS
from .merge import merge, unmerge
from .report import TrainableReport, trainable_report

__all__ = [
    "KINDS",
    "LINEAR_LAYERS",
    "Adapter",
    "AdapterConfig",
    "TrainableReport",
    "adapted_modules",
    "adapter_deltas",
    "adapter_parts",
    "adapter_shapes",
    "fitting_parts",
    "init_adapter",
    "merge",
    "module_config",
    "scaling",
    "trainable_report",
    "unmerge",
    "whole_weights",
]
