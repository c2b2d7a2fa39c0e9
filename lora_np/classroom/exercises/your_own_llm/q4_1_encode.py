"""2. Encoding Q4_1 (4 points).

Each block of 32 weights gets its own ruler with 16 evenly spaced marks: mark 0 is at the block's smallest weight `m`,
mark 15 is at its largest, and `d` is the distance between neighbouring marks. The code of a weight is the number of the
nearest mark. Compute `codes`, `d` and `m`.

**Predict:** which weights of a block are restored exactly? What is the largest possible error of the other weights, as
a multiple of `d`? If 3 is added to all weights of a block, how do `codes`, `d` and `m` change? **Then:** what does your
formula compute for a block whose weights are all equal? The codes should be 0.
"""

import numpy as np

HINTS = {
    "codes": "How many steps is a weight above m, and what is the nearest integer? What if d is 0?",
    "d": "How many steps are there from mark 0 to mark 15? Each block has its own.",
    "m": "Which weight of a block is at mark 0?",
}
FORMULA = """m = min w,  d = (max w − m) / 15,  along each row
code = (w − m) / d + 0.5, truncated to an integer;  0 where d is 0"""


def q4_1_encode(w):
    """w (n, 32) -> codes (n, 32) of ints 0 … 15, d (n,), m (n,)."""
    m = w.min(axis=1)  # (n,)
    d = (w.max(axis=1) - m) / 15  # (n,): there are 15 steps between 16 marks
    steps = np.where(d > 0, d, 1.0)  # (n,): in a block of equal weights, (w - m) / d would be 0/0
    codes = ((w - m[:, None]) / steps[:, None] + 0.5).astype(int)  # (n, 32)
    return codes, d, m
    # The smallest and the largest weight are restored exactly, and all others to within half a step. Adding 3 changes
    # only m.


def draw(rng, size):
    """Draw blocks of different scales, with weights of one or both signs. In the second draw, one block is constant.

    No weight is near the midpoint between two marks, so rounding errors cannot change a code.
    """
    n = size.N
    marks = rng.integers(1, 15, (n, 32)) + rng.uniform(-0.4, 0.4, (n, 32))
    ends = rng.permuted(np.tile(np.arange(32), (n, 1)), axis=1)[:, :2]  # (n, 2): indices of the smallest and largest
    np.put_along_axis(marks, ends, np.array([[0.0, 15.0]]), axis=1)
    if size.number == 1:
        marks[1] = 0.0
    d = rng.uniform(0.1, 0.4, (n, 1))
    m = -d * rng.uniform(-4.0, 20.0, (n, 1))
    return {"w": m + d * marks}


SYMMETRIC = "it is computed from the largest magnitude, but the marks range from the smallest weight to the largest"
MISTAKES = {
    "they begin at −8, but the smallest weight of a block has code 0": lambda i: i.right["codes"] - 8,
    SYMMETRIC: lambda i: np.abs(i.w).max(axis=1) / 7,
    "the smallest weight of all blocks is used, not that of each block": lambda i: np.full(len(i.w), i.w.min()),
}

AFTER = """**Beyond the points.** Encode and decode a real matrix with your own two functions. Type this in:

    from lora_np.compress import quantise_q4_1
    from lora_np.formats import load_pretrained

    W = load_pretrained()[0]["blocks.0.mlp.up_proj.weight"]  # (1024, 256)
    codes, d, m = q4_1_encode(W.reshape(-1, 32))
    packed = (codes[:, :16] + 16 * codes[:, 16:]).astype(np.uint8)
    W_hat = q4_1_decode(packed, d, m).reshape(W.shape)
    package = np.asarray(quantise_q4_1(W))
    print(np.linalg.norm(W_hat - W) / np.linalg.norm(W))
    print(np.linalg.norm(W_hat - package) / np.linalg.norm(W))

The package's result is almost the same. The package computes the codes with the same `d` and `m`, but stores both in 16
bits. Also, about ten weights are so close to halfway between marks that rounding errors decide which mark they get.
"""
