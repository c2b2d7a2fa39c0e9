"""Layer normalisation over the last axis (Ba, Kiros and Hinton 2016, section 3.1)."""

import functools
from typing import NamedTuple

import numpy as np


class LayerNormCache(NamedTuple):
    """The values that the backward pass needs; the mean is not one of them."""

    x_hat: np.ndarray | None  # (..., C), the normalised input, for dweight and dx
    inv_std: np.ndarray | None  # (..., 1), 1 / √(variance + ε), for dx
    weight: np.ndarray | None  # (C,), for dx
    wanted: tuple[str, ...]


class LayerNormGrads(NamedTuple):
    dx: np.ndarray | None  # (..., C)
    dweight: np.ndarray | None  # (C,)
    dbias: np.ndarray | None  # (C,)


@functools.cache
def averaging(n, dtype):
    """An array (n,) filled with 1/n. The dot product of a row and this array is the row's mean."""
    return np.full(n, 1.0 / n, dtype)


def row_mean(a, b=None):
    """The mean of a, or of a ⊙ b, over the last axis, (..., 1); the array a ⊙ b is never allocated."""
    if b is None:
        return (a @ averaging(a.shape[-1], a.dtype))[..., None]
    return np.vecdot(a, b)[..., None] / a.shape[-1]


def normalise(x, eps):
    """Return x̂ (..., C), whose rows have mean 0 and variance 1; and 1 / √(variance + ε), (..., 1)."""
    x_hat = x - row_mean(x)  # (..., C), only centred so far
    variance = row_mean(x_hat, x_hat)  # (..., 1)
    inv_std = 1.0 / np.sqrt(variance + eps)  # (..., 1)
    x_hat *= inv_std
    return x_hat, inv_std


def layer_norm_forward(x, weight, bias, eps=1e-5, wanted=("x", "weight", "bias")):
    """Normalise each row of x to mean 0 and variance 1, then scale and shift.

        x̂ = (x − mean(x)) / √(var(x) + ε),    y = x̂ ⊙ w + b

    The variance is biased (divided by C), and ε is added before the square root.

    Parameters
    ----------
    x : array (..., C)
    weight, bias : array (C,)
    eps : float
    wanted : names of the operands whose gradients the backward pass will compute

    Returns
    -------
    y : array (..., C)
    cache : LayerNormCache
    """
    x_hat, inv_std = normalise(x, eps)
    y = x_hat * weight  # (..., C)
    y += bias
    cache = LayerNormCache(
        x_hat=x_hat if "x" in wanted or "weight" in wanted else None,
        inv_std=inv_std if "x" in wanted else None,
        weight=weight if "x" in wanted else None,
        wanted=tuple(wanted),
    )
    return y, cache


def layer_norm_backward(dy, cache):
    """Gradients of layer normalisation.

    y = x̂ ⊙ w + b gives db = Σ dy and dw = Σ dy ⊙ x̂, summed over rows, and dx̂ = dy ⊙ w.
    An element of x affects its row of x̂ in three ways: directly, through the mean, and through the variance. With
    σ = √(var + ε) and C elements in a row,

        ∂x̂_j/∂x_i = (δ_ij − 1/C − x̂_i x̂_j / C) / σ

    and the sum over j gives

        dx = (dx̂ − mean(dx̂) − x̂ ⊙ mean(dx̂ ⊙ x̂)) / σ

    Parameters
    ----------
    dy : array (..., C)
    cache : LayerNormCache

    Returns
    -------
    LayerNormGrads, with None for each operand that was not wanted
    """
    C = dy.shape[-1]
    dx = dweight = dbias = None
    # y = x̂ w + b
    if "bias" in cache.wanted:
        dbias = dy.reshape(-1, C).sum(axis=0)  # (C,)
    if "weight" in cache.wanted:
        dweight = np.einsum("nc,nc->c", dy.reshape(-1, C), cache.x_hat.reshape(-1, C))  # (C,)
    if "x" in cache.wanted:
        dx = dy * cache.weight  # dx̂ (..., C)
        # x̂ = (x − mean) / σ
        through_mean = row_mean(dx)  # (..., 1)
        through_variance = row_mean(dx, cache.x_hat)  # (..., 1)
        dx -= through_mean
        dx -= cache.x_hat * through_variance
        dx *= cache.inv_std
    return LayerNormGrads(dx, dweight, dbias)
