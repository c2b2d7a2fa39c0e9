"""Compression of weights: 4-bit and 8-bit codes that replace arrays, and pruning."""

from .code_points import CODE_POINTS, expected_error, nearest_point, nf4_code_points
from .double import DoubleQuantised, double_quantise
from .ggml import BLOCK, BlockWeight, quantise_q4_0, quantise_q4_1, quantise_q8_0, with_offsets_added
from .int8 import Int8Weight, quantise_int8
from .nf4 import NF4Weight, pack, quantise_nf4, unpack
from .prune import magnitude_mask, n_of_m_mask, prune_magnitude, prune_n_of_m
from .quantise import FORMATS, held_bytes, quantisation_error, quantise, requantise
from .weight import QuantisedWeight
