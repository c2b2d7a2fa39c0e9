"""Checks of arguments for every room. Each error names the argument, what came and what was expected."""

import math
from numbers import Real

import numpy as np


def shown(text, most=200):
    """A name or text from a file, for a message: escaped where it cannot be printed, and at most `most` characters."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def quoted(value, most=200):
    """Any other value from a file, for a message: what `repr` gives, at most `most` characters of it."""
    return shown(repr(value), most)


def whole_number(name, value, least=1, most=None, why=""):
    """The value as an int.

    Parameters
    ----------
    name : str, the argument's name
    value : int or NumPy integer, but not a bool
    least, most : int, the bounds, both included; a `most` of None is no bound
    why : str, where `most` comes from

    Raises
    ------
    ValueError
        If the value is anything else or out of bounds.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: got {quoted(value)}, expected a whole number {bounds}{why and ', ' + why}")
    return int(value)


def finite_number(name, value, *, above=None, least=None, below=None, most=None):
    """The value as a float. (A NumPy scalar would turn float32 arrays into float64.)

    Parameters
    ----------
    name : str, the argument's name
    value : a real number, but not a bool
    above, below : floats, bounds that are excluded, or None
    least, most : floats, bounds that are included, or None

    Raises
    ------
    ValueError
        If the value is anything else, infinite, NaN or out of bounds.
    """
    try:
        fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int with more digits than any float
        fits = False
    fits = fits and (above is None or value > above) and (least is None or value >= least)
    if not (fits and (below is None or value < below) and (most is None or value <= most)):
        low = f"{above:g} <" if above is not None else f"{least:g} ≤" if least is not None else ""
        high = f"< {below:g}" if below is not None else f"≤ {most:g}" if most is not None else ""
        if high:
            limits = f"{low} {name} {high}".strip()
        elif low:
            limits = f"a number above {above:g}" if above is not None else f"a number of at least {least:g}"
        else:
            limits = "a finite number"
        raise ValueError(f"{name}: got {quoted(value)}, expected {limits}")
    return float(value)


def one_of(name, value, choices):
    """The value, if it is one of the choices (an iterable of str); ValueError if not."""
    if value not in tuple(choices):
        raise ValueError(f"{name}: got {quoted(value)}, expected one of {', '.join(choices)}")
    return value


def check_fields(config, check, /, *names, **bounds):
    """Replace fields of a frozen dataclass by what a check, such as `whole_number`, returns for them."""
    for name in names:
        object.__setattr__(config, name, check(name, getattr(config, name), **bounds))


def same_shape(name, array, like):
    """Raise ValueError unless two arrays or quantised weights have the same shape."""
    if np.shape(array) != np.shape(like):
        raise ValueError(f"{name}: got shape {np.shape(array)}, expected {np.shape(like)}")


def integer_vector(name, array):
    """The array, (N,) of integers; an empty one may have any dtype.

    Raises
    ------
    ValueError
        If it has not exactly one axis.
    TypeError
        If it has another dtype.
    """
    array = np.asarray(array)
    if array.ndim != 1:
        raise ValueError(f"{name}: got shape {array.shape}, expected one axis")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name}: got dtype {array.dtype}, expected integers")
    return array


def finite_array(name, array):
    """The array in float64.

    Raises
    ------
    ValueError
        If it has no entries, or one that is not finite. (A singular value decomposition of NaN does not converge.)
    """
    array = np.asarray(array, dtype=np.float64)
    if not array.size:
        raise ValueError(f"{name}: got shape {array.shape}, expected at least one entry")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: holds values that are not finite, expected finite ones alone")
    return array


def finite_matrix(name, matrix):
    """The matrix in float64; `finite_array` with two axes."""
    if np.ndim(matrix) != 2:
        raise ValueError(f"{name}: got shape {np.shape(matrix)}, expected a matrix with two axes")
    return finite_array(name, matrix)
