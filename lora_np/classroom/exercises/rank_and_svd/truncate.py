"""4. The nearest matrix of rank k (3 points).

Compute the matrix of rank `k` that is nearest to `M` in the Frobenius norm. You may use `np.linalg.svd`; look first at
the shapes of the arrays that it returns.

**Predict, then test your predictions once the check passes:** what is `truncate(M, 0)`? Does
`truncate(truncate(M, 5), 3)` differ from `truncate(M, 3)`? Does `truncate(truncate(M, 3), 5)` differ from
`truncate(M, 3)`? If another program flips the signs of a column of `U` and of the same column of `V`, does your result
change?
"""

import numpy as np

HINTS = {"M_k": "Which terms of Σ_i σ_i U_:i V_:iᵀ do you keep? Does NumPy return V or Vᵀ?"}
FORMULA = "M_k = Σ_i σ_i U_:i V_:iᵀ, i from 1 to k, = (U[:, :k] * σ[:k]) @ Vt[:k]"


def truncate(M, k):
    """M (out, in), k an int, at most min(out, in) -> M_k (out, in)."""
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)  # (out, n), (n,), (n, in) with n = min(out, in)
    # These are the first k terms of Σ_i σ_i U_:i V_:iᵀ, built from columns of U and rows of Vᵀ.
    return (U[:, :k] * sigma[:k]) @ Vt[:k]  # (out, k) (k, in) -> (out, in)
    # For k = 0 the result is the zero matrix. The first pair agrees: truncation to rank 5 does not change the first
    # three terms. The second pair agrees, too: a matrix of rank 3 has only three terms. The two sign flips cancel, so
    # the result does not change.


def draw(rng, size):
    """Draw a wide matrix in the second draw and tall ones in the others."""
    shape = sorted((2 * size.n_out, 2 * size.n_in), reverse=size.number != 1)
    return {"M": rng.normal(size=shape), "k": size.r + size.number}


MISTAKES = {
    "the last k terms are dropped, and the others are kept": lambda i: i.solve(k=min(i.M.shape) - i.k),
    "the first k columns of M are kept, and the others are 0": lambda i: i.M * (np.arange(i.M.shape[1]) < i.k),
}
