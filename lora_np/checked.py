"""Argument checks for all subpackages. Error messages give the argument's name, its value and what was expected."""

import math
from contextlib import contextmanager
from numbers import Real

import numpy as np

MOST_COUNT = 2**31 - 1  # of layers, tokens, steps and the like; a larger count would exhaust the memory


def shown(text, most=200):
    """Format text from a file for an error message: escape non-printable characters; truncate to `most` characters."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def quoted(value, most=200):
    """Format the repr of a value for an error message, truncated to `most` characters."""
    return shown(repr(value), most)


@contextmanager
def errors_of(place):
    """Re-raise a TypeError or ValueError as a ValueError whose message begins with `place`, such as a file's path."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None


def whole_number(name, value, least=1, most=None, why=""):
    """Return the value as an int.

    Parameters
    ----------
    name : str, the argument's name
    value : int or NumPy integer, but not a bool
    least, most : int, inclusive bounds; most = None means `MOST_COUNT`
    why : str, the reason for the upper bound

    Raises
    ------
    ValueError
        If the value is not an integer or is out of bounds.
    """
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if most is None and is_integer and value > MOST_COUNT:
        most = MOST_COUNT
    if not is_integer or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: got {quoted(value)}, expected an integer {bounds}{why and ', ' + why}")
    return int(value)


def seed_number(name, value):
    """Return a seed as an int, from 0 to 2^63 − 1; raise ValueError for another value."""
    return whole_number(name, value, least=0, most=2**63 - 1)


def finite_number(name, value, *, above=None, least=None, below=None, most=None):
    """Return the value as a Python float, because a NumPy scalar would promote float32 arrays to float64.

    Parameters
    ----------
    name : str, the argument's name
    value : a real number, but not a bool
    above, below : floats, exclusive bounds, or None
    least, most : floats, inclusive bounds, or None

    Raises
    ------
    ValueError
        If the value is not a finite real number or is out of bounds.
    """
    try:
        is_valid = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int that is too large for a float
        is_valid = False
    is_valid = is_valid and (above is None or value > above) and (least is None or value >= least)
    if not (is_valid and (below is None or value < below) and (most is None or value <= most)):
        low = f"{above:g} <" if above is not None else f"{least:g} ≤" if least is not None else ""
        high = f"< {below:g}" if below is not None else f"≤ {most:g}" if most is not None else ""
        if high:
            expected = f"{low} {name} {high}".strip()
        elif low:
            expected = f"a number above {above:g}" if above is not None else f"a number of at least {least:g}"
        else:
            expected = "a finite number"
        raise ValueError(f"{name}: got {quoted(value)}, expected {expected}")
    return float(value)


def one_of(name, value, choices):
    """Return the value; raise ValueError unless it is one of `choices`, an iterable of str."""
    if value not in tuple(choices):
        raise ValueError(f"{name}: got {quoted(value)}, expected one of {', '.join(choices)}")
    return value


def instance_of(name, value, type_, expected):
    """Return the value; raise ValueError unless it is an instance of the type."""
    if not isinstance(value, type_):
        raise ValueError(f"{name}: got {quoted(value)}, expected {expected}")
    return value


def check_unset(why, /, **options):
    """Raise ValueError if any of these options has a value other than None; `why` says why they do not apply."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name.replace('_', '-')}: {why}")


def check_fields(config, check, /, *names, **bounds):
    """Check fields of a frozen dataclass with a function such as `whole_number`, and set them to its return values."""
    for name in names:
        object.__setattr__(config, name, check(name, getattr(config, name), **bounds))


def same_shape(name, array, like):
    """Raise ValueError unless two arrays or quantised weights have the same shape."""
    if np.shape(array) != np.shape(like):
        raise ValueError(f"{name}: got shape {np.shape(array)}, expected {np.shape(like)}")


def integer_vector(name, array):
    """Return the argument as an integer array (N,). An empty array may have any dtype.

    Raises
    ------
    ValueError
        If the argument does not have exactly one axis.
    TypeError
        If the entries are not integers.
    """
    array = np.asarray(array)
    if array.ndim != 1:
        raise ValueError(f"{name}: got shape {array.shape}, expected one axis")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name}: got dtype {array.dtype}, expected integers")
    return array


def finite_array(name, array):
    """Return the array in float64.

    Raises
    ------
    ValueError
        If the array is empty or has entries that are not finite. (An SVD does not converge for NaN.)
    """
    array = np.asarray(array, dtype=np.float64)
    if not array.size:
        raise ValueError(f"{name}: got shape {array.shape}, expected at least one entry")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: has values that are not finite")
    return array


def finite_matrix(name, matrix):
    """Return the matrix in float64, checked by `finite_array`; raise ValueError unless it has two axes."""
    if np.ndim(matrix) != 2:
        raise ValueError(f"{name}: got shape {np.shape(matrix)}, expected a 2-D array")
    return finite_array(name, matrix)
