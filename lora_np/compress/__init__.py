"""Compressed weights: 4-bit and 8-bit codes that replace arrays, and pruning."""

from .code_points import CODE_POINTS, nearest_point
from .double import double_quantise
from .ggml import BLOCK, BlockWeight, quantise_q4_0, quantise_q4_1, quantise_q8_0, with_offsets_added
from .int8 import Int8Weight, quantise_int8
from .nf4 import NF4Weight, pack, quantise_nf4, unpack
from .prune import magnitude_mask, n_of_m_mask, prune_magnitude, prune_n_of_m
from .quantise import FORMATS, quantisation_error, quantise, requantise, weight_bytes
from .weight import QuantisedWeight

__all__ = [
    "BLOCK", "BlockWeight", "CODE_POINTS", "FORMATS", "Int8Weight", "NF4Weight", "QuantisedWeight",
    "double_quantise", "magnitude_mask", "n_of_m_mask", "nearest_point", "pack", "prune_magnitude",
    "prune_n_of_m", "quantisation_error", "quantise", "quantise_int8", "quantise_nf4", "quantise_q4_0",
    "quantise_q4_1", "quantise_q8_0", "requantise", "unpack", "weight_bytes", "with_offsets_added",
]  # fmt: skip
