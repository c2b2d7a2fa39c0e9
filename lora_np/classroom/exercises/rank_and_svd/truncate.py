"""The nearest matrix of rank k.

Give the matrix of rank `k` that is nearest to `M` in the Frobenius norm. You may use `np.linalg.svd`; look at the
shapes that it returns first.

**Predict, and try when it is right:** what is `truncate(M, 0)`? Is there a difference between
`truncate(truncate(M, 5), 3)` and `truncate(M, 3)`? Between `truncate(truncate(M, 3), 5)` and `truncate(M, 3)`? And if
another program reverses the signs of a column of `U` and of `V`, what happens to your result?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("M_k",)
HINTS = {"M_k": "Which terms of Σ_i σ_i U_:i V_:iᵀ belong to it? Does NumPy give V or Vᵀ?"}
FORMULA = "M_k = Σ_i σ_i U_:i V_:iᵀ, i from 1 to k, = (U[:, :k] * σ[:k]) @ Vt[:k]"


def truncate(M, k):
    """M (out, in), k a whole number, at most min(out, in) -> M_k (out, in)."""
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)  # (out, n), (n,), (n, in) with n = min(out, in)
    # The first k terms of Σ_i σ_i U_:i V_:iᵀ: columns of U, rows of Vᵀ
    return (U[:, :k] * sigma[:k]) @ Vt[:k]  # (out, k) (k, in) -> (out, in)
    # At k = 0 it is zero. The first pair agrees: cutting to 5 leaves the first three terms as they are. So does the
    # second: a matrix of rank 3 has no more than three terms. Two reversed signs cancel: nothing changes.


def draw(rng, size):
    """Wide in the second draw, high in the others."""
    shape = sorted((2 * size.n_out, 2 * size.n_in), reverse=size.number != 1)
    return {"M": rng.normal(size=shape), "k": size.r + size.number}


MISTAKES = {
    "M_k": [
        ("the first k columns of M are kept, and the rest is 0", lambda i: i.M * (np.arange(i.M.shape[1]) < i.k)),
        (
            "the columns' means are subtracted before the cut, and added after it",
            lambda i: truncate(i.M - i.M.mean(axis=0), i.k) + i.M.mean(axis=0),
        ),
    ]
}
