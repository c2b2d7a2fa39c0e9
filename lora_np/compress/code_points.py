"""The 16 code points of 4-bit NormalFloat, NF4 (Dettmers et al. 2023, QLoRA, section 3 and appendix E)."""

from statistics import NormalDist

import numpy as np

# ½ (1 − 1/32 + 1 − 1/30), with the digits of the program that made the published table.
OFFSET = 0.9677083


def nf4_code_points():
    """The points, derived from the normal distribution's quantiles.

    Weights are close to normal with mean 0. Four bits say most if each of the 16 values is equally likely, so the
    points are quantiles: between neighbours there is one share of the probability. With Q the quantile function (the
    inverse of Φ) and δ the offset,

        negative    −Q(½ + (δ − ½) i/7)    i = 7, …, 1
        zero         0
        positive     Q(½ + (δ − ½) i/8)    i = 1, …, 8        all of them divided by Q(δ)

    Zero must be a point, so that a weight of 0 stays exactly 0. That leaves 15 for two halves, and the positive half
    gets the eighth: the points are not symmetric.

    δ replaces 1, because Q(1) = ∞. Cut the probability into 16 equal bins with a point in the middle of each: the
    outermost point leaves half a bin, 1/32, beyond it. With 15 bins it is 1/30. The two halves belong to a table of
    16 and to one of 15, and δ is the mean of 1 − 1/32 and 1 − 1/30.

    Dividing by Q(δ) = 1.848 makes the table end at ±1: a block's largest weight, which is divided by its own
    magnitude, is always a point.

    The paper's equation 4 averages neighbouring quantiles. The table in its appendix E, and all programs, use the
    quantiles themselves, as here.

    Returns
    -------
    array (16,) float64, ascending, each a float32 number: those of appendix E, bit for bit. This needs the
    probabilities rounded to float32, as they were there; it moves the points by 2e-7 at most.
    """
    quantile = NormalDist().inv_cdf
    delta = np.float32(OFFSET).item()
    of_positive = np.linspace(0.5, delta, 9)[1:].astype(np.float32)  # (8,), probabilities
    of_negative = np.linspace(0.5, delta, 8)[1:].astype(np.float32)  # (7,)
    positive = [quantile(p.item()) for p in of_positive]
    negative = [-quantile(p.item()) for p in of_negative[::-1]]
    points = np.array([*negative, 0.0, *positive], dtype=np.float32)  # (16,)
    return (points / points[-1]).astype(np.float64)


def nearest_point(x, points):
    """The index of the point nearest to each x: the number of midpoints below it.

    Parameters
    ----------
    x : array, of any shape
    points : array (K,), ascending

    Returns
    -------
    array of int, x's shape. Halfway between two points the lower one counts, as in bitsandbytes.
    """
    midpoints = (points[:-1] + points[1:]) / 2  # (K − 1,)
    return np.searchsorted(midpoints.astype(x.dtype), x, side="left")


CODE_POINTS = nf4_code_points()
CODE_POINTS.flags.writeable = False
