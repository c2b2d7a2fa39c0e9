"""How many directions a matrix has: its singular values, and three ways to count them."""

from typing import NamedTuple

import numpy as np

from .checked import finite_matrix


class Spectrum(NamedTuple):
    singular_values: np.ndarray  # (min(out, in),), falling
    stable_rank: float
    effective_rank: float
    rank_90: int  # the rank that holds 90 % of the energy


def singular_values(matrix, name="matrix"):
    """σ₁ ≥ σ₂ ≥ …, computed in float64 whatever the matrix's dtype.

    Parameters
    ----------
    matrix : array (out, in)
    name : str, what an error calls the matrix

    Returns
    -------
    array (min(out, in),)

    Raises
    ------
    ValueError
        For other than two axes, no entries, or entries that are not finite.
    """
    return np.linalg.svd(finite_matrix(matrix, name), compute_uv=False)


def product_singular_values(B, A):
    """Those of B A that can differ from zero, without forming it, in float64.

    With B = Q_B R_B and Aᵀ = Q_A R_A, B A = Q_B (R_B R_Aᵀ) Q_Aᵀ, and the Q's, whose columns are orthonormal, leave
    the singular values of what stands between them as they are.

    Parameters
    ----------
    B : array (out, r), A : array (r, in)

    Returns
    -------
    array (min(out, r, in),), falling

    Raises
    ------
    ValueError
        For factors that do not fit each other, have no entries, or hold values that are not finite.
    """
    B, A = fitting_factors(B, A)
    return np.linalg.svd(np.linalg.qr(B, mode="r") @ np.linalg.qr(A.T, mode="r").T, compute_uv=False)


def fitting_factors(B, A):
    """B (out, r) and A (r, in) in float64."""
    B, A = finite_matrix(B, "B"), finite_matrix(A, "A")
    if len(A) != B.shape[1]:
        raise ValueError(f"A: got shape {A.shape}, expected {B.shape[1]} rows for B of shape {B.shape}")
    return B, A


def numerical_rank(sigma, shape, dtype):
    """How many singular values are more than rounding: above σ₁ · max(out, in) · ε, `np.linalg.matrix_rank`'s rule.

    Parameters
    ----------
    sigma : array of singular values, falling
    shape : (out, in)
    dtype : of the matrix as it came: its entries have float64's ε or, in fewer bits, float32's. (By float16's own ε
        of 1e-3, real directions would count as rounding.)

    Returns
    -------
    int, 0 for the zero matrix
    """
    epsilon = np.finfo(np.float32 if dtype in (np.float16, np.float32) else np.float64).eps
    return int(np.sum(sigma > sigma[0] * max(shape) * epsilon))


def stable_rank(sigma):
    """Σ σ² / σ₁², that is ‖M‖²_F / ‖M‖²₂: never above the rank, and steady under small noise.

    Source: Rudelson and Vershynin 2007, section 1. Zero for the zero matrix.
    """
    return float(np.sum((sigma / sigma[0]) ** 2)) if sigma[0] > 0 else 0.0  # no square of a tiny σ₁, which would be 0


def effective_rank(sigma):
    """exp(−Σ p ln p) with p = σ / Σ σ: the number of equal singular values of the same entropy.

    Source: Roy and Vetterli 2007, definition 1. Zero for the zero matrix.
    """
    if not sigma[0] > 0:
        return 0.0
    p = sigma / sigma.sum()
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def rank_at_energy(sigma, share=0.9):
    """The smallest k with Σ_{i ≤ k} σ_i² ≥ share · Σ σ². Zero for the zero matrix.

    Parameters
    ----------
    sigma : array of singular values, falling
    share : float in (0, 1]
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share: got {share}, expected 0 < share ≤ 1")
    if not sigma[0] > 0:
        return 0
    energy = np.cumsum(sigma**2)
    return int(np.searchsorted(energy, share * energy[-1])) + 1


def spectrum(matrix, name="matrix"):
    """Singular values of a matrix and its ranks.

    Parameters
    ----------
    matrix, name : see `singular_values`

    Returns
    -------
    Spectrum
    """
    sigma = singular_values(matrix, name)
    return Spectrum(sigma, stable_rank(sigma), effective_rank(sigma), rank_at_energy(sigma))


def truncate(matrix, k):
    """The closest matrix of rank at most k in Frobenius norm (Eckart and Young 1936).

    Parameters
    ----------
    matrix : array (out, in)
    k : int, at least 0

    Returns
    -------
    array (out, in), of the matrix's dtype
    """
    return leading_part(*svd(matrix), k).astype(matrix.dtype)


def svd(matrix, name="matrix"):
    """U (out, n), σ (n,) and Vᵀ (n, in) with M = U diag(σ) Vᵀ and n = min(out, in), in float64."""
    return np.linalg.svd(finite_matrix(matrix, name), full_matrices=False)


def leading_part(u, sigma, vt, k):
    """Σ_{i ≤ k} σ_i u_i v_iᵀ, the sum of the first k terms of a decomposition."""
    if k < 0:
        raise ValueError(f"k: got {k}, expected at least 0")
    return (u[:, :k] * sigma[:k]) @ vt[:k]
