"""Set 07, the directions of an update: how many there are, how far two sets agree, and those of B A found without
forming it; what they have to do with W's own is in `update_and_base.py`."""

import math

import numpy as np

from ...analysis import (
    effective_rank,
    gaussian_similarity,
    product_right_directions,
    random_directions,
    right_directions,
    singular_values,
    stable_rank,
    subspace_similarity,
)
from ..item import Item
from .thin_factors import draw_factors, r_of
from .update_and_base import AMPLIFICATION, INTRUDERS

# ---------------------------------------------------------------- how many directions


def power(i, p):
    """Σ σ^p over all singular values."""
    return np.sum(singular_values(i.M) ** p)


def largest(i):
    return singular_values(i.M)[0]


STABLE = Item(
    name="stable_rank",
    arguments="M",
    outputs=("rank",),
    task="How many directions a matrix has, each counted by its energy beside the strongest.",
    draw=lambda rng, size: {"M": rng.normal(size=(size.V, size.C))},
    right=lambda M: stable_rank(singular_values(M)),
    factors=lambda i: {"σ₁": largest(i), "σ₁²": largest(i) ** 2, "the number of singular values": min(i.M.shape)},
    mistakes={
        "rank": [
            ("the singular values are not squared", lambda i: power(i, 1) / largest(i)),
            ("this is the square root: ‖M‖ over σ₁ has not been squared", lambda i: math.sqrt(i.right["rank"])),
            ("this is the rank: every singular value above 0 counts as one", lambda i: min(i.M.shape)),
            (
                "this is the effective rank, from the entropy of the singular values",
                lambda i: effective_rank(singular_values(i.M)),
            ),
            (
                "the singular values are added up first and squared after that",
                lambda i: power(i, 1) ** 2 / largest(i) ** 2,
            ),
            ("this is (Σ σ²)² / Σ σ⁴, another way to count", lambda i: power(i, 2) ** 2 / power(i, 4)),
            ("this is the strongest direction's share of the energy, the wrong way up", lambda i: 1 / i.right["rank"]),
            (
                "it is divided by the smallest singular value's energy, not by the largest's",
                lambda i: power(i, 2) / singular_values(i.M)[-1] ** 2,
            ),
            ("the largest entry of M stands where σ₁ belongs", lambda i: power(i, 2) / np.abs(i.M).max() ** 2),
            (
                "the longest column of M stands where σ₁ belongs",
                lambda i: power(i, 2) / np.linalg.norm(i.M, axis=0).max() ** 2,
            ),
            (
                "the longest row of M stands where σ₁ belongs",
                lambda i: power(i, 2) / np.linalg.norm(i.M, axis=1).max() ** 2,
            ),
            (
                "the largest column sum stands where σ₁ belongs: for a matrix, that is what `norm(M, 1)` gives",
                lambda i: power(i, 2) / np.linalg.norm(i.M, 1) ** 2,
            ),
            ("this is σ₁ / σ_n, the condition number", lambda i: np.linalg.cond(i.M)),
            ("the singular values are squared once too often", lambda i: power(i, 4) / largest(i) ** 4),
        ]
    },
    hints={"rank": "With n equal singular values it is n. What does each give that is half as large as the first?"},
    formula="stable rank = (σ₁² + σ₂² + …) / σ₁² = ‖M‖²_F / σ₁²",
)

# ---------------------------------------------------------------- how far two sets agree


def draw_pair(rng, size):
    """More columns than are asked for; i is the smaller in the first draw, and the larger in the second."""
    i, j = {2: (2, 3), 3: (4, 2)}[size.r]
    return {"U": random_directions(size.V, i + 2, rng), "V": random_directions(size.V, j + 1, rng), "i": i, "j": j}


def cosines(d, i=None, j=None):
    """U_iᵀ V_j, with as many columns as one says."""
    return d.U[:, : d.i if i is None else i].T @ d.V[:, : d.j if j is None else j]


def squares(d, i=None, j=None):
    return np.sum(cosines(d, i, j) ** 2)


def least(d):
    return min(d.i, d.j)


