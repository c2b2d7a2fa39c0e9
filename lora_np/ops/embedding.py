"""Embedding lookup, for token and position embeddings."""

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
    weight : array (V, C), or an object that NumPy converts to one
    wanted : ("weight",), or () if no gradient is needed

    Returns
    -------
    y : array (..., C)
    cache : EmbeddingCache

    Raises
    ------
    ValueError
        If an id is outside the table. (NumPy would silently use the last row for −1.)
    """
    outside = (ids < 0) | (ids >= weight.shape[0])
    if outside.any():
        raise ValueError(f"ids: got {ids[outside].flat[0]}, expected 0 to {weight.shape[0] - 1}, the rows of the table")
    cache = EmbeddingCache(ids if "weight" in wanted else None, weight.shape)
    return weight[ids], cache  # (..., C)


def embedding_backward(dy, cache, into=None):
    """Gradient of the table.

    The forward pass copies a row of the table to every position where its id occurs, so the row's gradient is the sum
    over these positions: dweight[i] = Σ_{n : ids[n] = i} dy[n]. Sorting by id groups the rows with the same id, and
    `np.add.reduceat` sums each group.

    Parameters
    ----------
    dy : array (..., C)
    cache : EmbeddingCache
    into : array (V, C) or None, another gradient of the same table, such as a tied head's. The result is added to
        `into` in place, because allocating a second array of V rows would cost more than the rest of this function.

    Returns
    -------
    EmbeddingGrads, with None if no gradient was wanted
    """
    if cache.ids is None:
        return EmbeddingGrads(None)
    dweight = np.zeros_like(dy, shape=cache.table_shape) if into is None else into  # (V, C)
    order = np.argsort(cache.ids, axis=None, kind="stable")  # (N,)
    ids, starts = np.unique(cache.ids.ravel()[order], return_index=True)  # (U,), the distinct ids
    # y = weight[ids]; for repeated ids, `dweight[ids] += dy` would add only one row per id
    dweight[ids] += np.add.reduceat(dy.reshape(-1, dy.shape[-1])[order], starts)  # (U, C)
    return EmbeddingGrads(dweight)
