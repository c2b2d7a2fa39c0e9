"""Pruning in groups.

Of every `m` neighbours in a row the `n` of largest magnitude stay, and the others become 0. No two of them are equal,
and `m` divides a row. With `n` = 2 and `m` = 4 it is lesson 12's "2 of 4".

**In your head first:** the row is 3, −4, 1, 2, 5, 6, −7, 8. What is left of it at 2 of 4? What is left if half of all
its weights may go, wherever they are? Which keeps more of the energy, and can it ever be the other way round?
"""

import numpy as np

POINTS = 2
OUTPUTS = ("W_pruned",)
HINTS = {"W_pruned": "Give W a third axis, with the members of a group along it. Which are the m − n smallest?"}
FORMULA = "groups = |W|.reshape(out, in / m, m); in each, the m − n of least magnitude become 0"


def prune_n_of_m(W, n, m):
    """W (out, in), n and m whole numbers, n < m -> W_pruned (out, in)."""
    # (out, in/m, m), neighbours along the last axis: the places in each group, the least magnitude first
    order = np.abs(W).reshape(len(W), -1, m).argsort(axis=-1)
    drop = order[..., : m - n]
    keep = np.ones(order.shape, dtype=bool)
    np.put_along_axis(keep, drop, False, axis=-1)
    return W * keep.reshape(W.shape)  # (out, in)
    # 3 −4 0 0 0 0 −7 8 at 2 of 4, with 138 of the energy's 204; 0 0 0 0 5 6 −7 8 without groups, with 174. It is never
    # the other way round: whoever may choose any four can also choose those of the groups.


def draw(rng, size):
    """Rows and columns in whole groups, so that groups that run the wrong way are possible."""
    n, m = [(2, 4), (1, 3), (3, 5)][size.number]
    return {"W": rng.normal(size=(m * size.n_out, m * size.n_in)), "n": n, "m": m}


def largest(i, axis):
    """The same share of zeros, chosen within a whole row (1), or the whole matrix (None)."""
    return np.where(np.abs(i.W) > np.quantile(np.abs(i.W), 1 - i.n / i.m, axis=axis, keepdims=True), i.W, 0.0)


MISTAKES = {
    "W_pruned": [
        ("a whole row is taken for one group", lambda i: largest(i, 1)),
        ("the whole matrix is taken for one group: this is pruning by magnitude", lambda i: largest(i, None)),
    ]
}
