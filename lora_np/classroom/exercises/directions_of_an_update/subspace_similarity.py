"""2. How similar are two sets of directions? (3 points).

`U` (n, p) and `V` (n, q) have orthonormal columns, with the leading direction first. φ(i, j) compares the span of the
first i columns of `U` with that of the first j of `V`: it is 1 if the smaller span is contained in the larger, and 0 if
they are orthogonal.

**Derive it.** What are the entries of `U_iᵀ V_j`, and how many are there? If a column of `V_j` is in the span of `U_i`,
how long is the corresponding column of `U_iᵀ V_j`? So what is the largest possible ‖U_iᵀ V_j‖², and by what must you
divide ‖U_iᵀ V_j‖² to get φ(i, j)?

**Predict** in three dimensions, for U = (first axis, second axis) and V = (second axis, third axis): φ(1, 1), φ(2, 1),
φ(1, 2), φ(2, 2). Which of these four values change if `V`'s columns are rotated by 45° within their plane? Can φ(2, 2)
be 0?
"""

import numpy as np

HINTS = {"phi": "What are the entries of U_iᵀ V_j, and how many are there? How large can the sum of their squares be?"}
FORMULA = "φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j),  U_i = U[:, :i],  V_j = V[:, :j]"


def subspace_similarity(U, V, i, j):
    """U (n, p), V (n, q) with orthonormal columns, i from 1 to p, j from 1 to q -> phi, a float from 0 to 1."""
    cosines = U[:, :i].T @ V[:, :j]  # (i, n) (n, j) -> (i, j): one for each pair of directions
    # If a direction of V is in the span of U_i, its column holds its coordinates in that span, and has length 1. There
    # are j columns; if i < j, look at the i rows instead. So the sum of squares is at most min(i, j).
    return np.linalg.norm(cosines) ** 2 / min(i, j)
    # The values are 0, 1, 0, ½. After the rotation, V = (second + third, third − second) / √2: φ(1, 1) is still 0,
    # φ(2, 1) falls to ½, and φ(1, 2) and φ(2, 2) do not change, because V's span does not. φ(2, 2) is at least ½: two
    # planes in three dimensions share a line.


def draw(rng, size):
    """Draw U and V with more columns than i and j; i is larger than j in the second draw, and smaller in the others."""
    i, j = [(2, 4), (5, 3), (3, 6)][size.number]
    U, V = (np.linalg.qr(rng.normal(size=(size.V, columns)))[0] for columns in (i + 2, j + 1))
    return {"U": U, "V": V, "i": i, "j": j}


MISTAKES = {
    "the cosines between the spans are not squared": ("norm(cosines) ** 2", "norm(cosines, 'nuc')"),
    "only columns with the same index are compared": ("norm(cosines)", "norm(np.diag(cosines))"),
}
