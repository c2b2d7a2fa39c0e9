"""The low-rank product of LoRA (Hu et al. 2021, section 4.1, equation 3): z = (e ⊙ (x Aᵀ)) Bᵀ.

Each row of x is projected down to r values and then up to `out` values, which costs r (in + out) multiplications. The
matrix B diag(e) A is never computed, because its product with a row would cost in · out multiplications. In LoRA, e is
a scalar, the scale s; in AdaLoRA and VeRA, it is a vector (r,).
"""

from typing import NamedTuple

import numpy as np

from .dropout import dropout_forward


class LowRankCache(NamedTuple):
    """x is cached before dropout: other layers cache the same array, whereas x ⊙ mask would be a new one."""

    x: np.ndarray | None  # (..., in), for dA
    u: np.ndarray | None  # (N, r), x̃ Aᵀ, for de and dB
    A: np.ndarray  # (r, in)
    e: float | np.ndarray  # a scalar, or (r,)
    B: np.ndarray  # (out, r)
    mask: np.ndarray | None
    wanted: tuple[str, ...]


class LowRankGrads(NamedTuple):
    dx: np.ndarray | None  # (..., in)
    dA: np.ndarray | None  # (r, in)
    de: np.ndarray | None  # (r,), or a scalar
    dB: np.ndarray | None  # (out, r)


def low_rank_forward(x, A, e, B, wanted=("x", "A", "B"), mask=None):
    """z = w Bᵀ with w = e ⊙ u, u = x̃ Aᵀ and x̃ = x ⊙ mask.

    Parameters
    ----------
    x : array (..., in)
    A : array (r, in), B : array (out, r)
    e : float, or array (r,)
    wanted : names of the operands whose gradients the backward pass will compute
    mask : array of x's shape from `dropout_mask`, or None

    Returns
    -------
    z : array (..., out)
    cache : LowRankCache
    """
    u = thin(x, A, mask)  # (N, r)
    z = (e * u) @ B.T  # (N, out); e multiplies r columns, not `out` columns
    return z.reshape(*x.shape[:-1], len(B)), low_rank_cache(x, A, e, B, wanted, mask, u)


def thin(x, A, mask):
    """u = x̃ Aᵀ, (N, r)."""
    return dropout_forward(x, mask)[0].reshape(-1, x.shape[-1]) @ A.T


def low_rank_cache(x, A, e, B, wanted, mask, u=None):
    """The cache for `low_rank_backward`; if the backward pass needs u = x̃ Aᵀ and `u` is None, u is computed."""
    if "B" not in wanted and "e" not in wanted:
        u = None
    elif u is None:
        u = thin(x, A, mask)
    return LowRankCache(x if "A" in wanted else None, u, A, e, B, mask, tuple(wanted))


def low_rank_backward(dz, cache):
    """Gradients of the low-rank product; the right column shows the steps of the forward pass, in reverse order:

        dB = dzᵀ w                    (out, r)      z = w Bᵀ
        dw = dz B                     (N, r)
        de = Σ_n dw ⊙ u               (r,)          w = e ⊙ u
        du = e ⊙ dw                   (N, r)
        dA = duᵀ x̃                    (r, in)       u = x̃ Aᵀ
        dx = (du A) ⊙ mask            (..., in)     x̃ = x ⊙ mask

    If B = 0, then dw = dz B = 0, so dA and de are also zero: a training step from B = 0 changes only B.

    Parameters
    ----------
    dz : array (..., out), or None if no gradient is wanted
    cache : LowRankCache

    Returns
    -------
    LowRankGrads, with None for each operand that was not wanted
    """
    x, u, A, e, B, mask, wanted = cache
    dx = dA = de = dB = None
    if dz is None:
        return LowRankGrads(dx, dA, de, dB)
    drows = dz.reshape(-1, dz.shape[-1])  # (N, out)
    # z = w Bᵀ
    if "B" in wanted:
        dB = drows.T @ (e * u)  # (out, r)
    if "x" in wanted or "A" in wanted or "e" in wanted:
        dw = drows @ B  # (N, r)
        # w = e ⊙ u
        if "e" in wanted:
            de = np.sum(dw * u, axis=0)  # (r,)
        du = e * dw  # (N, r)
        # u = x̃ Aᵀ
        if "A" in wanted:
            dropped = dropout_forward(x, mask)[0]
            dA = du.T @ dropped.reshape(-1, x.shape[-1])  # (r, in)
        # x̃ = x ⊙ mask
        if "x" in wanted:
            dx = (du @ A).reshape(*dz.shape[:-1], A.shape[1])  # (..., in)
            dx = dx if mask is None else dx * mask
    return LowRankGrads(dx, dA, de, dB)


def low_rank_weight_backward(dM, cache):
    """Gradients of A and B from the gradient of the matrix M = e B A: dB = e dM Aᵀ, dA = e Bᵀ dM.

    Parameters
    ----------
    dM : array (out, in)
    cache : LowRankCache, with a scalar e

    Returns
    -------
    LowRankGrads; dx and de are None
    """
    dA = cache.e * (cache.B.T @ dM) if "A" in cache.wanted else None
    dB = cache.e * (dM @ cache.A.T) if "B" in cache.wanted else None
    return LowRankGrads(None, dA, None, dB)
