"""The 16 code points of 4-bit NormalFloat, NF4 (Dettmers et al. 2023, QLoRA, section 3 and appendix E).

`expected_error` computes the error of quantising normal weights from the code points alone.
"""

import math
from statistics import NormalDist

import numpy as np

# ½ (1 − 1/32 + 1 − 1/30), with the digits of the program that made the published table.
OFFSET = 0.9677083


def nf4_code_points():
    """The code points, derived from the quantiles of the normal distribution.

    Weights are approximately normal with mean 0. Four bits carry the most information if all 16 values are equally
    likely, so the points are quantiles, with equal probability between neighbours. With the quantile function Q (the
    inverse of Φ) and the offset δ,

        negative    −Q(½ + (δ − ½) i/7)    i = 7, …, 1
        zero         0
        positive     Q(½ + (δ − ½) i/8)    i = 1, …, 8        all of them divided by Q(δ)

    Zero must be a point, so that a weight of 0 stays exactly 0. The other 15 points are 8 positive and 7 negative ones,
    so the points are not symmetric.

    δ replaces 1, because Q(1) = ∞. If the probability is divided into 16 equal bins with a point in the middle of each,
    half a bin, 1/32, lies beyond the outermost point; with 15 bins, 1/30. The halves come from tables with 16 and with
    15 points, and δ is the mean of 1 − 1/32 and 1 − 1/30.

    Dividing by Q(δ) = 1.848 makes the table end at ±1. A block's largest weight, which is divided by its own magnitude,
    is therefore always a point.

    The paper's equation 4 averages neighbouring quantiles. The table in its appendix E, and all implementations, use
    the quantiles themselves, as here.

    Returns
    -------
    array (16,) float64, ascending, each exactly a float32 number: those of appendix E, bit for bit. For this, the
    probabilities are rounded to float32, as in appendix E, which moves the points by at most 2e-7.
    """
    quantile = NormalDist().inv_cdf
    delta = np.float32(OFFSET).item()
    of_positive = np.linspace(0.5, delta, 9)[1:].astype(np.float32)  # (8,), probabilities
    of_negative = np.linspace(0.5, delta, 8)[1:].astype(np.float32)  # (7,)
    positive = [quantile(p.item()) for p in of_positive]
    negative = [-quantile(p.item()) for p in of_negative[::-1]]
    points = np.array([*negative, 0.0, *positive], dtype=np.float32)  # (16,)
    return (points / points[-1]).astype(np.float64)


CODE_POINTS = nf4_code_points()
CODE_POINTS.flags.writeable = False


def nearest_point(x, points):
    """The index of the point nearest to each x, which is the number of midpoints below x.

    Parameters
    ----------
    x : array, of any shape
    points : array (K,), ascending

    Returns
    -------
    array of int, x's shape. Halfway between two points, the lower one is chosen, as in bitsandbytes.
    """
    midpoints = (points[:-1] + points[1:]) / 2  # (K − 1,)
    return np.searchsorted(midpoints.astype(x.dtype), x, side="left")


def expected_error(points, block_size):
    """Expected relative error ‖Ŵ − W‖ / ‖W‖ of quantising normal weights with each block's largest magnitude as scale.

    Let the standard deviation be 1, because it cancels. Of n independent normal numbers, one has the largest magnitude
    m, and the other n − 1 are within ±m. With P(m) = Pr(|z| ≤ m) = erf(m/√2), m has the density n · 2φ(m) P(m)ⁿ⁻¹.
    Given m, the others are still independent, with the density φ(z)/P(m) on [−m, m]. The largest number has no error,
    because ±1 are points, so the mean squared error of the block is

        (n − 1)/n ∫ n · 2φ(m) P(m)ⁿ⁻¹ D(m)/P(m) dm        D(m) = ∫ φ(z) (m q(z/m) − z)² dz over [−m, m]
                                                               = m³ ∫ φ(m u) (q(u) − u)² du over [−1, 1]

    where q(u) is the point nearest to u. Its root is the relative error, because E z² = 1. The density of m shows
    that the optimal points depend on the block size; NF4's are only close to them (Yoshida 2023, NF4 Isn't Information
    Theoretically Optimal).

    Parameters
    ----------
    points : array (K,), ascending, from −1 to 1: `CODE_POINTS`, or np.arange(−127, 128) / 127 for int8
    block_size : int, n, the number of weights that share a scale; for int8 it is `in`

    Returns
    -------
    float, accurate to six digits
    """
    n = block_size
    m = (np.arange(400) + 0.5) * (8 / 400)  # (M,); a normal number beyond 8 has probability 1e-15
    u, du = nodes(np.concatenate([[-1.0], (points[:-1] + points[1:]) / 2, [1.0]]))  # (U,), (U,)
    squared = (points[nearest_point(u, points)] - u) ** 2  # (U,)
    D = m**3 * (normal_density(m[:, None] * u) @ (squared * du))  # (M,)
    P = np.array([math.erf(value / math.sqrt(2)) for value in m])  # (M,)
    mean_square = (n - 1) * np.sum(2 * normal_density(m) * P ** (n - 2) * D) * (8 / 400)
    return math.sqrt(mean_square)


def nodes(edges):
    """Nodes and weights of Gauss–Legendre quadrature with eight nodes between neighbouring edges.

    The edges are the midpoints of the code, where q jumps; between them, (q(u) − u)² is smooth.
    """
    x, weights = np.polynomial.legendre.leggauss(8)  # on [−1, 1]
    half = np.diff(edges)[:, None] / 2  # (K, 1)
    centre = (edges[:-1] + edges[1:])[:, None] / 2
    return (centre + half * x).ravel(), (half * weights).ravel()


def normal_density(z):
    """φ(z) = exp(−z²/2) / √(2π)."""
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
