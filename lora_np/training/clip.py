"""Gradient clipping by global norm (Pascanu, Mikolov and Bengio 2013)."""

import math

import numpy as np

from .threads import balanced_groups


def global_norm(grads, run=map):
    """Return √Σ g² over the elements of all arrays, which is the norm of the concatenated gradient."""

    def sum_of_squares(names):
        return sum(square(grads[name]) for name in names)

    return math.sqrt(sum(run(sum_of_squares, balanced_groups(grads))))


def norm_of_squares(squares, arrays):
    """`global_norm` from the `square` of each array's gradient; `arrays` has these arrays in the gradients' order."""
    return math.sqrt(sum(sum(squares[name] for name in names) for names in balanced_groups(arrays)))


def square(grad):
    """Σ g² over an array."""
    return float(np.vdot(grad, grad))


def clip_by_global_norm(grads, max_norm, run=map):
    """Scale the gradient down to norm max_norm if its norm is larger.

    The factor is max_norm / norm. PyTorch's clip_grad_norm_ divides by norm + 1e-6 instead, so its clipped gradients
    are smaller, by a relative difference of about 1e-6 / norm.

    Parameters
    ----------
    grads : dict of arrays
    max_norm : float above 0, or None for no clipping
    run : `map`, or a thread pool's `map` to run in parallel; both give the same result

    Returns
    -------
    grads : dict, with new arrays if they were scaled
    norm : float, the norm before clipping
    """
    norm = global_norm(grads, run)
    factor = clip_factor(norm, max_norm)
    return grads if factor == 1.0 else {name: g * factor for name, g in grads.items()}, norm


def clip_factor(norm, max_norm):
    """The factor by which `clip_by_global_norm` multiplies a gradient with this norm."""
    max_norm = None if max_norm is None else float(max_norm)
    return 1.0 if max_norm is None or norm <= max_norm else max_norm / norm
