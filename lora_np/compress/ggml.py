"""The blocks of llama.cpp's files: 32 weights of a row in 4 or 8 bits each, with a scale of their own.

Every block has the same layout. float16 numbers come first, a scale d and in Q4_1 an offset m; then the codes q:

    format   bytes of a block             bits per weight   weight
    Q8_0     d, 32 codes of 8 bits   34   8.5               d q,        q = −127 … 127
    Q4_0     d, 16 bytes             18   4.5               d (q − 8),  q = 0 … 15
    Q4_1     d, m, 16 bytes          20   5.0               d q + m,    q = 0 … 15

Byte j of the 16 has the code of weight j in its low half and that of weight j + 16 in its high half. So the low halves
of all bytes, and after them the high halves, are the codes in order. Offsets make Q4_1 finer for weights that are not
spread around 0: its 16 levels run from the block's smallest weight to its largest. (ggml-common.h and ggml-quants.c of
llama.cpp; the results are those of the `gguf` package, bit for bit.)
"""

from dataclasses import dataclass, replace

import numpy as np

from .weight import QuantisedWeight, check_weight, read_only

BLOCK = 32  # weights
HEADERS = {"q8_0": 2, "q4_0": 2, "q4_1": 4}  # bytes of a block's float16 numbers
BLOCK_BYTES = {"q8_0": 34, "q4_0": 18, "q4_1": 20}
PIECE = 2**14  # blocks that are expanded at a time, to 2 MB: what is in between stays in a core's cache


@dataclass(frozen=True, eq=False, repr=False)
class BlockWeight(QuantisedWeight):
    """A matrix in blocks of one of the three formats. A block lies within a row."""

    blocks: np.ndarray  # (out, bytes of a row) uint8, may be a part of a memory-mapped file
    format: str  # "q8_0", "q4_0" or "q4_1"
    dtype: np.dtype = np.dtype(np.float32)  # of the dense array; float64 has the same numbers, rounded to float32

    settings = {}  # none

    def __post_init__(self):
        object.__setattr__(self, "dtype", np.dtype(self.dtype))  # `replace(weight, dtype=np.float64)` gives a type

    @property
    def shape(self):
        n_out, n_bytes = self.blocks.shape
        return n_out, n_bytes // BLOCK_BYTES[self.format] * BLOCK

    def is_finite(self):
        """Whether all its numbers are finite. That takes no more than a look at the scales and offsets."""
        headers = self.blocks.reshape(-1, BLOCK_BYTES[self.format])[:, : HEADERS[self.format]]
        return all(np.isfinite(column).all() for column in headers.view("<f2").T)

    def dequantise(self):
        """The dense matrix, (out, in) of `dtype`, fresh."""
        return expand(self.blocks, self.format).astype(self.dtype, copy=False)

    def rows(self, ids):
        """The dense rows with the given numbers, (..., in) of `dtype`, fresh."""
        return expand(self.blocks[ids], self.format).astype(self.dtype, copy=False)


