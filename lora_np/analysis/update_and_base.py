"""Compare an update with its base: find the directions that the update amplifies, and the new directions that it adds.

Amplification (Hu et al. 2021, section 7.3): does ΔW repeat W's leading directions, or amplify directions that are weak
in W?

Intruder dimensions (Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence") are those leading
directions of a fine-tuned weight that the base does not have. Full fine-tuning changes each singular vector of a
weight only slightly. LoRA with a low rank tends to add new singular vectors that have large singular values and are
nearly orthogonal to all singular vectors of the base. Models with more intruders forget more of the base's task.
"""

import math
from typing import NamedTuple

import numpy as np

from ..checked import finite_matrix, finite_number, same_shape
from .spectra import singular_values
from .subspaces import leading_directions, random_directions


class Amplification(NamedTuple):
    """The columns of table 7 in Hu et al. 2021, for one matrix. U (out, r) and V (in, r) are orthonormal directions."""

    update: float  # ‖Uᵀ W V‖_F with the r leading singular vectors of ΔW
    base: float  # ‖Uᵀ W V‖_F with W's own r leading singular vectors: the largest possible value
    random: float  # ‖Uᵀ W V‖_F with random directions
    base_norm: float  # ‖W‖_F
    update_norm: float  # ‖ΔW‖_F
    factor: float  # update_norm / update; infinite if W is zero in ΔW's directions


def amplification(base, update, r, rng):
    """Measure how much larger ΔW is than W in ΔW's own directions; return an `Amplification`.

    The paper writes ‖Uᵀ W Vᵀ‖_F with V's directions as rows; here they are columns. Compare the field `update` with

        base = √(σ₁² + … + σ_r²) of W; update / base, in [0, 1], measures how closely ΔW follows W's leading directions
        E[random²] = r² ‖W‖²_F / (out · in), the value expected by chance

    In the paper's table 7, `factor` is 21.5 (6.91 / 0.32) for r = 4, and 1.9 (3.57 / 1.90) for r = 64. In both cases,
    `update` (0.32 and 1.90) is far below `base` (21.67 and 37.71), but above `random` (0.02 and 0.33). So ΔW is neither
    a copy of W nor noise: it amplifies directions that W has but does not emphasise.

    Parameters
    ----------
    base : array (out, in), W
    update : array (out, in), ΔW, from `adapters.adapter_deltas`. (The difference between two float32 models contains
        rounding errors, which can look like directions beyond ΔW's rank.)
    r : int from 1 to the rank of ΔW
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
    along_base = float(np.linalg.norm(singular_values(W)[:r]))  # for these, UᵀWV is diagonal with entries σᵢ
    along_random = strength(W, random_directions(len(U), r, rng), random_directions(len(V), r, rng))
    base_norm, update_norm = float(np.linalg.norm(W)), float(np.linalg.norm(delta))
    factor = update_norm / along_update if along_update else math.inf
    return Amplification(along_update, along_base, along_random, base_norm, update_norm, factor)


def strength(W, U, V):
    """‖Uᵀ W V‖_F: how strongly W (out, in) maps the directions V (in, r) to the directions U (out, r)."""
    return float(np.linalg.norm(U.T @ W @ V))


class Intruders(NamedTuple):
    number: int
    positions: tuple[int, ...]  # the intruders' indices among the fine-tuned weight's singular vectors
    similarities: np.ndarray  # (k,), the similarities of all k directions; see `max_similarities`


def max_similarities(before, after, k):
    """Measure how similar each of a fine-tuned weight's k leading directions is to the base: max_i |cos(y_j, x_i)|.

    y_j are the leading left singular vectors of the fine-tuned weight, and x_i are all left singular vectors of the
    base. Singular vectors have length 1 and an arbitrary sign, so the |cosines| are the entries of |XᵀY|. As in the
    authors' code, X has at most min(out, in) columns: if out > in, a vector orthogonal to the base's column space is
    similar to none of them. Vectors with a singular value of zero, up to rounding, are excluded, because they are
    arbitrary.

    If m singular values of the base are nearly equal, their singular vectors are determined only up to a rotation, so a
    similarity can be as low as 1/√m even if there is no intruder.

    Parameters
    ----------
    before : array (out, in), the base's weight W
    after : array (out, in), the fine-tuned weight W + ΔW
    k : int from 1 to the rank of `after`

    Returns
    -------
    array (k,) in [0, 1], in the order of the directions

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
    """The `Intruders` among a fine-tuned weight's k leading left singular vectors: those with a similarity below ε.

    Source: Shuttleworth et al. 2024, algorithm 1; k = 10 and ε = 0.5 are the defaults of the authors' code and of
    PEFT's `reduce_intruder_dimension`. The paper's counts are sums over all adapted matrices of a model.

    Parameters
    ----------
    before, after, k : see `max_similarities`
    epsilon : float in (0, 1], ε. A random direction has a similarity near √(2 ln(out) / out), so if ε is below this
        value, hardly any direction is classified as an intruder.

    Examples
    --------
    >>> intruder_dimensions(params[name], merge(params, adapter)[name]).positions
    """
    epsilon = finite_number("epsilon", epsilon, above=0, most=1)
    similarities = max_similarities(before, after, k)
    positions = tuple(np.flatnonzero(similarities < epsilon).tolist())
    return Intruders(len(positions), positions, similarities)
