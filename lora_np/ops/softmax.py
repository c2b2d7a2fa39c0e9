"""Softmax over the last axis."""

from typing import NamedTuple

import numpy as np


class SoftmaxCache(NamedTuple):
    probs: np.ndarray  # (..., K), the output: the gradient needs nothing else


class SoftmaxGrads(NamedTuple):
    dx: np.ndarray  # (..., K)


def softmax_forward(x):
    """p_i = exp(x_i) / Σ_j exp(x_j), row by row.

    Subtracting a row's maximum changes neither numerator nor denominator's ratio and keeps every
    exponent at or below zero, so that no row overflows. Entries of −inf get probability 0.

    Parameters
    ----------
    x : array (..., K), at least one finite entry in each row

    Returns
    -------
    probs : array (..., K); each row sums to 1
    cache : SoftmaxCache
    """
    probs = x - x.max(axis=-1, keepdims=True)  # (..., K)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=-1, keepdims=True)
    return probs, SoftmaxCache(probs)


def softmax_backward(dprobs, cache):
    """Gradient of softmax.

    From ∂p_j/∂x_i = p_j (δ_ij − p_i), summed over j,

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
    expected = np.sum(dprobs * cache.probs, axis=-1, keepdims=True)  # (..., 1)
    return SoftmaxGrads(cache.probs * (dprobs - expected))
