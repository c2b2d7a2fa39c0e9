"""Intruder dimensions: leading directions of a tuned weight that the base has nowhere.

Full fine-tuning changes a weight's singular vectors a little, each. LoRA at a low rank tends to add new ones with
large singular values, nearly orthogonal to all that were there before; the more of them, the more of the base's task
is forgotten (Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence").
"""

from numbers import Real
from typing import NamedTuple

import numpy as np

from .spectra import numerical_rank, svd
from .subspaces import leading_directions


class Intruders(NamedTuple):
    number: int
    positions: tuple[int, ...]  # of the intruders among the tuned weight's singular vectors; 0 is the leading one
    similarities: np.ndarray  # (k,), of all that were looked at: see `max_similarities`


def max_similarities(before, after, k):
    """How well the base knows each of the tuned weight's k leading directions: max_i |cos(y_j, x_i)|.

    y_j are left singular vectors of the tuned weight, x_i all those of the base. Singular vectors have length 1 and
    an arbitrary sign, so the cosines are the entries of |XᵀY|. As in the authors' program, X has min(out, in)
    columns: where out > in, a vector outside the base's column space is similar to none of them. Nor do vectors
    count whose singular value in the base is zero up to rounding, since any basis of the null space would do.

    Two singular values of the base that are nearly equal leave their vectors open up to a rotation, and the tuned
    weight may have others: a similarity of two can then fall to 1/√2 and one of m to 1/√m with no intruder there.

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
        For matrices of different shapes, of zeros alone or with values that are not finite, or a k outside.
    """
    given = np.asarray(before)
    if np.shape(after) != given.shape:
        raise ValueError(f"after: got shape {np.shape(after)}, expected {given.shape} as before's")
    X, sigma, _ = svd(given, "before")
    rank = numerical_rank(sigma, given.shape, given.dtype)
    if not rank:
        raise ValueError("before: is zero throughout and has no direction")
    Y, _ = leading_directions(after, k, "after")  # (out, k)
    return np.minimum(np.abs(X[:, :rank].T @ Y).max(axis=0), 1.0)


def intruder_dimensions(before, after, k=10, epsilon=0.5):
    """The intruders among the k leading left singular vectors of a tuned weight: those of a similarity below ε.

    Source: Shuttleworth et al. 2024, algorithm 1; k = 10 and ε = 0.5 are the defaults of the authors' program and
    of PEFT's `reduce_intruder_dimension`. The paper's counts are sums over all tuned matrices of a model.

    Parameters
    ----------
    before, after, k : see `max_similarities`
    epsilon : float in (0, 1], ε. By chance alone a random direction has a similarity near √(2 ln(out) / out): an ε
        below that, for a small matrix, finds no intruder where there is one.

    Returns
    -------
    Intruders

    Examples
    --------
    >>> intruder_dimensions(params[name], merge(params, adapter)[name]).positions
    """
    if isinstance(epsilon, bool) or not isinstance(epsilon, Real) or not 0.0 < epsilon <= 1.0:
        raise ValueError(f"epsilon: got {epsilon!r}, expected 0 < epsilon ≤ 1")
    similarities = max_similarities(before, after, k)
    positions = tuple(np.flatnonzero(similarities < epsilon).tolist())
    return Intruders(len(positions), positions, similarities)
