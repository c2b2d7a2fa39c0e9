"""How many directions a matrix has: its singular values, and three ways to count them."""

from typing import NamedTuple

import numpy as np


class Spectrum(NamedTuple):
    singular_values: np.ndarray  # (min(out, in),), falling
    stable_rank: float
    effective_rank: float
    rank_90: int  # the rank that holds 90 % of the energy


def singular_values(matrix):
    """σ₁ ≥ σ₂ ≥ …, computed in float64 whatever the matrix's dtype.

    Parameters
    ----------
    matrix : array (out, in)

    Returns
    -------
    array (min(out, in),)
    """
    return np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)


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
    """
    B, A = (np.asarray(factor, dtype=np.float64) for factor in (B, A))
    return np.linalg.svd(np.linalg.qr(B, mode="r") @ np.linalg.qr(A.T, mode="r").T, compute_uv=False)


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


def spectrum(matrix):
    """Singular values of a matrix and its ranks.

    Parameters
    ----------
    matrix : array (out, in)

    Returns
    -------
    Spectrum
    """
    sigma = singular_values(matrix)
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


def svd(matrix):
    """U (out, n), σ (n,) and Vᵀ (n, in) with M = U diag(σ) Vᵀ and n = min(out, in), in float64."""
    return np.linalg.svd(np.asarray(matrix, dtype=np.float64), full_matrices=False)


def leading_part(u, sigma, vt, k):
    """Σ_{i ≤ k} σ_i u_i v_iᵀ, the sum of the first k terms of a decomposition."""
    if k < 0:
        raise ValueError(f"k: got {k}, expected at least 0")
    return (u[:, :k] * sigma[:k]) @ vt[:k]
