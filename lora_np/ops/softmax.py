"""Softmax over the last axis."""

from typing import NamedTuple

import numpy as np

from .blocks import blocks


class SoftmaxCache(NamedTuple):
    probs: np.ndarray  # (..., K), the output; the gradient needs nothing else


class SoftmaxGrads(NamedTuple):
    dx: np.ndarray  # (..., K)


def softmax(x):
    """`softmax_forward` without a cache."""
    probs = np.empty_like(x, order="C")  # (..., K)
    for x_piece, p in blocks(x, probs):
        # On short rows, max is twice as fast with an initial value as without, and einsum is five times as fast as sum.
        np.subtract(x_piece, x_piece.max(axis=-1, keepdims=True, initial=-np.inf), out=p)
        np.exp(p, out=p)
        p /= np.einsum("...k->...", p)[..., None]
    return probs


def softmax_forward(x):
    """p_i = exp(x_i) / Σ_j exp(x_j), row by row.

    Subtracting a row's maximum divides numerator and denominator by the same value, so p does not change. All
    exponents are then at most 0, so nothing overflows. Entries of −inf get probability 0.

    Parameters
    ----------
    x : array (..., K) with at least one finite entry in each row

    Returns
    -------
    probs : array (..., K); each row sums to 1
    cache : SoftmaxCache
    """
    probs = softmax(x)  # (..., K)
    return probs, SoftmaxCache(probs)


def softmax_backward(dprobs, cache):
    """Gradient of softmax.

    With ∂p_j/∂x_i = p_j (δ_ij − p_i), the sum Σ_j dp_j ∂p_j/∂x_i is

        dx_i = p_i (dp_i − Σ_j dp_j p_j)

    Parameters
    ----------
    dprobs : array (..., K)
    cache : SoftmaxCache

    Returns
    -------
    SoftmaxGrads
    """
    # p = softmax(x)
    dx = np.empty_like(dprobs, order="C")  # (..., K)
    for dp, p, dx_piece in blocks(dprobs, cache.probs, dx):
        expected = np.vecdot(dp, p)[..., None]  # (..., 1), Σ_j dp_j p_j
        np.subtract(dp, expected, out=dx_piece)
        dx_piece *= p
    return SoftmaxGrads(dx)
