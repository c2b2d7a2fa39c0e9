"""Intruder dimensions: leading directions of a tuned weight that the base does not have.

Full fine-tuning changes each of a weight's singular vectors a little. LoRA at a low rank tends to add new ones with
large singular values, nearly orthogonal to all earlier ones. The more there are, the more of the base's task is
forgotten (Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence").
"""

from typing import NamedTuple

import numpy as np

from ..checked import finite_number, same_shape
from .subspaces import leading_directions


class Intruders(NamedTuple):
    number: int
    positions: tuple[int, ...]  # of the intruders among the tuned weight's singular vectors; 0 is the leading one
    similarities: np.ndarray  # (k,), of all k directions; see `max_similarities`


def max_similarities(before, after, k):
    """How well the base knows each of the tuned weight's k leading directions: max_i |cos(y_j, x_i)|.

    y_j are left singular vectors of the tuned weight, x_i all those of the base. Singular vectors have length 1 and an
    arbitrary sign, so the cosines are the entries of |XᵀY|. As in the authors' program, X has min(out, in) columns: if
    out > in, a vector outside the base's column space is similar to none of them. Vectors whose singular value in the
    base is zero up to rounding do not count, because any basis of the null space would do.

    If m singular values of the base are nearly equal, their vectors are determined only up to a rotation, so a
    similarity can fall to 1/√m without an intruder.

    Parameters
    ----------
    before : array (out, in), the base's weight W
    after : array (out, in), the tuned weight W + ΔW
    k : int, at least 1 and at most the rank of `after`

    Returns
    -------
    array (k,) in [0, 1], the leading direction's first

    Raises
    ------
    ValueError
        If the shapes differ, a matrix is zero, values are not finite, or k is out of bounds.
    """
    same_shape("after", after, before)
    X, _ = leading_directions("before", before)  # (out, rank)
    Y, _ = leading_directions("after", after, k)  # (out, k)
    return np.minimum(np.abs(X.T @ Y).max(axis=0), 1.0)


def intruder_dimensions(before, after, k=10, epsilon=0.5):
    """The intruders among the k leading left singular vectors of a tuned weight: those with a similarity below ε.

    Source: Shuttleworth et al. 2024, algorithm 1; k = 10 and ε = 0.5 are the defaults of the authors' program and
    of PEFT's `reduce_intruder_dimension`. The paper's counts are sums over all tuned matrices of a model.

    Parameters
    ----------
    before, after, k : see `max_similarities`
    epsilon : float in (0, 1], ε. A random direction has a similarity near √(2 ln(out) / out) by chance, so with an ε
        below that a small matrix has no intruders.

    Returns
    -------
    Intruders

    Examples
    --------
    >>> intruder_dimensions(params[name], merge(params, adapter)[name]).positions
    """
    epsilon = finite_number("epsilon", epsilon, above=0, most=1)
    similarities = max_similarities(before, after, k)
    positions = tuple(np.flatnonzero(similarities < epsilon).tolist())
    return Intruders(len(positions), positions, similarities)
