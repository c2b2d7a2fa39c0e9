"""NF4: four bits per weight and one scale per block (Dettmers et al. 2023, QLoRA, section 3).

A block of 64 weights w_1 … w_64 is divided by its largest magnitude, c = max |w_i|, so all quotients are in [−1, 1].
Each quotient is rounded to the nearest of 16 code points q_0 … q_15, and the index of the point is stored:

    code_i = argmin_k |w_i / c − q_k|        ŵ_i = c q_code_i

Blocks are short, because a large weight reduces the resolution of its entire block.
"""

from dataclasses import dataclass

import numpy as np

from ..checked import whole_number
from .code_points import CODE_POINTS, nearest_point
from .double import DoubleQuantised, double_quantise
from .weight import QuantisedWeight, as_divisor, check_weight, read_only


def pack(codes):
    """Pack two four-bit codes into each byte, the first in the high half (as in bitsandbytes).

    Parameters
    ----------
    codes : array (n,), n even, integers from 0 to 15

    Returns
    -------
    array (n/2,) uint8
    """
    first, second = codes.astype(np.uint8).reshape(-1, 2).T
    return first << 4 | second


def unpack(packed):
    """Unpack the output of `pack` into codes, (n,) uint8."""
    return np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)


# Dequantising looks up the two code points of each byte in a table (256, 2). For this, NumPy converts each byte to an
# 8-byte index. For an entire matrix, the indices would take as much memory as its float32 weights, so the bytes are
# looked up in pieces.
PIECE = 2**15
POINTS_OF_BYTE = {
    np.dtype(dtype): CODE_POINTS.astype(dtype)[unpack(np.arange(256, dtype=np.uint8))].reshape(256, 2)
    for dtype in (np.float32, np.float64)
}


@dataclass(frozen=True, eq=False, repr=False)
class NF4Weight(QuantisedWeight):
    """A matrix in NF4.

    With blocks of 64 weights, a weight takes 4 + 32/64 = 4.5 bits. With double quantisation (`double_quantise`), it
    takes 4 + 0.127 = 4.127 bits, plus one float32 mean for the matrix.
    """

    packed: np.ndarray  # (size/2,) uint8, two codes per byte, in row-major order
    absmax: np.ndarray | DoubleQuantised  # (size/block_size,) float32, the blocks' scales
    shape: tuple[int, int]  # (out, in)
    dtype: np.dtype  # of the dense array, float32 or float64
    block_size: int

    format = "nf4"

    @property
    def double(self):
        return isinstance(self.absmax, DoubleQuantised)

    @property
    def settings(self):
        return {"block_size": self.block_size, "double": self.double}

    def scales(self):
        """The blocks' scales, (size/block_size,) float32."""
        return self.absmax.dequantise() if self.double else self.absmax

    def dequantise(self):
        """The dense matrix, a new array (out, in) of `dtype`: the code points times their blocks' scales."""
        points = np.empty((self.packed.size, 2), self.dtype)  # (size/2, 2)
        for start in range(0, self.packed.size, PIECE):
            piece = slice(start, start + PIECE)
            # Every byte is in the table; mode="clip" skips the bounds check, for which NumPy would copy `out`.
            np.take(POINTS_OF_BYTE[self.dtype], self.packed[piece], axis=0, out=points[piece], mode="clip")
        blocks = points.reshape(-1, self.block_size)  # (size/block_size, block_size), the same memory
        blocks *= self.scales().astype(self.dtype)[:, None]
        return blocks.reshape(self.shape)  # (out, in)

    def rows(self, ids):
        """The dense rows with these indices, a new array (..., in) of `dtype`."""
        n_out, n_in = self.shape
        row_starts = n_in * np.arange(n_out)[ids]  # (...,); raises IndexError for an invalid row index
        positions = row_starts[..., None] + np.arange(n_in)  # (..., in), in row-major order
        points = POINTS_OF_BYTE[self.dtype][self.packed[positions // 2], positions % 2]  # (..., in)
        return points * self.scales().astype(self.dtype)[positions // self.block_size]


def quantise_nf4(weight, block_size=64, double=True):
    """Quantise a matrix to four-bit codes with one scale per block.

    A weight halfway between two points is rounded to the lower one. A weight of 0 is stored exactly. Without `double`,
    each block's largest magnitude is stored in float32, unrounded, and quantising the result again changes nothing.

    Parameters
    ----------
    weight : array (out, in), float32 or float64
    block_size : int, even, the number of weights that share a scale, in row-major order; a block may span two rows
    double : bool, whether to quantise the scales to 8 bits, see `double_quantise`

    Returns
    -------
    NF4Weight, of the weight's shape and dtype; its scales are always float32

    Raises
    ------
    TypeError, ValueError
        If the weight is not a finite float32 or float64 matrix, or block_size is odd or does not divide `weight.size`.
    """
    check_weight(weight)
    block_size = whole_number("block_size", block_size, least=2)
    if block_size % 2 or weight.size % block_size:
        expected = f"expected an even divisor of its size, {weight.size}"
        raise ValueError(f"block_size: got {block_size} for a weight of shape {weight.shape}, {expected}")
    if not isinstance(double, bool):
        raise TypeError(f"double: got {double!r}, expected True or False")
    blocks = weight.reshape(-1, block_size)  # (size/block_size, block_size)
    absmax = np.abs(blocks).max(axis=1).astype(np.float32)  # (size/block_size,)
    # The codes are computed with the exact scales, so double quantisation does not change the codes.
    codes = nearest_point(blocks / as_divisor(absmax)[:, None], CODE_POINTS)  # (size/block_size, block_size)
    return NF4Weight(
        packed=read_only(pack(codes.reshape(-1))),
        absmax=double_quantise(absmax) if double else read_only(absmax),
        shape=weight.shape,
        dtype=weight.dtype,
        block_size=block_size,
    )
