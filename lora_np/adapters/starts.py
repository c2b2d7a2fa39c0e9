"""Initialisations that compute A and B from the base's weight: PiSSA, OLoRA, LoftQ.

LoRA starts with B = 0, so its update is zero. Here, s B A initially contains a part of W, or approximates W's
quantisation error, and the frozen base contains the rest:

    W_rest + s B A = W          PiSSA, OLoRA: exact up to rounding
    Q      + s B A ≈ W          LoftQ: closer to W than NF4(W) is

Training therefore uses a base that differs from the original one. After PiSSA or OLoRA, the trained model equals the
original base with an ordinary LoRA adapter of twice the rank, namely the trained adapter minus the initial one:

    W_rest + s B A = W + s B A − s B₀ A₀        mix(params, {"trained": …, "start": …}, {"trained": 1, "start": -1})

This adapter, computed by `mix.for_original_base`, can be swapped, saved and merged like any other.
"""

import numpy as np

from ..compress import quantise_nf4
from . import lora
from .config import scaling

LOFTQ_STEPS = 5  # as in the paper's experiments


def pissa(weight, config):
    """Train the r leading singular directions and freeze the rest (Meng et al. 2024, section 3, equations 2-4).

    W = U Σ Vᵀ,  B = U_r √(Σ_r/s),  A = √(Σ_r/s) V_rᵀ,  W_rest = W − s B A.

    Parameters
    ----------
    weight : array (out, in)
    config : AdapterConfig of this layer

    Returns
    -------
    rest : array (out, in), of the weight's dtype
    factors : dict with lora_A (r, in) and lora_B (out, r)

    Raises
    ------
    ValueError
        If alpha is not above 0.
    """
    factors = leading_factors(weight, config)
    return np.asarray(weight) - lora.delta(weight, factors, config), factors


def olora(weight, config):
    """Make B's columns orthonormal: W = Q R, B = Q_r, A = R_r, W_rest = W − s B A (Büyükakyüz 2024, section 3).

    Parameters and results as in `pissa`.
    """
    Q, R = np.linalg.qr(np.asarray(weight, dtype=np.float64))  # (out, n), (n, in)
    factors = {"lora_A": R[: config.r].astype(weight.dtype), "lora_B": Q[:, : config.r].astype(weight.dtype)}
    return np.asarray(weight) - lora.delta(weight, factors, config), factors


def loftq(weight, config):
    """Alternate quantisation and low-rank approximation to reduce the total error (Li et al. 2023, algorithm 1).

        Q ← NF4(W − s B A),   s B A ← the r leading directions of W − Q        five times, starting with B A = 0

    The parameters and results are those of `pissa`, except that `rest` is an NF4Weight.
    """
    weight = np.asarray(weight)
    low = np.zeros_like(weight)
    for _ in range(LOFTQ_STEPS):
        quantised = quantise_nf4(weight - low)
        factors = leading_factors(weight - np.asarray(quantised), config)
        low = lora.delta(weight, factors, config)
    return quantised, factors


STARTS = {"pissa": pissa, "olora": olora, "loftq": loftq}


def leading_factors(matrix, config):
    """A and B such that s B A is the matrix's best rank-r approximation; each contains the factor √(Σ_r/s)."""
    scale = scaling(config)
    if not scale > 0:
        raise ValueError(f"alpha: got {config.alpha}, expected a number above 0 for init {config.init!r}")
    return svd_factors(matrix, config.r, scale)[0]


def svd_factors(matrix, r, scale):
    """Return A and B as in `leading_factors`, of rank min(r, out, in), and all singular values of the matrix."""
    U, sigma, Vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64), full_matrices=False)  # (out, n), (n,), (n, in)
    root = np.sqrt(sigma[:r] / scale)  # (r,)
    lora_A, lora_B = root[:, None] * Vt[:r], U[:, :r] * root  # (r, in), (out, r)
    return {"lora_A": lora_A.astype(matrix.dtype), "lora_B": lora_B.astype(matrix.dtype)}, sigma
