"""What a weight has to be for compression, and what stands in its place afterwards."""

import numpy as np

LARGEST = 1e38  # scales are float32, which ends at 3.4e38


def check_weight(weight):
    """Refuse what is no finite matrix of float32 or float64.

    Raises
    ------
    TypeError
        If it is no array, or has another dtype.
    ValueError
        If it is no matrix, is empty, or has an entry that is not finite or above 1e38 in magnitude.
    """
    if not isinstance(weight, np.ndarray):
        raise TypeError(f"weight: got {type(weight).__name__}, expected an array")
    if weight.dtype not in (np.float32, np.float64):
        raise TypeError(f"weight: got dtype {weight.dtype}, expected float32 or float64")
    if weight.ndim != 2 or weight.size == 0:
        raise ValueError(f"weight: got shape {weight.shape}, expected a matrix (out, in)")
    largest = max(weight.max(), -weight.min())  # a NaN anywhere makes both NaN
    if not largest <= LARGEST:
        raise ValueError(f"weight: got a magnitude of {largest}, expected finite numbers up to {LARGEST}")


def as_divisor(scale):
    """The scales, with 1 for 0: what has scale 0 is zero throughout, and 0/1 is the 0 that it should be."""
    return np.where(scale > 0, scale, np.ones_like(scale))


def read_only(array):
    """The array itself, which nobody can write to any more."""
    array.flags.writeable = False
    return array


class QuantisedWeight:
    """A matrix that is held as codes and scales, and is computed from them whenever it is asked for.

    It stands in a flat dict in the place of an array. `np.asarray(weight)` returns a fresh dense array, through
    NumPy's array protocol, and nothing keeps that array: whoever is done with it lets it go. So a layer can use
    `np.asarray(weight)` for every weight and need not know which kind it has.

    A format is a frozen dataclass with the fields `shape` and `dtype` (of the dense array), a name `format`, the
    property `settings` (what to call the format's function with to get the same kind again), the property
    `nbytes` (of its codes and scales) and the method `dequantise`.
    """

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        n_out, n_in = self.shape
        return n_out * n_in

    @property
    def bits_per_weight(self):
        return 8 * self.nbytes / self.size

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError(f"copy: got False, but the numbers of {self!r} are computed anew each time")
        dense = self.dequantise()
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def __repr__(self):
        return f"{type(self).__name__}({self.shape}, {self.dtype}, {self.bits_per_weight:.3f} bits per weight)"
