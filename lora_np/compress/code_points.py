"""The 16 code points of 4-bit NormalFloat, NF4 (Dettmers et al. 2023, QLoRA, section 3 and appendix E)."""

from statistics import NormalDist

import numpy as np

# ½ (1 − 1/32 + 1 − 1/30), truncated as in the program that computed the published table.
OFFSET = 0.9677083


def nf4_code_points():
    """The code points, derived from the quantiles of the normal distribution.

    Weights are approximately normal with mean 0. Four bits carry the most information if all 16 values are equally
    likely, so the points are quantiles with equal probability between adjacent ones. With Q = Φ⁻¹ and an offset δ:

        negative    −Q(½ + (δ − ½) i/7)    i = 7, …, 1
        zero         0
        positive     Q(½ + (δ − ½) i/8)    i = 1, …, 8        all of them divided by Q(δ)

    Zero must be a point, so that a weight of 0 is stored exactly. Of the other 15, 8 are positive and 7 negative.

    δ is used instead of 1, because Q(1) = ∞. With 16 bins of equal probability and a point in the middle of each, the
    probability beyond the outermost point is half a bin, 1/32; with 15 bins, it is 1/30. One half of the table uses 16
    bins and the other 15, so δ is the mean of 1 − 1/32 and 1 − 1/30.

    Dividing by Q(δ) = 1.848 makes the table end at ±1. Therefore, the weight with the largest magnitude in a block,
    divided by that magnitude, is always a code point. The points that minimise the mean squared error depend on the
    block size; NF4's are close to them (Yoshida 2023, NF4 Isn't Information Theoretically Optimal).

    Equation 4 of the paper averages adjacent quantiles; appendix E and all implementations do not.

    Returns
    -------
    array (16,) float64, ascending; the values are exact in float32 and bit-identical to those of appendix E. As in
    appendix E, the probabilities are rounded to float32, which moves the points by at most 2e-7.
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
    """The index of the point nearest to each x, computed as the number of midpoints below x.

    Parameters
    ----------
    x : array, of any shape
    points : array (K,), ascending

    Returns
    -------
    array of int, with the shape of x. For an x halfway between two points, the lower one is chosen, as in bitsandbytes.
    """
    midpoints = (points[:-1] + points[1:]) / 2  # (K − 1,)
    return np.searchsorted(midpoints.astype(x.dtype), x, side="left")
