"""GELU in its tanh form (Hendrycks and Gimpel 2016, section 2), as in GPT-2."""

import math
from typing import NamedTuple

import numpy as np

SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
CUBIC = 0.044715


class GeluCache(NamedTuple):
    """Keeps the input alone: tanh is cheaper to compute again than an (..., F) array is to hold."""

    x: np.ndarray | None  # (..., F)


class GeluGrads(NamedTuple):
    dx: np.ndarray | None  # (..., F)


def gelu_forward(x, wanted=("x",)):
    """y = ½ x (1 + tanh(u)) with u = √(2/π) (x + 0.044715 x³), element by element.

    Parameters
    ----------
    x : array, any shape
    wanted : ("x",), or () when no gradient will be asked for

    Returns
    -------
    y : array, x's shape
    cache : GeluCache
    """
    u = SQRT_2_OVER_PI * x * (1.0 + CUBIC * x * x)
    y = 0.5 * x * (1.0 + np.tanh(u))
    return y, GeluCache(x if "x" in wanted else None)


def gelu_backward(dy, cache):
    """Gradient of the tanh GELU.

    The product rule on y = ½ x (1 + t), t = tanh(u), with dt/du = 1 − t²:

        dy/dx = ½ (1 + t) + ½ x (1 − t²) u′,    u′ = √(2/π) (1 + 3 · 0.044715 x²)

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
    x = cache.x
    x_squared = x * x
    t = np.tanh(SQRT_2_OVER_PI * x * (1.0 + CUBIC * x_squared))
    du_dx = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x_squared)
    # y = ½ x (1 + t)
    through_x = 0.5 * (1.0 + t)
    through_t = 0.5 * x * (1.0 - t * t) * du_dx
    return GeluGrads(dy * (through_x + through_t))
