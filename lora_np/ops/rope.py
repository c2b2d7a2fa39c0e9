"""Rotary position embedding (Su et al. 2021, section 3.2): rotate queries and keys by angles proportional to position.

A head's D entries are treated as D/2 pairs, which are points in the plane. At position p, pair j is rotated by the
angle p · θ^(−2j/D). The dot product of a query at p and a key at p′ therefore depends only on the unrotated vectors and
on p − p′. The coordinates of pair j are the head's entries j and j + D/2, as in Hugging Face's Llama; the paper pairs
2j and 2j + 1.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class RopeCache(NamedTuple):
    cos: np.ndarray  # (..., T, D/2), of the angles
    sin: np.ndarray


class RopeGrads(NamedTuple):
    dx: np.ndarray  # (..., T, n·D)


def rope_tables(positions, head_size, theta, dtype=np.float32, divisors=()):
    """The cosine and sine of every angle, computed in float64: two arrays (..., T, D/2).

    Parameters
    ----------
    positions : int array (..., T)
    head_size : int, D, even
    theta : float, the base of the frequencies; the slowest point is rotated by about 1/θ radians per position
    dtype : the tables' dtype, which should be that of the rotated array
    divisors : tuple of D/2 numbers by which the frequencies are divided; () to leave them as they are
    """
    frequencies = float(theta) ** (-np.arange(0, head_size, 2) / head_size)  # (D/2,)
    if divisors:
        frequencies /= divisors
    angles = positions[..., None] * frequencies  # (..., T, D/2)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


@lru_cache(maxsize=4)
def consecutive_tables(start, stop, head_size, theta, dtype, divisors=()):
    """`rope_tables` for positions `start` to `stop` − 1; cached, because all layers of a pass use the same tables."""
    return rope_tables(np.arange(start, stop), head_size, theta, dtype, divisors)


def rotate(x, cos, sin):
    """Rotate the points of each head of x (..., T, n·D) by angles with the given cosines and sines (..., T, D/2)."""
    heads = x.reshape(*x.shape[:-1], -1, 2, cos.shape[-1])  # (..., T, n, 2, D/2)
    first, second = heads[..., 0, :], heads[..., 1, :]  # (..., T, n, D/2)
    cos, sin = cos[..., None, :], sin[..., None, :]  # the same for all heads
    y = np.empty_like(heads, order="C")
    np.subtract(first * cos, second * sin, out=y[..., 0, :])
    np.add(second * cos, first * sin, out=y[..., 1, :])
    return y.reshape(x.shape)


def rope_forward(x, cos, sin):
    """Rotate each point (a, b) of each head by its angle φ: (a cos φ − b sin φ, b cos φ + a sin φ).

    Parameters
    ----------
    x : array (..., T, n·D), n heads side by side
    cos, sin : arrays (..., T, D/2) from `rope_tables`

    Returns
    -------
    y : array, x's shape
    cache : RopeCache
    """
    return rotate(x, cos, sin), RopeCache(cos, sin)


def rope_backward(dy, cache):
    """Gradient of the rotation.

    y = R(φ) x is linear in x, so dx = R(φ)ᵀ dy. The transpose of a rotation by φ is the rotation by −φ, with the same
    cosine and the negated sine.

    Parameters
    ----------
    dy : array (..., T, n·D)
    cache : RopeCache

    Returns
    -------
    RopeGrads
    """
    # y = R(φ) x
    return RopeGrads(rotate(dy, cache.cos, -cache.sin))
