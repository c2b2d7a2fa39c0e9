"""The nearest matrix of rank k.

Give the matrix of rank `k` that is nearest to `M` in the Frobenius norm. `np.linalg.svd` is yours to use; look at the
shapes that it returns before you use them.

**Predict, and try when it is right:** what is `truncate(M, 0)`? Is there a difference between `truncate(truncate(M, 5),
3)` and `truncate(M, 3)`? Between `truncate(truncate(M, 3), 5)` and `truncate(M, 3)`? And this: another program may give
you a `u` and its `v` with the signs reversed. What becomes of your result?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("M_k",)
HINTS = {"M_k": "Which terms of σ₁ u₁ v₁ᵀ + σ₂ u₂ v₂ᵀ + … belong to it? Does NumPy give V or Vᵀ?"}
FORMULA = "M_k = σ₁ u₁ v₁ᵀ + … + σ_k u_k v_kᵀ = (U[:, :k] * σ[:k]) @ Vt[:k]"


def truncate(M, k):
    """M (out, in), k a whole number, at most min(out, in) -> M_k (out, in)."""
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)  # (out, n), (n,), (n, in) with n = min(out, in)
    # Of σ₁ u₁ v₁ᵀ + σ₂ u₂ v₂ᵀ + … the first k terms: columns of U, rows of Vᵀ
    return (U[:, :k] * sigma[:k]) @ Vt[:k]  # (out, k) (k, in) -> (out, in)
    # At k = 0 it is zero. The first pair agrees: cutting to 5 leaves the first three terms as they are. So does the
    # second: a matrix of rank 3 has no more than three terms. In (−u)(−v)ᵀ the signs cancel: nothing changes.


def draw(rng, size):
    """Wide in the second draw, high in the others."""
    shape = sorted((2 * size.n_out, 2 * size.n_in), reverse=size.number != 1)
    return {"M": rng.normal(size=shape), "k": size.r + size.number}


MISTAKES = {
    "M_k": [
        ("the first k columns of M are kept, and the rest is 0", lambda i: i.M * (np.arange(i.M.shape[1]) < i.k)),
        (
            "the columns' means are taken off before the cut, and put back after it",
            lambda i: truncate(i.M - i.M.mean(axis=0), i.k) + i.M.mean(axis=0),
        ),
    ]
}
