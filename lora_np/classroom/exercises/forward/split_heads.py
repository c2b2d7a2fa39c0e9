"""3. Splitting into heads (2 points).

`q`, `k` and `v` are (N, T, C), and each head has its own D columns: head 0 has the first D, head 1 the next D, and so
on. Rearrange such an array into shape (N, H, T, D), so that the heads form a batch axis, as the texts do.

**On paper first:** `N` = 1, `T` = 2, `C` = 4, `H` = 2, and `x = [[0, 1, 2, 3], [4, 5, 6, 7]]`. Write down the entries
of heads 0 and 1. Then write down the result of `x.reshape(1, 2, 2, 2)`, which also has the correct shape.
"""

import numpy as np

HINTS = {"x_heads": "First split only the last axis in two. What shape is that, and which two axes must be swapped?"}
FORMULA = "x.reshape(N, T, H, D).transpose(0, 2, 1, 3) with D = C / H"


def split_heads(x, H):
    """x (N, T, C), H a divisor of C -> x_heads (N, H, T, D)."""
    N, T, C = x.shape
    by_head = x.reshape(N, T, H, C // H)  # (N, T, H, D): the columns of each position, split into H groups
    return by_head.transpose(0, 2, 1, 3)  # (N, H, T, D): heads before positions
    # Head 0 holds [0, 1] and [4, 5], and head 1 holds [2, 3] and [6, 7]. Without the transpose, head 0 would hold
    # [0, 1] and [2, 3]: all of position 0, and nothing of position 1. A reshape never changes the order of the entries;
    # it only groups them differently.


def draw(rng, size):
    return {"x": rng.normal(size=(size.B, size.T, size.C)), "H": size.H}


MISTAKES = {
    "each head has every H-th column, not D adjacent columns": lambda i: np.stack(
        [i.x[:, :, n :: i.H] for n in range(i.H)], axis=1
    ),
    "positions and columns are swapped before the reshape, but not swapped back after it": lambda i: np.reshape(
        i.x.swapaxes(1, 2), i.right["x_heads"].shape
    ),
    "every head has the columns of the first one": lambda i: np.repeat(i.right["x_heads"][:, :1], i.H, axis=1),
}