def expand(rows, format):
    """The weights of rows of blocks: (..., bytes of a row) uint8 -> (..., in) float32.

    Each step is one NumPy call over a piece of all rows. What costs time is the number of inner loops, some 7 ns each:
    there are two for a block, for the scale and the offset. All else runs through the whole piece.
    """
    dense = np.empty((*rows.shape[:-1], rows.shape[-1] // BLOCK_BYTES[format] * BLOCK), np.float32)
    blocks, numbers = rows.reshape(-1, BLOCK_BYTES[format]), dense.reshape(-1, BLOCK)  # (n, bytes), (n, 32)
    for start in range(0, len(blocks), PIECE):
        piece, out = blocks[start : start + PIECE], numbers[start : start + PIECE]
        header, codes = np.split(piece, [HEADERS[format]], axis=1)
        d, *m = (column.astype(np.float32)[:, None] for column in header.view("<f2").T)  # (n, 1) each
        if format != "q8_0":
            codes = halves(codes)  # (n, 32)
        if format == "q4_0":
            codes -= 8  # below 0 the byte wraps round, as an int8 does
        out[:] = codes.view(np.int8)
        out *= d
        if m:
            out += m[0]
    return dense


def halves(codes):
    """The low halves of each block's bytes, then the high ones: (n, 16) uint8 -> (n, 32) uint8.

    Eight bytes are masked at a time, and sixteen copied. Their neighbours' bits, which the shift brings in, are masked.
    """
    words = np.ascontiguousarray(codes).view(np.uint64)  # (n, 2)
    unpacked = np.empty((len(codes), 2), "V16")
    for half in (0, 1):
        unpacked[:, half] = (words >> 4 * half & 0x0F0F0F0F0F0F0F0F).view("V16")[:, 0]
    return unpacked.view(np.uint8)


def quantise_q8_0(weight):
    """A matrix in Q8_0.

        d = max_i |w_i| / 127        q_i = w_i / d, rounded

    A half is rounded away from zero. The error is about uniform in ±d/2. A later rounding of d to float16 moves each
    weight by up to 2⁻¹¹ of itself.

    Parameters
    ----------
    weight : array (out, in), float32 or float64 (which is first rounded to float32)

    Returns
    -------
    BlockWeight, of the weight's dtype

    Raises
    ------
    TypeError, ValueError
        If the weight is not a finite matrix of float32 or float64, 32 does not divide its rows, or a scale exceeds
        float16.
    """
    blocks = blocks_of(weight)  # (n, 32)
    d = np.abs(blocks).max(axis=1, keepdims=True) / 127
    scaled = blocks * inverse(d)
    size = np.abs(scaled)
    whole = np.floor(size)
    codes = np.copysign(whole + np.floor(2 * (size - whole)), scaled)  # exact, unlike floor(size + 0.5)
    return block_weight("q8_0", weight, d, codes.astype(np.int8))


def quantise_q4_0(weight):
    """A matrix in Q4_0; like `quantise_q8_0`, but

        d = w_k / −8, where |w_k| is largest        q_i = w_i / d + 8, rounded, at most 15

    The largest weight has the code 0, which is −8 d, so nothing of the uneven range −8 … 7 is lost on its side.
    """
    blocks = blocks_of(weight)  # (n, 32)
    d = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1) / -8  # (n, 1)
    return block_weight("q4_0", weight, d, packed(blocks * inverse(d) + np.float32(8.5)))


def quantise_q4_1(weight):
    """A matrix in Q4_1; like `quantise_q8_0`, but

    m = min_i w_i        d = (max_i w_i − m) / 15        q_i = (w_i − m) / d, rounded
    """
    blocks = blocks_of(weight)  # (n, 32)
    m = blocks.min(axis=1, keepdims=True)
    d = (blocks.max(axis=1, keepdims=True) - m) / 15
    scales = np.concatenate([d, m], axis=1)  # (n, 2)
    return block_weight("q4_1", weight, scales, packed((blocks - m) * inverse(d) + np.float32(0.5)))


def with_offsets_added(weight, change):
    """A Q4_1 matrix with a number added to all weights of each block: m′ = m + c. No d and no code changes.

    m′ is rounded to float16, which moves it by at most 2⁻¹¹ of itself. Nothing else is lost.

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
        If the weight has another format, the change another shape, or an offset exceeds float16.
    """
    format = getattr(weight, "format", type(weight).__name__)
    if format != "q4_1":
        raise ValueError(f"weight: got {format}, expected q4_1, which has offsets")
    blocks = np.array(weight.blocks).reshape(len(weight.blocks), -1, BLOCK_BYTES["q4_1"])  # (out, in/32, 20), a copy
    if change.shape != blocks.shape[:2]:
        raise ValueError(f"change: got shape {change.shape}, expected {blocks.shape[:2]}")
    m = blocks[..., 2:4].view("<f2")[..., 0] + change.astype(np.float64)  # (out, in/32)
    with np.errstate(over="ignore"):
        offsets = m.astype("<f2")
    if not np.isfinite(offsets).all():
        raise ValueError(f"change: gives an offset of {np.abs(m).max():.3g}, but float16 ends at 65504")
    blocks[..., 2:4] = offsets[..., None].view(np.uint8)
    return replace(weight, blocks=read_only(blocks.reshape(weight.blocks.shape)))


def blocks_of(weight):
    """The weight's blocks in float32, (size/32, 32)."""
    check_weight(weight)
    if weight.shape[1] % BLOCK:
        raise ValueError(f"weight: got shape {weight.shape}, expected rows of a multiple of {BLOCK} entries")
    return weight.astype(np.float32).reshape(-1, BLOCK)


def inverse(d):
    """1/d, and 0 where that is infinite: d becomes 0 in float16, and so does every d q."""
    with np.errstate(divide="ignore", over="ignore"):
        result = 1 / d
    return np.where(np.isfinite(result), result, np.float32(0))


def packed(codes):
    """Codes that have 0.5 more than they should, cut to whole numbers, two to a byte: (n, 32) -> (n, 16)."""
    codes = np.minimum(codes.astype(np.uint8), 15)
    return codes[:, :16] | codes[:, 16:] << 4


def block_weight(format, weight, scales, codes):
    """The BlockWeight with the scales (n, 1 or 2), rounded to float16, and the bytes of codes (n, 16 or 32)."""
    with np.errstate(over="ignore"):
        header = scales.astype("<f2")
    if not np.isfinite(header).all():
        raise ValueError(f"weight: {format} needs a scale of {np.abs(scales).max():.3g}, but float16 ends at 65504")
    blocks = np.concatenate([header.view(np.uint8), codes.view(np.uint8)], axis=1)
    return BlockWeight(read_only(blocks.reshape(len(weight), -1)), format, weight.dtype)
