"""llama.cpp's block formats: every 32 consecutive weights in a row share a scale and have codes of 4 or 8 bits.

A block consists of float16 values (a scale d and, in Q4_1, an offset m), followed by the codes q:

    format   bytes of a block             bits per weight   weight
    Q8_0     d, 32 codes of 8 bits   34   8.5               d q,        q = −127 … 127
    Q4_0     d, 16 bytes             18   4.5               d (q − 8),  q = 0 … 15
    Q4_1     d, m, 16 bytes          20   5.0               d q + m,    q = 0 … 15

In Q4_0 and Q4_1, byte j of the 16 code bytes contains the code of weight j in its low half and that of weight j + 16 in
its high half. So the low halves of all bytes, followed by the high halves, are the codes in order. The offset makes
Q4_1 more accurate than Q4_0 for weights that are not centred at 0: its 16 levels range from the block's smallest weight
to its largest. (See ggml-common.h and ggml-quants.c in llama.cpp. The results are bit-identical to those of the `gguf`
package.) `k_quants.py` has three formats with larger blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .k_quants import float16, q4_k, q5_k, q6_k
from .weight import QuantisedWeight, check_weight, read_only

BLOCK = 32  # weights, except in K-quants
PIECE = 2**19  # weights that are expanded at once (to 2 MB), so that intermediate results stay in a core's cache


@dataclass(frozen=True, eq=False, repr=False)
class BlockWeight(QuantisedWeight):
    """A matrix in one of the block formats. Each block lies within one row."""

    blocks: np.ndarray  # (out, bytes of a row) uint8; may be part of a memory-mapped file
    format: str  # a key of `LAYOUTS`
    dtype: np.dtype = np.dtype(np.float32)  # of the dense array; float64 is converted from float32

    settings = {}  # none

    def __post_init__(self):
        object.__setattr__(self, "dtype", np.dtype(self.dtype))  # `replace(weight, dtype=np.float64)` passes a type

    @property
    def shape(self):
        (n_out, n_bytes), layout = self.blocks.shape, LAYOUTS[self.format]
        return n_out, n_bytes // layout.bytes * layout.weights

    def is_finite(self):
        """Whether all weights are finite, which depends only on the scales and offsets."""
        layout = LAYOUTS[self.format]
        header = np.ascontiguousarray(self.blocks.reshape(-1, layout.bytes)[:, layout.header])
        return bool(np.isfinite(header.view("<f2")).all())

    def rows(self, ids):
        """The dense rows with these indices, as a new array (..., in) of `dtype`."""
        return expand(self.blocks[ids], self.format).astype(self.dtype, copy=False)


def expand(rows, format):
    """Expand rows of blocks to weights: (..., bytes of a row) uint8 -> (..., in) float32.

    Each step is one NumPy call on a piece of up to 2¹⁹ weights. The overhead of NumPy's inner loops, about 7 ns each,
    dominates the running time. Multiplying by the scale and adding the offset take one inner loop per scale; every
    other step of the formats with 32 weights takes one inner loop per piece.
    """
    layout = LAYOUTS[format]
    dense = np.empty((*rows.shape[:-1], rows.shape[-1] // layout.bytes * layout.weights), np.float32)
    blocks, numbers = rows.reshape(-1, layout.bytes), dense.reshape(-1, layout.weights)  # (n, bytes), (n, 32 or 256)
    n_blocks = PIECE // layout.weights
    for start in range(0, len(blocks), n_blocks):
        codes, scales, offsets = layout.unpack(blocks[start : start + n_blocks])
        out = numbers[start : start + n_blocks].reshape(codes.shape)
        out[:] = codes
        out *= scales
        if offsets is not None:
            out += offsets
    return dense


def q8_0(blocks):
    """Unpack blocks (n, 34) uint8: codes (n, 32) int8, scales (n, 1) float32, and no offsets."""
    return blocks[:, 2:].view(np.int8), float16(blocks[:, :2]), None


def q4_0(blocks):
    """Unpack blocks (n, 18) uint8; see `q8_0`."""
    codes = halves(blocks[:, 2:])
    codes -= 8  # wraps around below 0, and the view as int8 restores the sign
    return codes.view(np.int8), float16(blocks[:, :2]), None


def q4_1(blocks):
    """Unpack blocks (n, 20) uint8: codes (n, 32) uint8, scales and offsets, both (n, 1) float32."""
    return halves(blocks[:, 4:]).view(np.int8), float16(blocks[:, :2]), float16(blocks[:, 2:4])


class Layout(NamedTuple):
    """How a format stores a block."""

    weights: int
    bytes: int
    header: slice  # of the float16 values among the bytes
    unpack: Callable  # blocks (n, bytes) uint8 -> codes, scales and offsets (or None), such that w = scale q + offset


LAYOUTS = {
    "q8_0": Layout(32, 34, slice(0, 2), q8_0),
    "q4_0": Layout(32, 18, slice(0, 2), q4_0),
    "q4_1": Layout(32, 20, slice(0, 4), q4_1),
    "q4_k": Layout(256, 144, slice(0, 4), q4_k),
    "q5_k": Layout(256, 176, slice(0, 4), q5_k),
    "q6_k": Layout(256, 210, slice(208, 210), q6_k),
}


def halves(codes):
    """The low halves of each block's bytes, then the high halves: (n, 16) uint8 -> (n, 32) uint8.

    Eight bytes are shifted and masked at a time. The mask also clears the bits that the shift moves into another byte.
    """
    words = np.ascontiguousarray(codes).view(np.uint64)  # (n, 2)
    unpacked = np.empty((len(codes), 2), "V16")
    for half in (0, 1):
        unpacked[:, half] = (words >> 4 * half & 0x0F0F0F0F0F0F0F0F).view("V16")[:, 0]
    return unpacked.view(np.uint8)


def quantise_q8_0(weight):
    """Quantise a matrix to Q8_0.

        d = max_i |w_i| / 127        q_i = w_i / d, rounded

    Ties are rounded away from zero. The rounding error is approximately uniform in [−d/2, d/2]. Storing d in float16
    adds a relative error of at most 2⁻¹¹ to each weight.

    Parameters
    ----------
    weight : array (out, in), float32, or float64 (rounded to float32 first)

    Returns
    -------
    BlockWeight, of the weight's dtype

    Raises
    ------
    TypeError, ValueError
        If the weight is not a finite float32 or float64 matrix, 32 does not divide `in`, or a scale overflows float16.
    """
    blocks = blocks_of(weight)  # (n, 32)
    d = np.abs(blocks).max(axis=1, keepdims=True) / 127
    scaled = blocks * inverse(d)
    size = np.abs(scaled)
    whole = np.floor(size)
    codes = np.copysign(whole + np.floor(2 * (size - whole)), scaled)  # exact, unlike floor(size + 0.5)
    return block_weight("q8_0", weight, d, codes.astype(np.int8))


def quantise_q4_0(weight):
    """Quantise a matrix to Q4_0, with the same arguments and exceptions as `quantise_q8_0`.

        d = w_k / −8, where |w_k| is largest        q_i = w_i / d + 8, rounded, at most 15

    The weight with the largest magnitude gets code 0, which stands for −8 d, because the range −8 … 7 extends further
    on the negative side.
    """
    blocks = blocks_of(weight)  # (n, 32)
    d = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1) / -8  # (n, 1)
    return block_weight("q4_0", weight, d, packed(blocks * inverse(d) + np.float32(8.5)))


def quantise_q4_1(weight):
    """Quantise a matrix to Q4_1, with the same arguments and exceptions as `quantise_q8_0`.

    m = min_i w_i        d = (max_i w_i − m) / 15        q_i = (w_i − m) / d, rounded
    """
    blocks = blocks_of(weight)  # (n, 32)
    m = blocks.min(axis=1, keepdims=True)
    d = (blocks.max(axis=1, keepdims=True) - m) / 15
    scales = np.concatenate([d, m], axis=1)  # (n, 2)
    return block_weight("q4_1", weight, scales, packed((blocks - m) * inverse(d) + np.float32(0.5)))


def with_offsets_added(weight, change):
    """Add one value per block to the weights of a Q4_1 matrix: m′ = m + c. Scales and codes do not change.

    m′ is rounded to float16, with a relative error of at most 2⁻¹¹. There is no other error.

    Parameters
    ----------
    weight : BlockWeight in Q4_1
    change : array (out, in/32), c

    Returns
    -------
    BlockWeight

    Raises
    ------
    ValueError
        If the weight is not in Q4_1, the change has the wrong shape, or an offset overflows float16.
    """
    format = getattr(weight, "format", type(weight).__name__)
    if format != "q4_1":
        raise ValueError(
            f"weight: got {format}, expected q4_1, the only format with an offset of its own in each block"
        )
    blocks = np.array(weight.blocks).reshape(len(weight.blocks), -1, 20)  # (out, in/32, 20), a copy
    if change.shape != blocks.shape[:2]:
        raise ValueError(f"change: got shape {change.shape}, expected {blocks.shape[:2]}")
    m = blocks[..., 2:4].view("<f2")[..., 0] + change.astype(np.float64)  # (out, in/32)
    blocks[..., 2:4] = as_float16(m, "change: gives an offset")[..., None].view(np.uint8)
    return replace(weight, blocks=read_only(blocks.reshape(weight.blocks.shape)))


def blocks_of(weight):
    """The weight's blocks in float32, (size/32, 32)."""
    check_weight(weight)
    if weight.shape[1] % BLOCK:
        raise ValueError(f"weight: got shape {weight.shape}, expected a row length that is a multiple of {BLOCK}")
    return weight.astype(np.float32).reshape(-1, BLOCK)


