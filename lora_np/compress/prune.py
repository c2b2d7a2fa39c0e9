"""Magnitude pruning: set the weights with the smallest magnitudes to zero.

A mask is True where a weight is kept. Of weights with equal magnitudes, the first in row-major order is pruned first.
"""

import numpy as np

from ..checked import finite_number, whole_number
from .weight import check_weight


def magnitude_mask(weight, share):
    """Mask of a matrix's largest magnitudes (Han et al. 2015, Learning both Weights and Connections, section 3).

    Parameters
    ----------
    weight : array (out, in), float32 or float64
    share : float in [0, 1], the fraction of weights to prune; round(share · size) weights are pruned

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
    return largest_mask(weight, weight.size, round(share * weight.size))


def n_of_m_mask(weight, n=2, m=4):
    """Mask of the n largest of every m adjacent weights (Mishra et al. 2021, Accelerating Sparse Deep Neural Networks).

    Weights are adjacent along the input axis, over which a matrix product sums. For every four weights, hardware for
    2:4 sparsity stores two of them with their 2-bit positions, and multiplies only the inputs at these positions.

    Parameters
    ----------
    weight : array (out, in), float32 or float64
    n, m : int, 0 ≤ n ≤ m, m at least 1

    Returns
    -------
    array (out, in) of bool, with exactly n True entries in each group of m

    Raises
    ------
    TypeError, ValueError
        If the weight is not a finite matrix of float32 or float64, n or m is out of range, or m does not divide `in`.
    """
    check_weight(weight)
    m = whole_number("m", m)
    n = whole_number("n", n, least=0, most=m, why="m")
    n_in = weight.shape[1]
    if n_in % m:
        raise ValueError(f"m: got {m} for a weight of shape {weight.shape}, expected a divisor of {n_in}")
    return largest_mask(weight, m, m - n)


def largest_mask(weight, group_size, n_pruned):
    """Return a mask (out, in) that is False at the `n_pruned` smallest magnitudes in each group of adjacent weights."""
    groups = np.abs(weight).reshape(-1, group_size)
    order = np.argsort(groups, axis=-1, kind="stable")  # (groups, group_size), smallest magnitude first
    mask = np.ones(groups.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :n_pruned], False, axis=-1)
    return mask.reshape(weight.shape)


def prune_magnitude(weight, share):
    """Return a copy of the weight with zeros where `magnitude_mask` is False."""
    return np.where(magnitude_mask(weight, share), weight, np.zeros_like(weight))


def prune_n_of_m(weight, n=2, m=4):
    """Return a copy of the weight with zeros where `n_of_m_mask` is False."""
    return np.where(n_of_m_mask(weight, n, m), weight, np.zeros_like(weight))
