"""The exact GELU (Hendrycks and Gimpel 2016, section 2), as in BERT: x times the standard normal CDF at x.

NumPy has no error function. In float64, `math.erf` is called for each element. In float32, an approximation with an
error below 1.5e-7 is used (Abramowitz and Stegun 1964, formula 7.1.26). GELU's derivative contains the same
exponential as this approximation, so the exponential is computed once for both.
"""

import math

import numpy as np

from .blocks import blocks
from .gelu import GeluCache, gelu_backward

SQRT_2, SQRT_2_PI = math.sqrt(2.0), math.sqrt(2.0 * math.pi)
P = 0.3275911
COEFFICIENTS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)  # of t⁵, t⁴, …, t

erf = np.frompyfunc(math.erf, 1, 1)


def distribution(x, exponential):
    """Φ(x) = ½ (1 + erf(x/√2)), the standard normal CDF; `exponential` is exp(−x²/2).

    With z = |x|/√2 and t = 1 / (1 + 0.3275911 z), erf(z) ≈ 1 − (a₁ t + … + a₅ t⁵) exp(−z²), where exp(−z²) is
    `exponential`. Since erf is an odd function, erf(x/√2) has the same sign as x.
    """
    if x.dtype == np.float64:
        g = erf(x / SQRT_2).astype(np.float64)
    else:
        t = np.abs(x)
        t *= P / SQRT_2
        t += 1.0
        np.divide(1.0, t, out=t)
        g = t * COEFFICIENTS[0]
        for a in COEFFICIENTS[1:]:
            g += a
            g *= t
        g *= exponential
        np.subtract(1.0, g, out=g)
        np.copysign(g, x, out=g)
    g *= 0.5
    g += 0.5
    return g


def gelu_erf_forward(x, wanted=("x",)):
    """y = x Φ(x), element by element; see `distribution`.

    Parameters
    ----------
    x : array (..., F)
    wanted : ("x",), or () if no gradient is needed

    Returns
    -------
    y : array, x's shape
    cache : GeluCache
    """
    y = np.empty_like(x, order="C")
    dy_dx = np.empty_like(x, order="C") if "x" in wanted else None
    for x_piece, y_piece, *slope_piece in blocks(x, y, *(() if dy_dx is None else (dy_dx,))):
        exponential = x_piece * x_piece
        exponential *= -0.5
        np.exp(exponential, out=exponential)
        cumulative = distribution(x_piece, exponential)
        np.multiply(x_piece, cumulative, out=y_piece)
        for piece in slope_piece:
            exponential *= x_piece
            exponential /= SQRT_2_PI
            np.add(cumulative, exponential, out=piece)
    return y, GeluCache(dy_dx)


def gelu_erf_backward(dy, cache):
    """Gradient of the exact GELU.

    The derivative of Φ is the density φ(x) = exp(−x²/2) / √(2π), so the product rule on y = x Φ(x) gives

        dy/dx = Φ(x) + x φ(x)

    Parameters
    ----------
    dy : array, x's shape
    cache : GeluCache, which contains dy/dx

    Returns
    -------
    GeluGrads, with None if no gradient was wanted
    """
    # y = x Φ(x)
    return gelu_backward(dy, cache)
