"""Root mean square normalisation over the last axis (Zhang and Sennrich 2019, section 3)."""

from typing import NamedTuple

import numpy as np

from .layer_norm import row_mean


class RMSNormCache(NamedTuple):
    x_hat: np.ndarray | None  # (..., C), the normalised input, for dweight and dx
    inv_rms: np.ndarray | None  # (..., 1), 1 / √(mean(x²) + ε), for dx
    weight: np.ndarray | None  # (C,), for dx
    wanted: tuple[str, ...]


class RMSNormGrads(NamedTuple):
    dx: np.ndarray | None  # (..., C)
    dweight: np.ndarray | None  # (C,)


def normalise(x, eps):
    """Return x̂ (..., C), whose rows have a root mean square of 1, and 1 / √(mean(x²) + ε), (..., 1)."""
    inv_rms = 1.0 / np.sqrt(row_mean(x, x) + eps)  # (..., 1)
    return x * inv_rms, inv_rms


def rms_norm_forward(x, weight, eps=1e-5, wanted=("x", "weight")):
    """Divide each row of x by its root mean square, then scale: layer normalisation without mean subtraction or bias.

        x̂ = x / √(mean(x²) + ε),    y = x̂ ⊙ w

    Parameters
    ----------
    x : array (..., C)
    weight : array (C,)
    eps : float
    wanted : names of the operands whose gradients the backward pass will compute

    Returns
    -------
    y : array (..., C)
    cache : RMSNormCache
    """
    x_hat, inv_rms = normalise(x, eps)
    cache = RMSNormCache(
        x_hat=x_hat if wanted else None,
        inv_rms=inv_rms if "x" in wanted else None,
        weight=weight if "x" in wanted else None,
        wanted=tuple(wanted),
    )
    return x_hat * weight, cache  # (..., C)


def rms_norm_backward(dy, cache):
    """Gradients of RMS normalisation.

    y = x̂ ⊙ w gives dw = Σ dy ⊙ x̂, summed over rows, and dx̂ = dy ⊙ w. An element of x affects its row of x̂ directly and
    through ρ = 1 / √(mean(x²) + ε). Because ∂ρ/∂x_i = −ρ³ x_i / C = −ρ² x̂_i / C,

        ∂x̂_j/∂x_i = ρ (δ_ij − x̂_i x̂_j / C)

    and the sum over j gives

        dx = ρ (dx̂ − x̂ ⊙ mean(dx̂ ⊙ x̂))

    Parameters
    ----------
    dy : array (..., C)
    cache : RMSNormCache

    Returns
    -------
    RMSNormGrads, with None for each operand that was not wanted
    """
    C = dy.shape[-1]
    dx = dweight = None
    # y = x̂ w
    if "weight" in cache.wanted:
        dweight = np.einsum("nc,nc->c", dy.reshape(-1, C), cache.x_hat.reshape(-1, C))  # (C,)
    if "x" in cache.wanted:
        dx = dy * cache.weight  # dx̂ (..., C)
        # x̂ = ρ x
        dx -= cache.x_hat * row_mean(dx, cache.x_hat)
        dx *= cache.inv_rms
    return RMSNormGrads(dx, dweight)
