"""4. Softmax (3 points).

Each row of `x` becomes probabilities `p`: `p_i = exp(x_i) / Σ_j exp(x_j)`. Here one entry of `x` affects *every* entry
in its row of `p`: the corresponding one through the numerator, and all of them through the common denominator.

**Derive** ∂p_j/∂x_i, for i = j and for i ≠ j, and express both in terms of `p` only: then `x` need not be stored for
the backward pass. Multiply by `dp_j` and sum over j. **Predict first:** if you add the same number to all entries of a
row of `x`, what happens to `p`? So what must each row of `dx` add up to, for any `dp`? What is `dx` if all entries of a
row of `dp` are equal?

You need neither a loop nor a (K, K) array; `keepdims=True` helps.
"""

import numpy as np

HINTS = {"dx": "x_i changes p_i and, through the denominator, every other p_j. What does each p_j contribute to dx_i?"}
FORMULA = "dx_i = p_i (dp_i − Σ_j dp_j p_j), row by row"


def softmax_backward(dp, p):
    """dp (N, K), p = softmax(x) (N, K), whose rows add up to 1 -> dx (N, K)."""
    # ∂p_j/∂x_i = p_j (δ_ij − p_i), where δ_ij is 1 for i = j and 0 otherwise. Multiply by dp_j and sum over j:
    # dx_i = dp_i p_i − p_i Σ_j dp_j p_j
    average = np.sum(dp * p, axis=-1, keepdims=True)  # (N, 1): the average of each row of dp, weighted by p
    # A row of dx adds up to Σ_i p_i dp_i − average = 0. If all dp in a row are equal, so is their average: dx = 0.
    return p * (dp - average)  # (N, K)


def draw(rng, size):
    exp = np.exp(rng.normal(size=(size.N, size.V)))
    return {"dp": rng.normal(size=exp.shape), "p": exp / exp.sum(axis=-1, keepdims=True)}


MISTAKES = {
    "each p_i is differentiated with respect to its own x_i only": lambda i: i.p * (1 - i.p) * i.dp,
    "this is the gradient of log softmax": lambda i: i.dp - i.p * i.dp.sum(axis=-1, keepdims=True),
}
