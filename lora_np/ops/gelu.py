"""The tanh approximation of GELU (Hendrycks and Gimpel 2016, section 2), as in GPT-2."""

import math
from typing import NamedTuple

import numpy as np

from .blocks import blocks

SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
CUBIC = 0.044715


class GeluCache(NamedTuple):
    """The slope, which the forward pass computes from the gate, is cached instead of x. Both have the same size."""

    slope: np.ndarray | None  # (..., F), dy/dx


class GeluGrads(NamedTuple):
    dx: np.ndarray | None  # (..., F)


def gate(x):
    """The gate g = ½ (1 + tanh(u)) in [0, 1], by which x is multiplied; u = √(2/π) (x + 0.044715 x³)."""
    g = x * x
    g *= SQRT_2_OVER_PI * CUBIC
    g += SQRT_2_OVER_PI
    g *= x  # u
    np.tanh(g, out=g)
    g *= 0.5
    g += 0.5
    return g


def slope(x, g, y):
    """dy/dx of y = x g(x), from x, g and y; derived in `gelu_backward`."""
    s = x * x
    s *= 2.0 * SQRT_2_OVER_PI * 3.0 * CUBIC
    s += 2.0 * SQRT_2_OVER_PI  # 2 u′
    s *= y
    s *= 1.0 - g
    s += g
    return s


def gelu(x):
    """`gelu_forward` without a cache."""
    y = np.empty_like(x, order="C")
    for x_piece, y_piece in blocks(x, y):
        np.multiply(x_piece, gate(x_piece), out=y_piece)
    return y


def gelu_forward(x, wanted=("x",)):
    """y = x g(x), element by element; see `gate`.

    Parameters
    ----------
    x : array (..., F)
    wanted : ("x",), or () if no gradient is needed

    Returns
    -------
    y : array, x's shape
    cache : GeluCache
    """
    if "x" not in wanted:
        return gelu(x), GeluCache(None)
    y, dy_dx = np.empty_like(x, order="C"), np.empty_like(x, order="C")
    for x_piece, y_piece, slope_piece in blocks(x, y, dy_dx):
        g = gate(x_piece)
        np.multiply(x_piece, g, out=y_piece)
        slope_piece[...] = slope(x_piece, g, y_piece)
    return y, GeluCache(dy_dx)


def gelu_backward(dy, cache):
    """Gradient of the tanh approximation of GELU.

    With t = tanh(u), dt/du = 1 − t² = (1 − t)(1 + t). Because g = ½ (1 + t), dg/du = 2 g (1 − g).
    The product rule on y = x g then gives

        dy/dx = g + x · 2 g (1 − g) u′ = g + 2 y (1 − g) u′,    u′ = √(2/π) (1 + 3 · 0.044715 x²)

    Parameters
    ----------
    dy : array, x's shape
    cache : GeluCache

    Returns
    -------
    GeluGrads, with None if no gradient was wanted
    """
    if cache.slope is None:
        return GeluGrads(None)
    # y = x g(x)
    return GeluGrads(dy * cache.slope)
