"""Table look-up: the token embedding and the position embedding."""

from typing import NamedTuple

import numpy as np


class EmbeddingCache(NamedTuple):
    ids: np.ndarray | None  # (...,) int
    table_shape: tuple[int, int]  # (V, C)


class EmbeddingGrads(NamedTuple):
    dweight: np.ndarray | None  # (V, C)


def embedding_forward(ids, weight, wanted=("weight",)):
    """y[n] = weight[ids[n]].

    Parameters
    ----------
    ids : int array (...,) with values in 0 … V−1
    weight : array (V, C)
    wanted : ("weight",), or () when no gradient will be asked for

    Returns
    -------
    y : array (..., C)
    cache : EmbeddingCache

    Raises
    ------
    ValueError
        If an id is outside the table. (NumPy would take −1 for the last row without a word.)
    """
    outside = (ids < 0) | (ids >= weight.shape[0])
    if outside.any():
        raise ValueError(
            f"ids: {ids[outside].flat[0]} is outside the table of {weight.shape[0]} rows "
            f"(expected 0 to {weight.shape[0] - 1})"
        )
    cache = EmbeddingCache(ids if "weight" in wanted else None, weight.shape)
    return weight[ids], cache  # (..., C)


def embedding_backward(dy, cache):
    """Gradient of the table.

    A row of the table is copied to every place where its id occurs, so its gradient is the sum over
    those places: dweight[i] = Σ_{n : ids[n] = i} dy[n]. Repeated ids accumulate.

    Parameters
    ----------
    dy : array (..., C)
    cache : EmbeddingCache

    Returns
    -------
    EmbeddingGrads
    """
    if cache.ids is None:
        return EmbeddingGrads(None)
    dweight = np.zeros(cache.table_shape, dtype=dy.dtype)  # (V, C)
    # y = weight[ids]; `dweight[ids] += dy` would count a repeated id once, add.at counts every one
    np.add.at(dweight, cache.ids.ravel(), dy.reshape(-1, dy.shape[-1]))
    return EmbeddingGrads(dweight)
