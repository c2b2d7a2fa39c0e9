"""The error of quantising normal weights, computed from the code points alone."""

import math

import numpy as np

from .code_points import nearest_point


def expected_error(points, block_size):
    """Relative error ‖Ŵ − W‖ / ‖W‖ of a code whose scale is each block's largest magnitude, for normal weights.

    Take deviation 1; the scale cancels. One of n independent normal numbers has the largest magnitude m, and the
    other n − 1 are within ±m: with P(m) = Pr(|z| ≤ m) = erf(m/√2), m has the density n · 2φ(m) P(m)ⁿ⁻¹. Given m, the
    others are still independent, with the density φ(z)/P(m) on [−m, m]. The largest has no error, because ±1 are
    points, so the mean squared error over the block is

        (n − 1)/n ∫ n · 2φ(m) P(m)ⁿ⁻¹ D(m)/P(m) dm        D(m) = ∫ φ(z) (m q(z/m) − z)² dz over [−m, m]
                                                               = m³ ∫ φ(m u) (q(u) − u)² du over [−1, 1]

    where q(u) is the point nearest to u. Its root is the relative error, because E z² = 1. The density of m shows
    that the best points depend on the block size; NF4's are only near them (Yoshida 2023, NF4 Isn't Information
    Theoretically Optimal).

    Parameters
    ----------
    points : array (K,), ascending, from −1 to 1: `CODE_POINTS`, or np.arange(−127, 128) / 127 for int8
    block_size : int, n, weights that share a scale; for int8 it is `in`

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
    """Places and weights of Gauss's rule with eight nodes between neighbouring edges.

    The edges are the midpoints of the code, where q jumps; between them (q(u) − u)² is smooth.
    """
    x, weights = np.polynomial.legendre.leggauss(8)  # on [−1, 1]
    half = np.diff(edges)[:, None] / 2  # (K, 1)
    centre = (edges[:-1] + edges[1:])[:, None] / 2
    return (centre + half * x).ravel(), (half * weights).ravel()


def normal_density(z):
    """φ(z) = exp(−z²/2) / √(2π)."""
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
