"""Numerical gradients by central differences: slow and simple, for checking every backward pass."""

import numpy as np


def numerical_gradient(f, x, step=1e-5):
    """(f(x + h) − f(x − h)) / 2h for every element of x.

    The truncation error is h² f‴/6 and the rounding error is about ε |f| / h, so in float64 with h near 1e-5, about ten
    digits are correct. Float32 has too few digits for a useful check.

    Parameters
    ----------
    f : function that maps an array of x's shape to a scalar
    x : float64 array; not modified
    step : float, h; it is multiplied by max(1, |x_i|)

    Returns
    -------
    array with x's shape

    Raises
    ------
    TypeError
        If x is not float64.
    """
    if x.dtype != np.float64:
        raise TypeError(f"x: got {x.dtype}, expected float64 (in float32, rounding errors dominate the differences)")
    x = x.copy()
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        h = step * max(1.0, abs(value))
        x[index] = value + h
        above = f(x)
        x[index] = value - h
        below = f(x)
        x[index] = value
        grad[index] = (above - below) / (2.0 * h)
    return grad


def relative_error(got, expected):
    """‖got − expected‖ / max(‖got‖, ‖expected‖), or 0 if both are zero."""
    scale = max(np.linalg.norm(got), np.linalg.norm(expected))
    return float(np.linalg.norm(got - expected) / scale) if scale else 0.0
