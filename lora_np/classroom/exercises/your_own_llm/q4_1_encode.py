"""And back.

Each block of 32 weights gets a ruler of its own, with 16 marks at equal distances: mark 0 is on the block's smallest
weight `m`, mark 15 on its largest, and `d` is the distance between neighbours. The code of a weight is the number of
the nearest mark. Give `codes`, `d` and `m`.

**Predict:** which weights of a block come back exactly? How far off may the others be, in steps? And if 3 is added to
all weights of a block, what becomes of `codes`, `d` and `m`? **And then:** the weights of a block may all be equal.
What would your formula make of it? The codes should be 0.
"""

import numpy as np

POINTS = 4
OUTPUTS = ("codes", "d", "m")
HINTS = {
    "codes": "How many steps is a weight above m, and which whole number is nearest? And where d is 0?",
    "d": "How many steps are there from mark 0 to mark 15? Each block has its own.",
    "m": "Which weight of a block is on mark 0?",
}
FORMULA = """m = min w,  d = (max w − m) / 15,  along each row
code = (w − m) / d + 0.5, cut to a whole number;  0 where d is 0"""


def q4_1_encode(w):
    """w (n, 32) -> codes (n, 32) of whole numbers 0 … 15, d (n,), m (n,)."""
    m = w.min(axis=1)  # (n,)
    d = (w.max(axis=1) - m) / 15  # (n,): 16 marks are 15 steps
    steps = np.where(d > 0, d, 1.0)  # (n,): in a block of equal weights, (w - m) / d would be 0/0
    codes = ((w - m[:, None]) / steps[:, None] + 0.5).astype(int)  # (n, 32)
    return codes, d, m
    # The smallest and the largest weight come back exactly, any other within half a step. 3 more changes m alone.


def draw(rng, size):
    """Blocks of different sizes, on both sides of 0 or on one. In the second draw, one block has equal weights.

    No weight is near the middle between two marks, so rounding does not change a code.
    """
    n = size.N
    marks = rng.integers(1, 15, (n, 32)) + rng.uniform(-0.4, 0.4, (n, 32))
    ends = rng.permuted(np.tile(np.arange(32), (n, 1)), axis=1)[:, :2]  # (n, 2): where the smallest and largest are
    np.put_along_axis(marks, ends, np.array([[0.0, 15.0]]), axis=1)
    if size.number == 1:
        marks[1] = 0.0
    d = rng.uniform(0.1, 0.4, (n, 1))
    m = -d * rng.uniform(-4.0, 20.0, (n, 1))
    return {"w": m + d * marks}


MISTAKES = {
    "codes": [("they begin at −8: the smallest weight of a block has the code 0", lambda i: i.right["codes"] - 8)],
    "d": [
        (
            "it is made of the largest magnitude: the marks reach from the smallest weight to the largest",
            lambda i: np.abs(i.w).max(axis=1) / 7,
        ),
    ],
    "m": [
        ("the smallest weight of all blocks is used, not each block's own", lambda i: np.full(len(i.w), i.w.min())),
    ],
}

AFTER = """**Beyond the points.** A real matrix goes there and back through your own two functions. Type this in:

    from lora_np.compress import quantise_q4_1
    from lora_np.formats import load_pretrained

    W = load_pretrained()[0]["blocks.0.mlp.up_proj.weight"]  # (1024, 256)
    codes, d, m = q4_1_encode(W.reshape(-1, 32))
    packed = (codes[:, :16] + 16 * codes[:, 16:]).astype(np.uint8)
    W_hat = q4_1_decode(packed, d, m).reshape(W.shape)
    package = np.asarray(quantise_q4_1(W))
    print(np.linalg.norm(W_hat - W) / np.linalg.norm(W))
    print(np.linalg.norm(W_hat - package) / np.linalg.norm(W))

The package does almost the same. It computes the codes with these `d` and `m`, and then stores both in 16 bits. And
about ten weights are so near to the middle between two marks that rounding decides which one they get.
"""
