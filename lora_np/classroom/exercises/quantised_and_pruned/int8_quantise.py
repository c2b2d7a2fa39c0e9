"""Warm-up: eight bits.

Each row of `W` gets a ruler of its own: evenly spaced marks, numbered −127 … 127, with 0 in the middle and the row's
largest magnitude on an outermost mark. Give the `codes`, the number of the nearest mark for each weight, and the
`scales`, the distance between two marks for each row.

**In your head first:** the row is −1.27, 0.5, 0.004, 1. What are its scale and its codes? Which weights come back
exactly? **Then:** one row of `W` may be all zeros. What should its codes be, and what would your formula make of it?
"""

import numpy as np

POINTS = 2
OUTPUTS = ("codes", "scales")
HINTS = {
    "codes": "How many steps from 0 is a weight, and which whole number is nearest? And in a row of zeros?",
    "scales": "Which weight is on the outermost mark of a row's ruler, number 127? How far apart are two marks?",
}
FORMULA = """scale_o = max_i |W_oi| / 127,  code_oi = W_oi / scale_o, rounded to the nearest whole number
a row of zeros: scale 0, codes 0"""


def int8_quantise(W):
    """W (out, in) -> codes (out, in) of whole numbers from −127 to 127, scales (out,)."""
    largest = np.abs(W).max(axis=1, keepdims=True)  # (out, 1)
    scales = largest / 127  # (out, 1)
    # In a row of zeros every weight would be 0/0. Divided by 1 instead, it is the 0 that it should be.
    steps = np.where(scales > 0, scales, 1.0)  # (out, 1)
    codes = np.rint(W / steps)  # (out, in): each row by its own step
    return codes.astype(np.int8), scales[:, 0]
    # The row in your head: scale 0.01, codes −127, 50, 0, 100. Only 0.004 is lost; it is between the marks 0 and 0.01.


def draw(rng, size):
    """Rows of different sizes, the largest number now positive and now negative; in the second draw one row is zero.

    No weight is near the middle between two marks, so rounding does not change a code.
    """
    shape = size.n_out, size.V
    marks = rng.integers(-126, 127, shape) + rng.uniform(-0.4, 0.4, shape)
    marks[:, 2] = np.where(np.arange(size.n_out) % 2, 127, -127)
    W = marks * rng.uniform(0.005, 0.02, (size.n_out, 1))
    if size.number == 1:
        W[1] = 0.0
    return {"W": W}


def follow(codes, scales, W):
    """Whether codes are W's by some scales; beyond the ruler's ends, cut off or not."""
    if np.shape(codes) != W.shape or np.shape(scales) != (len(W),) or not np.any(codes):
        return False
    own = np.rint(W / np.where(scales != 0, scales, 1.0)[:, None])
    return np.array_equal(codes, own) or np.array_equal(codes, np.clip(own, -127, 127))


def compared(i, outputs):
    """Codes are also right if they follow from the student's own scales."""
    right = i.right and follow(outputs["codes"], outputs["scales"], i.W)
    return outputs | {"codes": i.right["codes"]} if right else outputs


def above_smallest(i):
    steps = np.ptp(i.W, axis=1, keepdims=True) / 255
    return np.rint((i.W - i.W.min(axis=1, keepdims=True)) / np.where(steps > 0, steps, 1.0))


MISTAKES = {
    "codes": [("they count from the row's smallest weight, but the weight 0 must have the code 0", above_smallest)],
    "scales": [
        (
            "the marks reach from the smallest to the largest weight of a row: the ruler has 0 in its middle",
            lambda i: np.ptp(i.W, axis=1) / 255,
        ),
        (
            "the largest weight of the whole matrix sets one scale for all rows",
            lambda i: np.full(len(i.W), np.abs(i.W).max() / 127),
        ),
    ],
}
