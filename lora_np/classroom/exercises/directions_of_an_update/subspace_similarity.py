"""How far do two sets of directions agree?

`U` (n, p) and `V` (n, q) have orthonormal columns, the leading one first. φ(i, j) compares the span of the first i
columns of `U` with that of the first j of `V`: 1 if the smaller span is within the larger, 0 if they are orthogonal.

**Derive it.** Which numbers are in `U_iᵀ V_j`, and how many? If a column of `V_j` is within the span of `U_i`, how long
is its column in `U_iᵀ V_j`? So how large can the energy of `U_iᵀ V_j` be at most, and what must you divide by?

**Predict** in three dimensions, for U = (first axis, second axis) and V = (second axis, third axis): φ(1, 1), φ(2, 1),
φ(1, 2), φ(2, 2). Which of these change if `V`'s columns are turned by 45° within their plane? And can φ(2, 2) be 0?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("phi",)
HINTS = {"phi": "Which numbers are in U_iᵀ V_j, and how many are there? How large can their energy be at most?"}
FORMULA = "φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j),  U_i = U[:, :i],  V_j = V[:, :j]"


def subspace_similarity(U, V, i, j):
    """U (n, p), V (n, q) with orthonormal columns, i from 1 to p, j from 1 to q -> phi, a number from 0 to 1."""
    cosines = U[:, :i].T @ V[:, :j]  # (i, n) (n, j) -> (i, j): of each direction with each
    # The column of a direction within the span holds all its coordinates there, so its length is 1. If j ≤ i there are
    # at most j such columns; if i < j, look at the rows in the same way. So the energy is at most min(i, j).
    return np.linalg.norm(cosines) ** 2 / min(i, j)
    # 0, 1, 0, ½. Turned, V = (second + third, third − second) / √2: φ(1, 1) stays 0, φ(2, 1) falls to ½, and φ(1, 2)
    # and φ(2, 2) stay, because V's span does. φ(2, 2) is at least ½: two planes in three dimensions share a line.


def draw(rng, size):
    """More columns than are asked for; i is the larger in the second draw, and the smaller in the others."""
    i, j = [(2, 4), (5, 3), (3, 6)][size.number]
    U, V = (np.linalg.qr(rng.normal(size=(size.V, columns)))[0] for columns in (i + 2, j + 1))
    return {"U": U, "V": V, "i": i, "j": j}


def cosines(i):
    return i.U[:, : i.i].T @ i.V[:, : i.j]


MISTAKES = {
    "phi": [
        (
            "the cosines of the spans' angles are not squared",
            lambda i: np.linalg.norm(cosines(i), "nuc") / min(i.i, i.j),
        ),
        ("only columns of the same number are compared", lambda i: np.sum(np.diag(cosines(i)) ** 2) / min(i.i, i.j)),
    ]
}
