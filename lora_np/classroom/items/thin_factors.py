"""Set 01, second part: the two thin factors themselves, of which one may ask much without multiplying them out."""

import numpy as np

from ...adapters import lora
from ...analysis import product_singular_values
from ...ops import linear_forward
from ..item import Item


def terms_of(matrix, which, power=1.0):
    """Some terms σ u vᵀ of a matrix's singular value decomposition, added up, with another power of σ."""
    U, sigma, Vt = np.linalg.svd(matrix, full_matrices=False)
    return (U[:, which] * sigma[which] ** power) @ Vt[which]


# ---------------------------------------------------------------- factors that watch over their product


class ProductFormed(Exception):
    """Where the task is to do without B A."""


class Thin(np.ndarray):
    """B or A, which refuses to become B A: nothing that is computed from it may have that shape."""

    product = None

    def __array_finalize__(self, parent):  # NumPy calls this for every array that comes out of an operation
        self.product = getattr(parent, "product", None)
        refuse(self, self.product)

    def __array_function__(self, function, types, args, kwargs):  # einsum, outer and others, which give plain arrays
        result = super().__array_function__(function, types, args, kwargs)
        refuse(result, self.product)
        return result


def refuse(array, product):
    if product and getattr(array, "shape", None) in (product, product[::-1]):
        raise ProductFormed(f"B A has been formed, all {product[0]} × {product[1]} numbers; you can do without")


def draw_factors(rng, size):
    shapes = lora.shapes(3 * size.n_out, 3 * size.n_in, size.r)
    B, A = (rng.normal(size=shapes[name]).view(Thin) for name in ("lora_B", "lora_A"))
    B.product = A.product = (len(B), A.shape[1])
    return {"B": B, "A": A}


# ---------------------------------------------------------------- a column

COLUMN = Item(
    name="product_column",
    arguments="B, A, j",
    outputs=("column",),
    task="Column j of B A, without forming B A.",
    draw=lambda rng, size: {**draw_factors(rng, size), "j": size.r - 1},  # so small that B has a column j, too
    right=lambda B, A, j: linear_forward(A[:, j], B)[0],
    factors=lambda i: {"r": i.size.r},
    mistakes={
        "column": [
            ("this is column j of B", lambda i: i.B[:, i.j]),
            ("this is column j − 1: the first column is number 0", lambda i: i.B @ i.A[:, i.j - 1]),
            ("this is column j + 1", lambda i: i.B @ i.A[:, i.j + 1]),
            ("this is B times the first r numbers of row j of A", lambda i: i.B @ i.A[i.j, : i.size.r]),
            ("only the first of the r products is there", lambda i: i.B[:, 0] * i.A[0, i.j]),
            ("only the last of the r products is there", lambda i: i.B[:, -1] * i.A[-1, i.j]),
            ("A is missing: the columns of B are added up as they are", lambda i: i.B.sum(axis=1)),
            ("both are added up first and multiplied after that", lambda i: i.B.sum(axis=1) * i.A[:, i.j].sum()),
            ("this is the sum of all columns of B A", lambda i: i.B @ i.A.sum(axis=1)),
        ]
    },
    hints={"column": "(B A)_oj = Σ_k B_ok A_kj. Which numbers of A stand in that, whatever o is?"},
    formula="column j of B A = B · (column j of A)",
)

# ---------------------------------------------------------------- the singular values


def r_of(array):
    """R of array = Q R."""
    return np.linalg.qr(array, mode="r")


def values(array):
    return np.linalg.svd(array, compute_uv=False)


SPECTRUM = Item(
    name="product_singular_values",
    arguments="B, A",
    outputs=("sigma",),
    task="The r singular values of B A, without forming B A.",
    draw=draw_factors,
    right=product_singular_values,
    mistakes={
        "sigma": [
            ("the singular values of B and of A are multiplied", lambda i: values(i.B) * values(i.A)),
            ("these are the singular values of B", lambda i: values(i.B)),
            ("these are the singular values of A", lambda i: values(i.A)),
            ("these are the squares of the singular values", lambda i: i.right["sigma"] ** 2),
            (
                "the lengths of B's columns are multiplied by those of A's rows: right only if both are orthogonal",
                lambda i: np.linalg.norm(i.B, axis=0) * np.linalg.norm(i.A, axis=1),
            ),
            (
                "the lengths of B's columns are multiplied by those of A's rows: right only if both are orthogonal",
                lambda i: -np.sort(-np.linalg.norm(i.B, axis=0) * np.linalg.norm(i.A, axis=1)),
            ),
            ("A's R is not transposed", lambda i: values(r_of(i.B) @ r_of(i.A.T))),
            ("the two R's are multiplied in the wrong order", lambda i: values(r_of(i.A.T) @ r_of(i.B))),
            (
                "A itself has been split, not Aᵀ: its Q then stands between the two R's, and you have left it out",
                lambda i: values(r_of(i.B) @ r_of(i.A)),
            ),
            (
                "these are the numbers on the diagonal of the two R's product, not its singular values",
                lambda i: np.abs(np.diag(r_of(i.B) @ r_of(i.A.T).T)),
            ),
            (
                "these are eigenvalues of the small matrix, not its singular values",
                lambda i: -np.sort(-np.abs(np.linalg.eigvals(r_of(i.B) @ r_of(i.A.T).T))),
            ),
        ]
    },
    hints={"sigma": "With B = Q R, the Q only turns. Do the same with Aᵀ: what is left between the two Q's?"},
    formula="B = Q_B R_B and Aᵀ = Q_A R_A: the singular values of B A are those of R_B R_Aᵀ, which is (r, r)",
)
