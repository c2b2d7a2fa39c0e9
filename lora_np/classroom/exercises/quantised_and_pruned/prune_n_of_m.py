"""5. Pruning in groups (2 points).

Of every `m` neighbouring weights in a row, keep the `n` weights of largest magnitude, and set the others to 0. No two
weights have equal magnitudes, and `m` divides the row length. With `n` = 2 and `m` = 4, this is lesson 12's "2 of 4".

**In your head first:** which weights of the row 3, −4, 1, 2, 5, 6, −7, 8 remain after 2-of-4 pruning? Which weights
remain if you remove the four of smallest magnitude, wherever they are? Which of these two methods keeps more energy
here, and is there a row for which the other method keeps more?
"""

import numpy as np

HINTS = {"W_pruned": "Reshape W so that a third axis runs over a group's members. Which m − n members are smallest?"}
FORMULA = "groups = |W|.reshape(out, in / m, m); in each, the m − n of smallest magnitude become 0"


def prune_n_of_m(W, n, m):
    """W (out, in), n and m ints, n < m -> W_pruned (out, in)."""
    # (out, in/m, m), neighbours along the last axis: the indices in each group, smallest magnitude first
    order = np.abs(W).reshape(len(W), -1, m).argsort(axis=-1)
    drop = order[..., : m - n]
    keep = np.ones(order.shape, dtype=bool)
    np.put_along_axis(keep, drop, False, axis=-1)
    return W * keep.reshape(W.shape)  # (out, in)
    # 2 of 4 gives 3 −4 0 0 0 0 −7 8, which keeps 138 of the total energy of 204; without groups, 0 0 0 0 5 6 −7 8
    # remains, which keeps 174. It is never the other way round: if any four may be chosen, the four that the groups
    # keep may be chosen, too.


def draw(rng, size):
    """Draw a W whose side lengths are both multiples of m, so that grouping along the wrong axis raises no error."""
    n, m = [(2, 4), (1, 3), (3, 5)][size.number]
    return {"W": rng.normal(size=(m * size.n_out, m * size.n_in)), "n": n, "m": m}


def largest(i, axis):
    """Return W pruned to the same share of zeros, but by magnitude in each row (axis 1) or in all of W (axis None)."""
    return np.where(np.abs(i.W) > np.quantile(np.abs(i.W), 1 - i.n / i.m, axis=axis, keepdims=True), i.W, 0.0)


MISTAKES = {
    "an entire row is treated as one group": lambda i: largest(i, 1),
    "the entire matrix is treated as one group (unstructured pruning)": lambda i: largest(i, None),
    "the n smallest are removed, not the m − n smallest": ("m - n]", "n]"),
}
