"""Gradient clipping by global norm (Pascanu, Mikolov and Bengio 2013)."""

import math

import numpy as np

from .groups import balanced_groups


def global_norm(grads, run=map):
    """√Σ g² over every element of every array: the length of the gradient as one long vector."""

    def sum_of_squares(names):
        return sum(float(np.vdot(grads[name], grads[name])) for name in names)

    return math.sqrt(sum(run(sum_of_squares, balanced_groups(grads))))


def clip_by_global_norm(grads, max_norm, run=map):
    """Scale the whole gradient down to max_norm if it is longer; its direction stays.

    The factor is max_norm / norm. PyTorch's clip_grad_norm_ divides by norm + 1e-6, so its clipped gradients are
    shorter by about 1e-6 / norm.

    Parameters
    ----------
    grads : dict of arrays
    max_norm : float above 0, or None for no clipping
    run : `map`, or a pool's `map` to work in parallel threads; changes the time and no number

    Returns
    -------
    grads : dict, of new arrays if they were scaled
    norm : float, before clipping
    """
    norm = global_norm(grads, run)
    max_norm = None if max_norm is None else float(max_norm)
    if max_norm is None or norm <= max_norm:
        return grads, norm
    return {name: g * (max_norm / norm) for name, g in grads.items()}, norm
