"""SwiGLU (Shazeer 2020, section 2): one projection, passed through SiLU, gates another."""

from typing import NamedTuple

import numpy as np

from .blocks import blocks


class SwigluCache(NamedTuple):
    """The factors by which the backward pass multiplies dy, computed in the forward pass from the same sigmoid as y."""

    by_gate: np.ndarray | None  # (..., F), ∂y/∂a
    by_up: np.ndarray | None  # (..., F), ∂y/∂u
    wanted: tuple[str, ...]


class SwigluGrads(NamedTuple):
    dgate: np.ndarray | None  # (..., F)
    dup: np.ndarray | None  # (..., F)


def sigmoid(a):
    """σ(a) = 1 / (1 + exp(−a)) = ½ (1 + tanh(a/2)); the second form does not overflow."""
    sigma = 0.5 * a
    np.tanh(sigma, out=sigma)
    sigma *= 0.5
    sigma += 0.5
    return sigma


def swiglu_forward(gate, up, wanted=("gate", "up")):
    """y = silu(a) ⊙ u with silu(a) = a σ(a), element by element.

    Parameters
    ----------
    gate, up : array (..., F), a and u
    wanted : names of the operands whose gradients the backward pass will compute

    Returns
    -------
    y : array (..., F)
    cache : SwigluCache
    """
    y = np.empty_like(gate, order="C")
    by_gate = np.empty_like(y) if "gate" in wanted else None
    by_up = np.empty_like(y) if "up" in wanted else None
    outputs = [array for array in (y, by_gate, by_up) if array is not None]
    for a, u, y_piece, *pieces in blocks(gate, up, *outputs):
        sigma = sigmoid(a)
        silu = np.multiply(a, sigma, out=pieces[-1] if by_up is not None else None)
        np.multiply(silu, u, out=y_piece)
        if by_gate is not None:  # u σ (1 + a (1 − σ)) = u (σ + silu (1 − σ))
            slope = np.subtract(1.0, sigma, out=pieces[0])
            slope *= silu
            slope += sigma
            slope *= u
    return y, SwigluCache(by_gate, by_up, tuple(wanted))


def swiglu_backward(dy, cache):
    """Gradients of y = a σ(a) ⊙ u.

    y is linear in u, so ∂y/∂u = silu(a). With σ′ = σ (1 − σ), the product rule gives

        ∂y/∂a = u (σ + a σ (1 − σ)) = u σ (1 + a (1 − σ))

    Parameters
    ----------
    dy : array (..., F)
    cache : SwigluCache

    Returns
    -------
    SwigluGrads, with None for each operand that was not wanted
    """
    # y = silu(a) u
    dgate = dy * cache.by_gate if "gate" in cache.wanted else None  # (..., F)
    dup = dy * cache.by_up if "up" in cache.wanted else None  # (..., F)
    return SwigluGrads(dgate, dup)
