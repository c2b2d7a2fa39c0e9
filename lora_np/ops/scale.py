"""Multiplication of each column by its own factor: y = f ⊙ x."""

from typing import NamedTuple

import numpy as np


class ScaleCache(NamedTuple):
    x: np.ndarray | None  # (..., n), for dfactor
    factor: np.ndarray | None  # (n,), for dx
    wanted: tuple[str, ...]


class ScaleGrads(NamedTuple):
    dx: np.ndarray | None  # (..., n)
    dfactor: np.ndarray | None  # (n,)


def scale_forward(x, factor, wanted=("x", "factor")):
    """y = f ⊙ x.

    Parameters
    ----------
    x : array (..., n)
    factor : array (n,), f
    wanted : names of the operands whose gradients the backward pass will compute

    Returns
    -------
    y : array (..., n)
    cache : ScaleCache
    """
    cache = ScaleCache(x if "factor" in wanted else None, factor if "x" in wanted else None, tuple(wanted))
    return factor * x, cache


def scale_backward(dy, cache):
    """dx = f ⊙ dy, and df = Σ dy ⊙ x over all rows, because each f_i multiplies an entire column.

    Parameters
    ----------
    dy : array (..., n)
    cache : ScaleCache

    Returns
    -------
    ScaleGrads, with None for each operand that was not wanted
    """
    dx = dfactor = None
    n = dy.shape[-1]
    # y = f ⊙ x
    if "x" in cache.wanted:
        dx = cache.factor * dy  # (..., n)
    if "factor" in cache.wanted:
        dfactor = np.sum(dy.reshape(-1, n) * cache.x.reshape(-1, n), axis=0)  # (n,)
    return ScaleGrads(dx, dfactor)
