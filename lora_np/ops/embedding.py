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
    weight : array (V, C), or an object that NumPy makes one of
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
    return np.asanyarray(weight)[ids], cache  # (..., C)


def embedding_backward(dy, cache, into=None):
    """Gradient of the table.

    A row of the table is copied to every place where its id occurs, so its gradient is the sum over
    those places: dweight[i] = Σ_{n : ids[n] = i} dy[n]. Repeated ids accumulate: sorted by id, the rows
    that belong together stand together, and each run of them is summed.

    Parameters
    ----------
    dy : array (..., C)
    cache : EmbeddingCache
    into : array (V, C) or None, a gradient that the same table has from elsewhere (a tied head's). It is
        added to in place, as another array of V rows would cost more than all else here.

    Returns
    -------
    EmbeddingGrads
    """
    if cache.ids is None:
        return EmbeddingGrads(None)
    dweight = np.zeros_like(dy, shape=cache.table_shape) if into is None else into  # (V, C)
    order = np.argsort(cache.ids, axis=None, kind="stable")  # (N,)
    ids, starts = np.unique(cache.ids.ravel()[order], return_index=True)  # (U,), no id twice
    # y = weight[ids]; `dweight[ids] += dy` with repeated ids would count each once
    dweight[ids] += np.add.reduceat(dy.reshape(-1, dy.shape[-1])[order], starts)  # (U, C)
    return EmbeddingGrads(dweight)
