"""5. Context (3 points).

The softmax has turned each row of scores into weights, `probs`. In each head, compute each position's weighted average
of the values. Then concatenate the heads into an array (N, T, C): each head has its own columns again.

**Predict**, for any weights: what is the context of position 0? What are the contexts if all positions have the same
value vector? **Check the last step in your head** with the example of exercise 3: does concatenating the heads undo
splitting them?
"""

import numpy as np

HINTS = {"context": "Row i of a head's result is Σ_j prob_ij v_j. How do you undo the split into heads, step by step?"}
FORMULA = "O = probs v, (N, H, T, D);  context = O.transpose(0, 2, 1, 3).reshape(N, T, H · D)"


def attend(probs, v):
    """probs (N, H, T, T), a row for each query; v (N, H, T, D) -> context (N, T, C)."""
    N, H, T, D = v.shape
    O = probs @ v  # O_i = Σ_j prob_ij v_j: (T, T) (T, D) -> (T, D) in each head
    return O.transpose(0, 2, 1, 3).reshape(N, T, H * D)  # (N, T, H, D), then the heads are concatenated
    # Position 0 sees only itself, so its context is its own value. If all values are equal, every average is equal to
    # them, because the weights of a row add up to 1.


def draw(rng, size):
    weights = np.tril(np.exp(1.5 * rng.normal(size=(size.B, size.H, size.T, size.T))))
    return {"probs": weights / weights.sum(axis=-1, keepdims=True), **size.normals(rng, v="B H T D")}


MISTAKES = {
    "each head fills every H-th column, not D adjacent columns": ("transpose(0, 2, 1, 3)", "transpose(0, 2, 3, 1)"),
    "each position takes only the value of largest weight": ("probs @ v", "np.eye(T)[probs.argmax(axis=-1)] @ v"),
}
