"""The base class for quantised weights, and functions that validate weights."""

import numpy as np

LARGEST = 1e38  # scales are float32, whose maximum is 3.4e38


def check_weight(weight):
    """Raise an error unless the weight is a finite matrix of float32 or float64.

    Raises
    ------
    TypeError
        If it is not an array, or has a different dtype.
    ValueError
        If it is not a matrix, is empty, or has an entry that is not finite or whose magnitude exceeds 1e38.
    """
    if not isinstance(weight, np.ndarray):
        raise TypeError(f"weight: got {type(weight).__name__}, expected an array")
    if weight.dtype not in (np.float32, np.float64):
        raise TypeError(f"weight: got dtype {weight.dtype}, expected float32 or float64")
    if weight.ndim != 2 or weight.size == 0:
        raise ValueError(f"weight: got shape {weight.shape}, expected a matrix (out, in)")
    largest = max(weight.max(), -weight.min())  # a NaN anywhere makes both NaN
    if not largest <= LARGEST:
        raise ValueError(f"weight: got a magnitude of {largest}, expected finite values up to {LARGEST}")


def as_divisor(scale):
    """The scales, with each 0 replaced by 1. A block with scale 0 is all zeros, and 0/1 gives the code 0."""
    return np.where(scale > 0, scale, np.ones_like(scale))


def read_only(array):
    """Make an array read-only and return it."""
    array.flags.writeable = False
    return array


class QuantisedWeight:
    """A matrix stored as codes and scales, from which its entries are computed on demand.

    It can replace an array in a flat dict of weights. These expressions accept both arrays and quantised weights:

        np.asarray(weight)    the entire matrix (out, in); a new array if the weight is quantised
        weight[ids]           the rows with these integer indices, (..., in)
        len(weight)           the number of rows, out

    Each format is a frozen dataclass with the fields `shape` and `dtype` (of the dense array), and with

        format       its name in `FORMATS`
        settings     dict, the keyword arguments that the weight was quantised with
        rows         method (ids, an integer array or a slice) -> the dense rows, (..., in)
    """

    def dequantise(self):
        """The dense matrix, a new array (out, in) of `dtype`."""
        return self.rows(slice(None))

    def __len__(self):
        return self.shape[0]

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        n_out, n_in = self.shape
        return n_out * n_in

    @property
    def nbytes(self):
        """The size of the codes and scales in bytes."""
        return sum(getattr(field, "nbytes", 0) for field in vars(self).values())

    @property
    def bits_per_weight(self):
        return 8 * self.nbytes / self.size

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError(f"copy: got False, but each conversion of {self!r} computes a new array")
        dense = self.dequantise()
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def __getitem__(self, ids):
        ids = np.asarray(ids)
        if not np.issubdtype(ids.dtype, np.integer):
            raise TypeError(f"ids: got dtype {ids.dtype}, expected integers: a quantised weight is indexed by row")
        return self.rows(ids)

    def __repr__(self):
        return f"{type(self).__name__}({self.shape}, {self.dtype}, {self.bits_per_weight:.3f} bits per weight)"
