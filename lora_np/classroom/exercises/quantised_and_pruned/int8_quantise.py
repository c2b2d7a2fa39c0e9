"""1. Warm-up: eight bits (2 points).

Each row of `W` gets its own ruler: evenly spaced marks, numbered −127 … 127, with 0 in the middle, and with the row's
weight of largest magnitude on the first or the last mark. Compute `codes`, the number of the nearest mark for each
weight, and `scales`, the distance between neighbouring marks for each row.

**In your head first:** what are the scale and the codes of the row −1.27, 0.5, 0.004, 1? Which weights are restored
exactly? **Then:** a row of `W` may be all zeros. What should the codes of such a row be, and what does your formula
give?
"""

import numpy as np

HINTS = {
    "codes": "How many steps from 0 is a weight, and what is the nearest integer? What about a row of zeros?",
    "scales": "Which weight of a row is on mark 127 or −127? How far apart are neighbouring marks?",
}
FORMULA = """scale_o = max_i |W_oi| / 127,  code_oi = W_oi / scale_o, rounded to the nearest integer
for a row of zeros, scale 0 and codes 0"""


def int8_quantise(W):
    """W (out, in) -> codes (out, in) of ints from −127 to 127, scales (out,)."""
    largest = np.abs(W).max(axis=1, keepdims=True)  # (out, 1)
    scales = largest / 127  # (out, 1)
    # In a row of zeros every code would be 0/0. Dividing by 1 instead gives code 0.
    steps = np.where(scales > 0, scales, 1.0)  # (out, 1)
    codes = np.rint(W / steps)  # (out, in): each row has its own step
    return codes.astype(np.int8), scales[:, 0]
    # The row has scale 0.01 and codes −127, 50, 0, 100. Only 0.004 is not restored exactly; it lies between 0 and 0.01.


def draw(rng, size):
    """Draw rows that differ in scale and in the sign of the largest entry; in the second draw, one row is zero.

    No weight is near the midpoint between two marks, so rounding errors cannot change a code.
    """
    shape = size.n_out, size.V
    marks = rng.integers(-126, 127, shape) + rng.uniform(-0.4, 0.4, shape)
    marks[:, 2] = np.where(np.arange(size.n_out) % 2, 127, -127)
    W = marks * rng.uniform(0.005, 0.02, (size.n_out, 1))
    if size.number == 1:
        W[1] = 0.0
    return {"W": W}


def follow(codes, scales, W):
    """Return True if the codes are those of W for these scales, with or without clipping to −127 … 127."""
    if np.shape(codes) != W.shape or np.shape(scales) != (len(W),) or not np.any(codes):
        return False
    own = np.rint(W / np.where(scales != 0, scales, 1.0)[:, None])
    return np.array_equal(codes, own) or np.array_equal(codes, np.clip(own, -127, 127))


def compared(i, outputs):
    """Also accept codes that follow from the student's own scales."""
    right = i.right and follow(outputs["codes"], outputs["scales"], i.W)
    return outputs | {"codes": i.right["codes"]} if right else outputs


def above_smallest(i):
    steps = np.ptp(i.W, axis=1, keepdims=True) / 255
    return np.rint((i.W - i.W.min(axis=1, keepdims=True)) / np.where(steps > 0, steps, 1.0))


LOPSIDED = "marks range from the smallest to the largest weight of a row, but the ruler is symmetric about 0"
MISTAKES = {
    "they are counted from the row's smallest weight, but a weight of 0 must have code 0": above_smallest,
    f"the {LOPSIDED}": lambda i: np.ptp(i.W, axis=1) / 255,
    "the largest weight of W sets one scale for all rows": lambda i: np.full(len(i.W), np.abs(i.W).max() / 127),
    f"the 255 {LOPSIDED}": lambda i: np.ptp(i.W, axis=1) / 254,
}