def inverse(d):
    """Return 1/d, or 0 where 1/d is infinite, because such a d becomes 0 in float16."""
    with np.errstate(divide="ignore", over="ignore"):
        result = 1 / d
    return np.where(np.isfinite(result), result, np.float32(0))


def packed(codes):
    """Truncate values to codes and pack two per byte, (n, 32) -> (n, 16). For rounding, callers add 0.5 first."""
    codes = np.minimum(codes.astype(np.uint8), 15)
    return codes[:, :16] | codes[:, 16:] << 4


def block_weight(format, weight, scales, codes):
    """Make a BlockWeight from scales (n, 1 or 2), which are rounded to float16, and bytes of codes (n, 16 or 32)."""
    header = as_float16(scales, f"weight: {format} needs a scale")
    blocks = np.concatenate([header.view(np.uint8), codes.view(np.uint8)], axis=1)
    return BlockWeight(read_only(blocks.reshape(len(weight), -1)), format, weight.dtype)


def as_float16(numbers, problem):
    """Round values to float16; if one is too large, raise a ValueError whose message begins with `problem`."""
    with np.errstate(over="ignore"):
        rounded = numbers.astype("<f2")
    if not np.isfinite(rounded).all():
        raise ValueError(f"{problem} of {np.abs(numbers).max():.3g}, but the largest float16 is 65504")
    return rounded
