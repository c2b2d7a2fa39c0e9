"""Does ΔW repeat what W does already, or amplify directions that W hardly uses? Hu et al. 2021, section 7.3."""

import math
from typing import NamedTuple

import numpy as np

from ..checked import finite_matrix, same_shape
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
    """How much larger ΔW is than W in ΔW's own directions.

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

    Returns
    -------
    Amplification

    Raises
    ------
    ValueError
        If the shapes differ, values are not finite, ΔW is zero, or r is out of bounds.
    """
    W, delta = finite_matrix("base", base), finite_matrix("update", update)
    same_shape("update", delta, W)
    along_update = strength(W, *leading_directions("update", update, r, "r"))
    along_base = float(np.linalg.norm(singular_values(W)[:r]))  # there UᵀWV is diagonal, with entries σᵢ
    along_random = strength(W, random_directions(W.shape[0], r, rng), random_directions(W.shape[1], r, rng))
    base_norm, update_norm = float(np.linalg.norm(W)), float(np.linalg.norm(delta))
    factor = update_norm / along_update if along_update else math.inf
    return Amplification(along_update, along_base, along_random, base_norm, update_norm, factor)


def strength(W, U, V):
    """‖Uᵀ W V‖_F: how strongly W (out, in) maps the directions V (in, r) to the directions U (out, r)."""
    return float(np.linalg.norm(U.T @ W @ V))