SIMILARITY = Item(
    name="subspace_similarity",
    arguments="U, V, i, j",
    outputs=("phi",),
    task="How far the first i directions of one set and the first j of another agree.",
    draw=draw_pair,
    right=subspace_similarity,
    factors=lambda d: {"min(i, j)": least(d)},
    mistakes={
        "phi": [
            ("the norm is not squared", lambda d: math.sqrt(squares(d)) / least(d)),
            ("a square root is taken of the whole", lambda d: math.sqrt(d.right["phi"])),
            ("it is divided by the larger of i and j", lambda d: squares(d) / max(d.i, d.j)),
            ("it is divided by i · j, as a mean over all pairs of columns", lambda d: squares(d) / (d.i * d.j)),
            ("it is divided by √(i j)", lambda d: squares(d) / math.sqrt(d.i * d.j)),
            ("it is divided by i + j", lambda d: squares(d) / (d.i + d.j)),
            ("all columns are taken, not the first i and j", lambda d: all_columns(d) / least(d)),
            ("all columns are taken, and counted", lambda d: all_columns(d) / min(d.U.shape[1], d.V.shape[1])),
            ("i and j are exchanged: j columns of U and i of V are taken", lambda d: squares(d, d.j, d.i) / least(d)),
            ("as many columns are taken of both, min(i, j)", lambda d: squares(d, least(d), least(d)) / least(d)),
            ("column i of U and column j of V are taken alone", lambda d: cosines(d)[-1, -1] ** 2),
            ("one column too few is taken of both", lambda d: squares(d, d.i - 1, d.j - 1) / least(d)),
            ("one column too many is taken of both", lambda d: squares(d, d.i + 1, d.j + 1) / least(d)),
            (
                "only columns of the same number are compared: a column may agree with any of the others",
                lambda d: np.sum(np.diag(cosines(d)) ** 2) / least(d),
            ),
            (
                "each direction is held against its best partner alone",
                lambda d: np.sum(np.max(cosines(d) ** 2, axis=int(d.i < d.j))) / least(d),
            ),
            (
                "the cosines of the angles between the two spans are not squared",
                lambda d: np.linalg.norm(cosines(d), "nuc") / least(d),
            ),
            (
                "this is the largest squared cosine alone, the norm is that of a matrix's σ₁",
                lambda d: np.linalg.norm(cosines(d), 2) ** 2,
            ),
            ("the cosines are added up first and squared after that", lambda d: np.sum(cosines(d)) ** 2 / least(d)),
            ("the cosines are added up without being squared", lambda d: np.sum(cosines(d)) / least(d)),
            ("the absolute values of the cosines are added up", lambda d: np.sum(np.abs(cosines(d))) / least(d)),
            ("this says how far the two differ: it is 1 − φ", lambda d: 1 - d.right["phi"]),
        ]
    },
    hints={"phi": "Which numbers stand in U_iᵀ V_j, and how many are there? How large can their energy be at most?"},
    formula="φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j),  U_i = U[:, :i],  V_j = V[:, :j]",
)


def all_columns(d):
    return np.sum((d.U.T @ d.V) ** 2)


CHANCE = Item(
    name="chance_similarity",
    arguments="n, i, j",
    outputs=("phi",),
    task="The φ(i, j) that two random subspaces have, on average.",
    draw=lambda rng, size: {"n": 8 * size.V, "i": size.n_out, "j": 2 * size.r},
    right=gaussian_similarity,
    factors=lambda d: {"n": d.n, "i": d.i, "j": d.j, "2": 2.0},
    mistakes={
        "phi": [
            ("the smaller of i and j stands where the larger belongs", lambda d: min(d.i, d.j) / d.n),
            ("this is ‖U_iᵀ V_j‖², not yet divided by min(i, j)", lambda d: d.i * d.j / d.n),
            ("each of the two brings a factor 1/n", lambda d: d.i * d.j / d.n**2),
            ("this is for one direction on each side", lambda d: 1 / d.n),
            ("a typical cosine, 1/√n, is not squared", lambda d: max(d.i, d.j) / math.sqrt(d.n)),
            ("a typical cosine is not squared", lambda d: 1 / math.sqrt(d.n)),
            ("a square root is taken of the whole", lambda d: math.sqrt(d.right["phi"])),
            ("i and j are added", lambda d: (d.i + d.j) / d.n),
            ("the mean of i and j stands where the larger belongs", lambda d: (d.i + d.j) / 2 / d.n),
            ("√(i j) stands where the larger of i and j belongs", lambda d: math.sqrt(d.i * d.j) / d.n),
            ("this says how far the two differ: it is 1 − φ", lambda d: 1 - d.right["phi"]),
            ("random subspaces agree a little, too: it is not 0", lambda d: 0.0),
        ]
    },
    hints={"phi": "How much of a random direction's squared length lies within i given ones? There are j such."},
    formula="on average φ = (i j / n) / min(i, j) = max(i, j) / n",
)

