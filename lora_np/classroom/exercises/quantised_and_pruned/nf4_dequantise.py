"""4. Dequantising NF4 (3 points).

In a file, two codes share one byte, an integer from 0 to 255: `first code · 16 + second code`. The bytes are in the
order of the weights: the first byte holds the codes of weights 0 and 1, the second byte those of weights 2 and 3.
Compute the dequantised matrix. The array sizes tell you how many weights share a scale.

**On paper first:** `packed` is 86, 255, 7, 112, there are two blocks with `absmax` 2 and 10, and the shape is (2, 4).
Which codes are in `packed`? Which entries of Ŵ do you know without looking up any values in `points`? **Predict:** if
you quantise Ŵ again, what do you get?
"""

import numpy as np

from ....compress import CODE_POINTS

HINTS = {"W_hat": "86 = 5 · 16 + 6: which codes are these, in which order? How many weights share a scale?"}
FORMULA = """codes: byte // 16, then byte % 16, for each byte in turn
ŵ = points[code] · absmax of its block, filled into the shape row by row"""


def nf4_dequantise(packed, absmax, points, shape):
    """packed (out · in / 2,) of bytes, absmax (blocks,), points (16,), shape = (out, in) -> W_hat (out, in)."""
    codes = np.stack((packed // 16, packed % 16), axis=1)  # (bytes, 2): the two codes of each byte
    values = points[codes.reshape(-1)]  # (out · in,), from −1 to 1
    blocks = values.reshape(len(absmax), -1)  # (blocks, block_size)
    return (blocks * absmax[:, None]).reshape(shape)  # (out, in)
    # On paper: the codes are 5 6 15 15 | 0 7 7 0. Point 15 is 1, point 7 is 0, point 0 is −1: Ŵ is [[?, ?, 2, 2], [−10,
    # 0, 0, −10]]. Quantising Ŵ again gives the same codes and absmax, and restores Ŵ exactly, because its scaled
    # entries are already points.


def draw(rng, size):
    shape, block_size = (6 * size.n_out, 2 * size.n_in + 1), 2 * size.n_out
    packed = rng.integers(0, 256, shape[0] * shape[1] // 2, dtype=np.uint8)
    absmax = rng.uniform(0.5, 4.0, 2 * len(packed) // block_size)
    return {"packed": packed, "absmax": absmax, "points": CODE_POINTS.copy(), "shape": shape}


MISTAKES = {
    "the scale changes from weight to weight, but it should change from block to block": lambda i: (
        i.solve(absmax=np.ones_like(i.absmax)) * np.resize(i.absmax, i.shape)
    ),
    "the points are assumed to be evenly spaced": lambda i: i.solve(points=np.linspace(-1, 1, 16)),
    "the matrix is filled column by column": lambda i: i.right["W_hat"].ravel().reshape(i.shape, order="F"),
    "all first codes come before all second codes, but the two alternate": ("axis=1)", "axis=0)"),
}

AFTER = """**Beyond the points.** Quantise and dequantise a real matrix with your own two functions. Type this in:

    from lora_np.compress import CODE_POINTS, quantise_nf4
    from lora_np.formats import load_pretrained

    W = load_pretrained()[0]["blocks.0.mlp.up_proj.weight"].astype(float)  # (1024, 256)
    codes, absmax = nf4_quantise(W, CODE_POINTS, 64)
    first, second = codes.reshape(-1, 2).T
    packed = (16 * first + second).astype(np.uint8)
    W_hat = nf4_dequantise(packed, absmax, CODE_POINTS, W.shape)
    print(np.linalg.norm(W_hat - W) / np.linalg.norm(W), packed.nbytes / W.size * 8)
    print(np.abs(W_hat - np.asarray(quantise_nf4(W, 64, double=False))).max())  # compared with the package

Then choose your own sixteen points. Can you find points that restore this `W` with a smaller error than NF4's?
"""
