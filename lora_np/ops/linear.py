"""The linear layer, y = x Wᵀ + b.

The weight may be an array, or any object that NumPy converts to one, such as a quantised weight. Each matrix
product converts such an object to a temporary array; a large one, in tiles of rows.
"""

from typing import NamedTuple

import numpy as np

LARGE = 2**25  # entries; larger weights that are not arrays are converted in tiles
TILE = 2**24  # entries of a tile: 64 MB in float32


class LinearCache(NamedTuple):
    """The operands that the backward pass needs; a field is None if no gradient in `wanted` needs it."""

    x: np.ndarray | None  # (..., in), only for dweight: a frozen weight needs no activation
    weight: np.ndarray | None  # (out, in), only for dx; not converted to an array
    wanted: tuple[str, ...]


class LinearGrads(NamedTuple):
    dx: np.ndarray | None  # (..., in)
    dweight: np.ndarray | None  # (out, in)
    dbias: np.ndarray | None  # (out,)


def dense_if_small(weight):
    """The weight as an array, unless it is large and not an array."""
    return weight if is_tiled(weight) else np.asanyarray(weight)


def is_tiled(weight):
    """Whether products convert a weight in tiles."""
    return not isinstance(weight, np.ndarray) and weight.size > LARGE


def tiles(weight):
    """Yield a weight (out, in) in tiles of rows: (slice of rows, array of these rows). An array is a single tile."""
    if not is_tiled(weight):
        yield slice(None), np.asanyarray(weight)
        return
    n_out, n_in = weight.shape
    for start in range(0, n_out, max(1, TILE // n_in)):
        rows = slice(start, min(n_out, start + max(1, TILE // n_in)))
        yield rows, weight.rows(rows)


def sum_of(products):
    """The sum of an iterator's arrays, added up in place."""
    total = next(products)
    for product in products:
        total += product
    return total


def linear_forward(x, weight, bias=None, wanted=("x", "weight", "bias")):
    """Apply y = x Wᵀ + b to the last axis of x.

    Parameters
    ----------
    x : array (..., in)
    weight : array (out, in), or an object that NumPy converts to one
    bias : array (out,) or None
    wanted : names of the operands whose gradients the backward pass will compute

    Returns
    -------
    y : array (..., out)
    cache : LinearCache
    """
    rows = x.reshape(-1, x.shape[-1])  # (N, in): one large product instead of many small ones
    if is_tiled(weight):
        y = np.empty((len(rows), weight.shape[0]), x.dtype)
        for columns, tile in tiles(weight):
            np.matmul(rows, tile.T, out=y[:, columns])
    else:
        y = rows @ np.asanyarray(weight).T  # (N, out)
    if bias is not None:
        y += bias
    cache = LinearCache(x if "weight" in wanted else None, weight if "x" in wanted else None, tuple(wanted))
    return y.reshape(*x.shape[:-1], weight.shape[0]), cache  # (..., out)


def linear_backward(dy, cache):
    """Gradients of a linear layer.

    One output element is y_no = Σ_i x_ni W_oi + b_o, which is linear in each operand. By the chain rule, the gradient
    of an operand's element is a sum over all outputs to which the element contributes:

        dx_ni = Σ_o dy_no W_oi      dx = dy W
        dW_oi = Σ_n dy_no x_ni      dW = dyᵀ x
        db_o  = Σ_n dy_no           db = column sums of dy

    Parameters
    ----------
    dy : array (..., out), or None if no gradient is wanted
    cache : LinearCache

    Returns
    -------
    LinearGrads, with None for each operand that was not wanted
    """
    dx = dweight = dbias = None
    if dy is None:
        return LinearGrads(dx, dweight, dbias)
    drows = dy.reshape(-1, dy.shape[-1])  # (N, out)
    # y = x Wᵀ + b
    if "x" in cache.wanted:
        dx = sum_of(drows[:, columns] @ tile for columns, tile in tiles(cache.weight))
        dx = dx.reshape(*dy.shape[:-1], cache.weight.shape[1])  # (..., in)
    if "weight" in cache.wanted:
        dweight = drows.T @ cache.x.reshape(-1, cache.x.shape[-1])  # (out, in)
    if "bias" in cache.wanted:
        dbias = drows.sum(axis=0)  # (out,)
    return LinearGrads(dx, dweight, dbias)