# ---------------------------------------------------------------- the directions of thin factors


def draw_thin(rng, size):
    """Of the r directions all but one are asked for: B says which, A alone does not."""
    return {**draw_factors(rng, size), "k": size.r - 1}


def signed(i, outputs):
    """A direction may come with either sign: the largest number of each is made positive."""
    V = np.asarray(outputs["V"], dtype=float)
    if V.ndim != 2:
        return outputs
    return {"V": V * np.sign(np.take_along_axis(V, np.abs(V).argmax(axis=0)[None], axis=0))}


def through(i, middle):
    """Q_A times what stands in the place of the small matrix's V, cut to k columns, with the signs set."""
    return set_signs(np.linalg.qr(np.asarray(i.A).T)[0] @ middle[:, : i.k])


def set_signs(V):
    return signed(None, {"V": V})["V"]


def small(i):
    """U, Σ and Vᵀ of R_B R_Aᵀ (r, r)."""
    return np.linalg.svd(r_of(np.asarray(i.B)) @ r_of(np.asarray(i.A).T).T)


def rows_of_A(i, unit=True):
    rows = np.asarray(i.A)[: i.k].T
    return set_signs(rows / np.linalg.norm(rows, axis=0) if unit else rows)


DIRECTIONS = Item(
    name="adapter_directions",
    arguments="B, A, k",
    outputs=("V",),
    task="The k leading input directions of B A, without forming B A.",
    draw=draw_thin,
    right=product_right_directions,
    compared=signed,
    mistakes={
        "V": [
            (
                "these are the leading directions of A alone: B says which of them the update uses, and how much",
                lambda i: set_signs(right_directions(np.asarray(i.A), i.k)),
            ),
            ("these are the first rows of A, at unit length", rows_of_A),
            ("these are the first rows of A", lambda i: rows_of_A(i, unit=False)),
            (
                "this is Q of Aᵀ, cut to k columns: an orthonormal basis in the order of A's rows",
                lambda i: through(i, np.eye(i.size.r)),
            ),
            (
                "U of the small matrix stands where its V belongs: that is the side of the output",
                lambda i: through(i, small(i)[0]),
            ),
            (
                "the columns of NumPy's third result are taken for the v's: it gives Vᵀ, with the v's as rows",
                lambda i: through(i, small(i)[2]),
            ),
            (
                "A's R is not transposed",
                lambda i: through(i, np.linalg.svd(r_of(np.asarray(i.B)) @ r_of(np.asarray(i.A).T))[2].T),
            ),
            (
                "B is missing: the small matrix is made of A's R alone",
                lambda i: through(i, np.linalg.svd(r_of(np.asarray(i.A).T))[2].T),
            ),
            ("these are the k weakest directions, not the leading ones", lambda i: through(i, small(i)[2].T[:, ::-1])),
            ("the last k directions are taken, not the first k", lambda i: through(i, small(i)[2].T[:, -i.k :])),
            (
                "the directions have the length σ, where 1 is expected",
                lambda i: through(i, small(i)[2].T * small(i)[1]),
            ),
        ]
    },
    hints={"V": "With B = Q_B R_B and Aᵀ = Q_A R_A, what stands to the right of the small matrix's own V in B A?"},
    formula="B = Q_B R_B,  Aᵀ = Q_A R_A,  R_B R_Aᵀ = U Σ Vᵀ:  B A = (Q_B U) Σ (Q_A V)ᵀ,\n"
    "and the directions are the first k columns of Q_A V",
)

ITEMS = (STABLE, SIMILARITY, CHANCE, AMPLIFICATION, INTRUDERS, DIRECTIONS)
