"""GELU in its tanh form (Hendrycks and Gimpel 2016, section 2), as in GPT-2."""

import math
from typing import NamedTuple

import numpy as np

from .blocks import by_blocks

SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
CUBIC = 0.044715


class GeluCache(NamedTuple):
    """Keeps the input alone: the gate is cheaper to compute again than an (..., F) array is to hold."""

    x: np.ndarray | None  # (..., F)


class GeluGrads(NamedTuple):
    dx: np.ndarray | None  # (..., F)


def gate(x):
    """g = ½ (1 + tanh(u)) with u = √(2/π) (x + 0.044715 x³): how much of x passes, 0 to 1."""
    g = x * x
    g *= SQRT_2_OVER_PI * CUBIC
    g += SQRT_2_OVER_PI
    g *= x  # u
    np.tanh(g, out=g)
    g *= 0.5
    g += 0.5
    return g


def slope(x):
    """dy/dx of y = x g(x); derived in `gelu_backward`."""
    g = gate(x)
    s = x * x
    s *= 2.0 * SQRT_2_OVER_PI * 3.0 * CUBIC
    s += 2.0 * SQRT_2_OVER_PI  # 2 u′
    s *= x
    s *= 1.0 - g
    s += 1.0  # 1 + 2 x (1 − g) u′
    s *= g
    return s


def gelu_forward(x, wanted=("x",)):
    """y = x g(x), element by element; see `gate`.

    Parameters
    ----------
    x : array, any shape
    wanted : ("x",), or () when no gradient will be asked for

    Returns
    -------
    y : array, x's shape
    cache : GeluCache
    """
    y = by_blocks(lambda x: x * gate(x), x)
    return y, GeluCache(x if "x" in wanted else None)


def gelu_backward(dy, cache):
    """Gradient of the tanh GELU.

    With t = tanh(u), dt/du = 1 − t² = (1 − t)(1 + t); as g = ½ (1 + t), that is dg/du = 2 g (1 − g).
    The product rule on y = x g then gives

        dy/dx = g + x · 2 g (1 − g) u′ = g (1 + 2 x (1 − g) u′),    u′ = √(2/π) (1 + 3 · 0.044715 x²)

    Parameters
    ----------
    dy : array, x's shape
    cache : GeluCache

    Returns
    -------
    GeluGrads
    """
    if cache.x is None:
        return GeluGrads(None)
    # y = x g(x)
    return GeluGrads(by_blocks(lambda x, dy: dy * slope(x), cache.x, dy))
