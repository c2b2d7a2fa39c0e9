"""Inverted dropout with an explicit mask (Srivastava et al. 2014).

The caller draws the mask once from a random generator, and can pass this array to the forward pass, the backward pass,
a gradient check, or a port to another language.
"""

from typing import NamedTuple

import numpy as np


class DropoutCache(NamedTuple):
    mask: np.ndarray | None  # x's shape, 0 or 1/(1−p)


class DropoutGrads(NamedTuple):
    dx: np.ndarray


def dropout_mask(shape, p, rng, dtype=np.float32):
    """Draw a mask: 0 with probability p, else 1/(1−p), so that the expected output equals the input.

    Parameters
    ----------
    shape : tuple of int
    p : float in [0, 1), the probability of dropping an element
    rng : np.random.Generator
    dtype : the mask's dtype, which should be that of the masked array

    Raises
    ------
    ValueError
        If p is outside [0, 1).
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p: got {p}, expected 0 ≤ p < 1")
    stays = rng.random(shape, dtype=np.float32) >= p
    return stays.astype(dtype) / (1.0 - float(p))  # a NumPy scalar would turn float32 into float64


def dropout_forward(x, mask=None):
    """y = x ⊙ mask; without a mask, as in evaluation, y is x.

    Parameters
    ----------
    x : array
    mask : array of x's shape from `dropout_mask`, or None

    Returns
    -------
    y : array, x's shape
    cache : DropoutCache

    Raises
    ------
    ValueError
        If the mask's shape differs from x's. (NumPy might silently broadcast it.)
    """
    if mask is not None and mask.shape != x.shape:
        raise ValueError(f"mask: got shape {mask.shape}, expected {x.shape}, x's shape")
    return (x if mask is None else x * mask), DropoutCache(mask)


def dropout_backward(dy, cache):
    """dx = dy ⊙ mask: the gradient of dropped elements is zero, and the others are scaled as in the forward pass."""
    # y = x ⊙ mask
    return DropoutGrads(dy if cache.mask is None else dy * cache.mask)
