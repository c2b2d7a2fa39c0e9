"""Pruning: the weights of least magnitude become zero.

A mask is True where a weight stays. Among weights of equal magnitude the earlier one, in row-major order, is pruned
first, so the same weight always gives the same mask.
"""

import numpy as np

from ..checked import finite_number, whole_number
from .weight import check_weight


def magnitude_mask(weight, share):
    """Keep the largest weights of the whole matrix (Han et al. 2015, Learning both Weights and Connections, section 3).

    Parameters
    ----------
    weight : array (out, in), float32 or float64
    share : float in [0, 1], of the weights that are pruned: round(share · size) of them

    Returns
    -------
    array (out, in) of bool

    Raises
    ------
    TypeError, ValueError
        If the weight is not a finite matrix of float32 or float64, or share is outside [0, 1].
    """
    check_weight(weight)
    share = finite_number("share", share, least=0, most=1)
    order = np.argsort(np.abs(weight), axis=None, kind="stable")  # (size,), least magnitude first
    mask = np.ones(weight.size, dtype=bool)
    mask[order[: round(share * weight.size)]] = False
    return mask.reshape(weight.shape)  # (out, in)


def n_of_m_mask(weight, n=2, m=4):
    """Keep the n largest of every m neighbours in a row (Mishra et al. 2021, Accelerating Sparse Deep Neural Networks).

    Neighbours are along the input axis, over which a product sums. A processor for 2:4 stores two weights and two
    2-bit positions for every four, and picks the two inputs that they multiply: half the multiplications.

    Parameters
    ----------
    weight : array (out, in), float32 or float64
    n, m : int, 0 ≤ n ≤ m, m at least 1

    Returns
    -------
    array (out, in) of bool, with exactly n True in each group

    Raises
    ------
    TypeError, ValueError
        If the weight is not a finite matrix of float32 or float64, n or m is out of bounds, or m does not divide `in`.
    """
    check_weight(weight)
    m = whole_number("m", m)
    n = whole_number("n", n, least=0, most=m, why="m")
    n_out, n_in = weight.shape
    if n_in % m:
        raise ValueError(f"m: got {m} for a weight of shape {weight.shape}, expected a number that divides {n_in}")
    groups = np.abs(weight).reshape(n_out, n_in // m, m)
    order = np.argsort(groups, axis=-1, kind="stable")  # (out, in/m, m), least magnitude first
    mask = np.ones(groups.shape, dtype=bool)
    np.put_along_axis(mask, order[..., : m - n], False, axis=-1)
    return mask.reshape(weight.shape)  # (out, in)


def prune_magnitude(weight, share):
    """The weight with a share of its entries set to zero by `magnitude_mask`; a fresh array."""
    return np.where(magnitude_mask(weight, share), weight, np.zeros_like(weight))


def prune_n_of_m(weight, n=2, m=4):
    """The weight with all but n of every m neighbours set to zero by `n_of_m_mask`; a fresh array."""
    return np.where(n_of_m_mask(weight, n, m), weight, np.zeros_like(weight))
