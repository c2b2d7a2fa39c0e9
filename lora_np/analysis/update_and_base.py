"""What an update does to its base: which of the base's directions it amplifies, and which new ones it leads with.

Amplification (Hu et al. 2021, section 7.3): does ΔW repeat what W does already, or bring out what W hardly uses?

Intruder dimensions (Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence"): leading
directions of a tuned weight that the base does not have. Full fine-tuning changes each of a weight's singular vectors a
little. LoRA at a low rank tends to add new ones with large singular values, nearly orthogonal to all earlier ones. The
more there are, the more of the base's task is forgotten.
"""

import math
from typing import NamedTuple

import numpy as np

from ..checked import finite_matrix, finite_number, same_shape
from .spectra import singular_values
from .subspaces import leading_directions, random_directions


class Amplification(NamedTuple):
    """The columns of the paper's table 7, for one matrix. U (out, r) and V (in, r) are orthonormal directions."""

    update: float  # ‖Uᵀ W V‖_F with the r leading singular vectors of ΔW
    base: float  # ‖Uᵀ W V‖_F with those of W itself: the largest possible value
    random: float  # ‖Uᵀ W V‖_F with random directions
    base_norm: float  # ‖W‖_F
    update_norm: float  # ‖ΔW‖_F
    factor: float  # update_norm / update; infinite if W has nothing in ΔW's directions


def amplification(base, update, r, rng):
    """How much larger ΔW is than W in ΔW's own directions, as an `Amplification`.

    The paper writes ‖Uᵀ W Vᵀ‖_F with V's directions as rows; here they are columns. Compare `update` with

        base = √(σ₁² + … + σ_r²) of W; update / base, in [0, 1], says how far ΔW follows W's leading directions
        E[random²] = r² ‖W‖²_F / (out · in), which is chance

    In the paper's table 7, `factor` is 21.5 for r = 4 (6.91 / 0.32) and 1.9 for r = 64 (3.57 / 1.90), with `update`
    far below `base` (21.67 and 37.71) and above `random` (0.02 and 0.33). So ΔW neither repeats W nor is noise: it
    amplifies directions that W has but does not emphasise.

    Parameters
    ----------
    base : array (out, in), W
    update : array (out, in), ΔW, from `adapters.adapter_deltas`. (The difference of two float32 models contains W's
        rounding, which can look like directions beyond the rank of ΔW.)
    r : int, at least 1 and at most the rank of ΔW
    rng : np.random.Generator, for the random directions

    Raises
    ------
    ValueError
        If the shapes differ, values are not finite, ΔW is zero, or r is out of bounds.
    """
    W, delta = finite_matrix("base", base), finite_matrix("update", update)
    same_shape("update", delta, W)
    U, V = leading_directions("update", update, r, "r")
    along_update = strength(W, U, V)
    along_base = float(np.linalg.norm(singular_values(W)[:r]))  # there UᵀWV is diagonal, with entries σᵢ
    along_random = strength(W, random_directions(len(U), r, rng), random_directions(len(V), r, rng))
    base_norm, update_norm = float(np.linalg.norm(W)), float(np.linalg.norm(delta))
    factor = update_norm / along_update if along_update else math.inf
    return Amplification(along_update, along_base, along_random, base_norm, update_norm, factor)


def strength(W, U, V):
    """‖Uᵀ W V‖_F: how strongly W (out, in) maps the directions V (in, r) to the directions U (out, r)."""
    return float(np.linalg.norm(U.T @ W @ V))


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
    """The `Intruders` among the k leading left singular vectors of a tuned weight: those with a similarity below ε.

    Source: Shuttleworth et al. 2024, algorithm 1; k = 10 and ε = 0.5 are the defaults of the authors' program and
    of PEFT's `reduce_intruder_dimension`. The paper's counts are sums over all tuned matrices of a model.

    Parameters
    ----------
    before, after, k : see `max_similarities`
    epsilon : float in (0, 1], ε. A random direction has a similarity near √(2 ln(out) / out) by chance, so with an ε
        below that a small matrix has no intruders.

    Examples
    --------
    >>> intruder_dimensions(params[name], merge(params, adapter)[name]).positions
    """
    epsilon = finite_number("epsilon", epsilon, above=0, most=1)
    similarities = max_similarities(before, after, k)
    positions = tuple(np.flatnonzero(similarities < epsilon).tolist())
    return Intruders(len(positions), positions, similarities)
