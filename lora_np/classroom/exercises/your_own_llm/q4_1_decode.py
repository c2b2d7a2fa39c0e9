"""1. Warm-up: five bits per weight (2 points).

In SmolLM2's file, most weights are stored in blocks of 32. A block has 16 bytes of codes, a step `d` and an offset `m`.
Each byte, an integer from 0 to 255, holds two codes of four bits: byte `i` has the code of weight `i` in its lower half
(`byte % 16`) and that of weight `i + 16` in its upper half. Code `q` represents the weight `d q + m`. Compute the
weights of `n` blocks.

**On paper first:** a block has `d` = 0.5 and `m` = −3. Which two of its 32 weights does its first byte, 115, determine,
and what are their values? **Predict:** which code represents the weight 0 in this block? Does every block have a code
for the weight 0?
"""

import numpy as np

HINTS = {"w": "115 = 7 · 16 + 3. Which weight has code 3, and which one has code 7?"}
FORMULA = "codes: byte % 16 of all 16 bytes, and then byte // 16 of all 16;  w = d q + m, with each block's own d and m"


def q4_1_decode(packed, d, m):
    """packed (n, 16) of bytes, d (n,), m (n,) -> w (n, 32)."""
    codes = np.concatenate((packed % 16, packed // 16), axis=1)  # (n, 32): all lower halves, then all upper ones
    w = d[:, None] * codes + m[:, None]  # (n, 32)
    return w
    # On paper: weight 0 is 0.5 · 3 − 3 = −1.5, and weight 16 is 0.5 · 7 − 3 = 0.5. Code 6 represents 0. A block has a
    # code for 0 only if −m / d is an integer from 0 to 15.


def draw(rng, size):
    """Draw blocks with different offsets and steps; in each draw, all weights of one block are positive."""
    packed = rng.integers(0, 256, (size.N, 16), dtype=np.uint8)
    d = rng.uniform(0.2, 1.0, size.N)
    m = -d * rng.uniform(3.0, 12.0, size.N)
    m[1] *= -1
    return {"packed": packed, "d": d, "m": m}


MISTAKES = {
    "the two codes of a byte are treated as codes 2i and 2i + 1, not i and i + 16": lambda i: i.right["w"][
        :, np.arange(32).reshape(2, 16).T.ravel()
    ],
    "8 is subtracted from each code, as in Q4_0, but here m is the offset": lambda i: i.right["w"] - 8 * i.d[:, None],
    "m is multiplied by d as well": ("* codes + m[:, None]", "* (codes + m[:, None])"),
}
