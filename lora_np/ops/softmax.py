"""Softmax over the last axis."""

from typing import NamedTuple

import numpy as np

from .blocks import by_blocks


class SoftmaxCache(NamedTuple):
    probs: np.ndarray  # (..., K), the output: the gradient needs nothing else


class SoftmaxGrads(NamedTuple):
    dx: np.ndarray  # (..., K)


def normalised_exp(x):
    # On short rows, an initial value makes max twice as fast, and einsum sums five times as fast as sum.
    p = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    p /= np.einsum("...k->...", p)[..., None]
    return p


def softmax(x):
    """p of `softmax_forward` alone."""
    return by_blocks(normalised_exp, x)


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
    probs = softmax(x)  # (..., K)
    return probs, SoftmaxCache(probs)


def pull_back(dp, p):
    expected = np.vecdot(dp, p)[..., None]  # (..., 1), Σ_j dp_j p_j
    return p * (dp - expected)


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
    return SoftmaxGrads(by_blocks(pull_back, dprobs, cache.probs))
