"""3. Quantising to NF4 (4 points).

Quantise `W` to 16 given `points` instead of evenly spaced marks. The points increase from −1 to 1, and code `k`
represents `points[k]`. The blocks follow one another row by row, like the weights in memory; `block_size` need not
divide the row length, so a block may begin in one row and end in the next. Compute each block's largest magnitude,
`absmax`, and the codes of its weights.

**Predict first:** which code does a weight of 0 have? Which codes can a block's weight of largest magnitude have? If
you multiply `W` by 10, what happens to the codes and to `absmax`?

One way to find the nearest points is to compute all distances, in an array with one more axis than the array of blocks.
Another is to find each weight's place among the midpoints between neighbouring points.
"""

import numpy as np

from ....compress import CODE_POINTS

HINTS = {
    "codes": "First scale a block to [−1, 1]. How far is one of its weights from each of the 16 points?",
    "absmax": "In which order are the weights in memory? Which weight of a block must become −1 or 1?",
}
FORMULA = """blocks = W.reshape(-1, block_size),  absmax_b = max |block b|
code = the k with the smallest |w / absmax − points[k]|"""


def nf4_quantise(W, points, block_size):
    """W (out, in), points (16,), increasing -> codes (blocks, block_size) of ints 0 … 15, absmax (blocks,)."""
    blocks = W.reshape(-1, block_size)  # (blocks, block_size), row by row
    absmax = np.abs(blocks).max(axis=1)  # (blocks,)
    u = blocks / absmax[:, None]  # (blocks, block_size), from −1 to 1
    distances = np.abs(u[..., None] - points)  # (blocks, block_size, 16): from each weight to each point
    codes = distances.argmin(axis=-1)  # (blocks, block_size)
    return codes, absmax
    # 0 is point 7. A weight of largest magnitude becomes exactly ±1, so its code is 0 or 15. For ten times W, the codes
    # are unchanged and absmax is ten times as large, because u does not depend on the scale of the weights.


def draw(rng, size):
    """Draw a W whose blocks cross row boundaries. Two blocks have smaller weights than the others, and one of the two
    has by far the smallest."""
    W, block_size = rng.normal(size=(6 * size.n_out, 2 * size.n_in + 1)), 2 * size.n_out
    W.reshape(-1, block_size)[:2] *= [[0.5], [0.02]]
    return {"W": W, "points": CODE_POINTS.copy(), "block_size": block_size}


def compared(i, outputs):
    """Also accept codes that follow from the student's own absmax."""
    codes, absmax, blocks = outputs["codes"], outputs["absmax"], i.W.reshape(-1, i.block_size)
    if i.right and np.shape(codes) == blocks.shape and np.shape(absmax) == (len(blocks),) and np.all(absmax):
        distances = np.abs((blocks / absmax[:, None])[..., None] - i.points)
        if np.array_equal(codes, distances.argmin(axis=-1)):
            return outputs | {"codes": i.right["codes"]}
    return outputs


MISTAKES = {
    "the points are assumed to be evenly spaced": lambda i: i.solve(points=np.linspace(-1, 1, 16)),
    "each weight gets the point below it": ("distances.argmin(axis=-1)", "np.searchsorted(points, u, 'right') - 1"),
    "the largest magnitude of all of W is used": ("(blocks).max(axis=1)", "(W).max() + 0 * blocks[:, 0]"),
    "each weight gets the point above it, not the nearest": ("distances.argmin(axis=-1)", "np.searchsorted(points, u)"),
}
