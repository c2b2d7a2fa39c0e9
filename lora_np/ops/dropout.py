"""Inverted dropout with an explicit mask (Srivastava et al. 2014).

The mask is data: it is drawn once from a generator that the caller owns, and the same array serves
forward and backward, a gradient check, and a port in another language.
"""

from typing import NamedTuple

import numpy as np


class DropoutCache(NamedTuple):
    mask: np.ndarray | None  # x's shape, 0 or 1/(1−p)


class DropoutGrads(NamedTuple):
    dx: np.ndarray


def dropout_mask(shape, p, rng, dtype=np.float32):
    """Draw a mask: 0 with probability p, else 1/(1−p), so that the expected output is the input.

    Parameters
    ----------
    shape : tuple of int
    p : float in [0, 1), the share that is dropped
    rng : np.random.Generator
    dtype : the dtype of the array that it will multiply

    Raises
    ------
    ValueError
        If p is outside [0, 1).
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p: {p} is no share to drop (expected 0 ≤ p < 1)")
    stays = rng.random(shape, dtype=np.float32) >= p
    return stays.astype(dtype) / (1.0 - float(p))  # a NumPy scalar would make float32 float64


def dropout_forward(x, mask=None):
    """y = x ⊙ mask; without a mask (evaluation) y is x.

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
        If the mask has another shape, which might fit all the same, spread over some axis.
    """
    if mask is not None and mask.shape != x.shape:
        raise ValueError(f"mask: got shape {mask.shape}, expected x's {x.shape}")
    return (x if mask is None else x * mask), DropoutCache(mask)


def dropout_backward(dy, cache):
    """dx = dy ⊙ mask: what was dropped forward gets no gradient, what was scaled is scaled."""
    # y = x ⊙ mask
    return DropoutGrads(dy if cache.mask is None else dy * cache.mask)
