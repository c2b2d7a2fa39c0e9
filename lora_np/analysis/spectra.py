"""The spectrum of a matrix: its singular values, and three measures of its rank."""

from typing import NamedTuple

import numpy as np

from ..checked import finite_array, finite_matrix, finite_number, whole_number


class Spectrum(NamedTuple):
    singular_values: np.ndarray  # (min(out, in),), in descending order
    stable_rank: float
    effective_rank: float
    rank_90: int  # the smallest rank with 90 % of the energy


def singular_values(matrix):
    """The singular values σ₁ ≥ σ₂ ≥ …, computed in float64.

    Parameters
    ----------
    matrix : array (out, in)

    Returns
    -------
    array (min(out, in),)

    Raises
    ------
    ValueError
        If the matrix does not have two axes, is empty, or contains values that are not finite.
    """
    return np.linalg.svd(finite_matrix("matrix", matrix), compute_uv=False)


def product_singular_values(B, A):
    """The first min(out, r, in) singular values of B A, in float64; the others are zero. The product is not computed.

    With B = Q_B R_B and Aᵀ = Q_A R_A, B A = Q_B (R_B R_Aᵀ) Q_Aᵀ. The Q's have orthonormal columns, so the singular
    values are those of R_B R_Aᵀ.

    Parameters
    ----------
    B : array (out, r), A : array (r, in)

    Returns
    -------
    array (min(out, r, in),), in descending order

    Raises
    ------
    ValueError
        If the shapes of B and A do not match, or a factor is empty or contains values that are not finite.
    """
    return np.linalg.svd(small_product(B, A)[0], compute_uv=False)


def small_product(B, A):
    """R_B R_Aᵀ and Q_A (in, min(r, in)) as in `product_singular_values`, in float64."""
    B, A = finite_matrix("B", B), finite_matrix("A", A)
    if len(A) != B.shape[1]:
        raise ValueError(f"A: got shape {A.shape}, expected {B.shape[1]} rows for B of shape {B.shape}")
    Q_A, R_A = np.linalg.qr(A.T)
    return np.linalg.qr(B, mode="r") @ R_A.T, Q_A


def stable_rank(sigma):
    """The stable rank Σ σ² / σ₁² = ‖M‖²_F / ‖M‖²₂, which is at most the rank and robust to small noise.

    Source: Rudelson and Vershynin 2007, section 1.

    Parameters
    ----------
    sigma : array (n,) of singular values, in descending order

    Returns
    -------
    float from 1 to n; 0 for the zero matrix
    """
    sigma = relative(sigma)
    return float(np.sum(sigma**2))


def effective_rank(sigma):
    """The effective rank exp(−Σ p ln p) with p = σ / Σ σ, which is n for n equal singular values.

    Source: Roy and Vetterli 2007, definition 1.

    Parameters and results are as in `stable_rank`.
    """
    sigma = relative(sigma)
    if not sigma.any():
        return 0.0
    p = sigma[sigma > 0] / sigma.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def rank_at_energy(sigma, share=0.9):
    """The smallest integer k with Σ_{i ≤ k} σ_i² ≥ share · Σ σ², for `share` in (0, 1].

    `sigma` and the range of the result are as in `stable_rank`.
    """
    share = finite_number("share", share, above=0, most=1)
    sigma = relative(sigma)
    if not sigma.any():
        return 0
    energy = np.cumsum(sigma**2)
    return int(np.searchsorted(energy, share * energy[-1])) + 1


def relative(sigma):
    """σ / σ₁ in float64, so that squares neither overflow nor underflow; zeros for the zero matrix.

    Raises ValueError unless sigma has one axis and is finite, non-negative and in descending order.
    """
    sigma = finite_array("sigma", sigma)
    if sigma.ndim != 1:
        raise ValueError(f"sigma: got shape {sigma.shape}, expected singular values (n,), not the matrix")
    if sigma[-1] < 0 or (np.diff(sigma) > 0).any():
        raise ValueError("sigma: got negative or increasing values, expected singular values in descending order")
    return sigma / sigma[0] if sigma[0] > 0 else sigma


def spectrum(matrix):
    """The `Spectrum` of a matrix (out, in). Errors are as in `singular_values`."""
    sigma = singular_values(matrix)
    return Spectrum(sigma, stable_rank(sigma), effective_rank(sigma), rank_at_energy(sigma))


def truncate(matrix, k):
    """The closest matrix of rank at most k in Frobenius norm (Eckart and Young 1936).

    Parameters
    ----------
    matrix : array (out, in)
    k : int, at least 0; if k is at least the matrix's rank, the result is the matrix itself, up to rounding

    Returns
    -------
    array (out, in), of the matrix's dtype

    Raises
    ------
    ValueError
        If the matrix is not finite, or k is out of bounds.
    """
    matrix = np.asarray(matrix)
    return leading_part(*svd(matrix), k).astype(matrix.dtype)


def svd(matrix, name="matrix"):
    """U (out, n), σ (n,) and Vᵀ (n, in) with M = U diag(σ) Vᵀ and n = min(out, in), in float64."""
    return np.linalg.svd(finite_matrix(name, matrix), full_matrices=False)


def leading_part(u, sigma, vt, k):
    """Σ_{i ≤ k} σ_i u_i v_iᵀ, the first k terms of a singular value decomposition."""
    k = whole_number("k", k, least=0)
    return (u[:, :k] * sigma[:k]) @ vt[:k]
