"""The mean over each row's non-padding tokens, which an encoder uses as the representation of a text."""

from typing import NamedTuple

import numpy as np


class MeanPoolCache(NamedTuple):
    weights: np.ndarray | None  # (B, T), each token's weight in its row's mean; None if no gradient is wanted


class MeanPoolGrads(NamedTuple):
    dx: np.ndarray | None  # (B, T, C)


def mean_pool_forward(x, lengths, wanted=("x",)):
    """y_b = (1/n_b) Σ_t x_bt over the n_b non-padding tokens of row b.

    Parameters
    ----------
    x : array (B, T, C), padded on the right
    lengths : int array (B,), the number n of non-padding tokens in each row, from 1 to T
    wanted : ("x",), or () if no gradient is needed

    Returns
    -------
    y : array (B, C)
    cache : MeanPoolCache
    """
    real = np.arange(x.shape[1]) < lengths[:, None]  # (B, T)
    weights = (real / lengths[:, None]).astype(x.dtype)
    return (weights[:, None] @ x)[:, 0], MeanPoolCache(weights if "x" in wanted else None)


def mean_pool_backward(dy, cache):
    """Gradient of the mean: the weight of x_bt in y_b is 1/n_b, or 0 for padding, so dx_bt is dy_b / n_b, or 0.

    Parameters
    ----------
    dy : array (B, C)
    cache : MeanPoolCache

    Returns
    -------
    MeanPoolGrads, with None if no gradient was wanted
    """
    # y_b = Σ_t weights_bt x_bt
    return MeanPoolGrads(None if cache.weights is None else cache.weights[..., None] * dy[:, None])
