"""Arguments as the analyses take them: float64, finite, and of sizes that make sense."""

import numpy as np


def finite_array(array, name):
    """The array in float64.

    Parameters
    ----------
    array : array of any shape
    name : str, what the error calls it

    Raises
    ------
    ValueError
        If it has no entries, or one that is not finite: a singular value decomposition of NaN does not converge,
        and what follows from infinity is NaN.
    """
    array = np.asarray(array, dtype=np.float64)
    if not array.size:
        raise ValueError(f"{name}: got shape {array.shape}, expected at least one entry")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: holds values that are not finite, expected finite ones alone")
    return array


def finite_matrix(matrix, name):
    """The matrix in float64; `finite_array` with two axes."""
    if np.ndim(matrix) != 2:
        raise ValueError(f"{name}: got shape {np.shape(matrix)}, expected a matrix with two axes")
    return finite_array(matrix, name)


def whole_number(value, name, most, what):
    """The value as an int from 1 to `most`; `what` says in the error where that limit comes from."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise ValueError(f"{name}: got {value!r}, expected a whole number from 1 to {most}, {what}")
    return int(value)
