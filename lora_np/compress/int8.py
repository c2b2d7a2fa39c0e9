"""int8: eight bits per weight and one scale per row (Dettmers et al. 2022, LLM.int8(), sections 2.1 and 3.1)."""

from dataclasses import dataclass

import numpy as np

from .weight import QuantisedWeight, as_divisor, check_weight, read_only


@dataclass(frozen=True, eq=False, repr=False)
class Int8Weight(QuantisedWeight):
    """A matrix in int8, with 8 + 32/in bits per weight, where `in` is the length of a row."""

    codes: np.ndarray  # (out, in) int8, −127 … 127
    scales: np.ndarray  # (out,) float32, the step between adjacent codes
    shape: tuple[int, int]  # (out, in)
    dtype: np.dtype  # of the dense array, float32 or float64

    format = "int8"
    settings = {}  # none

    def rows(self, ids):
        """The dense rows with these indices, ŵ = scale · code, a new array (..., in) of `dtype`."""
        dense = self.codes[ids].astype(self.dtype)  # (..., in)
        dense *= self.scales[ids].astype(self.dtype)[..., None]
        return dense


def quantise_int8(weight):
    """Quantise a matrix to eight-bit integers with one scale per row.

        scale_o = max_i |W_oi| / 127        code_oi = W_oi / scale_o, rounded

    The code −128 is not used, so the range is symmetric and 0 is stored exactly. Values are rounded to the nearest
    code, ties to even. The error is approximately uniform in ±scale/2, so its root mean square is scale/√12.

    Parameters
    ----------
    weight : array (out, in), float32 or float64

    Returns
    -------
    Int8Weight, of the weight's shape and dtype; its scales are always float32

    Raises
    ------
    TypeError, ValueError
        If the weight is not a finite matrix of float32 or float64.
    """
    check_weight(weight)
    scales = (np.abs(weight).max(axis=1) / 127).astype(np.float32)  # (out,)
    codes = np.rint(weight / as_divisor(scales)[:, None])  # (out, in)
    codes = np.clip(codes, -127, 127)  # values exceed 127 only if a scale is subnormal
    return Int8Weight(read_only(codes.astype(np.int8)), read_only(scales), weight.shape, weight.dtype)
