"""Context.

The softmax has turned each row of scores into shares, `probs`. Now each position takes the average of the values of its
head, weighted by its shares, and the heads are put side by side again: (B, T, C), with head n back in its own columns.

**Predict**, whatever the shares are: what is the context of position 0? What is every context if all positions have the
same value? **And check the last step in your head** with the example of task 3: does your merging undo your cutting?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("context",)
HINTS = {"context": "Row i of a head's result is Σ_j prob_ij v_j. How is the cutting into heads undone, in order?"}
FORMULA = "O = probs v, (B, H, T, D);  context = O.transpose(0, 2, 1, 3).reshape(B, T, H · D)"


def attend(probs, v):
    """probs (B, H, T, T), a row for each query; v (B, H, T, D) -> context (B, T, C)."""
    B, H, T, D = v.shape
    O = probs @ v  # O_i = Σ_j prob_ij v_j: (T, T) (T, D) -> (T, D) in each head
    return O.transpose(0, 2, 1, 3).reshape(B, T, H * D)  # (B, T, H, D), then the heads' pieces side by side
    # Position 0 sees itself alone: its context is its own value. If all values are equal, so is every average of them,
    # for the shares of a row add up to 1.


def draw(rng, size):
    weights = np.tril(np.exp(1.5 * rng.normal(size=(size.B, size.H, size.T, size.T))))
    v = rng.normal(size=(size.B, size.H, size.T, size.D))
    return {"probs": weights / weights.sum(axis=-1, keepdims=True), "v": v}


MISTAKES = {
    "context": [
        (
            "each head is given every H-th column, not columns side by side",
            lambda i: (i.probs @ i.v).transpose(0, 2, 3, 1).reshape(i.right["context"].shape),
        ),
        (
            "each position takes the value with the largest share alone",
            lambda i: attend(np.eye(i.size.T)[i.probs.argmax(axis=-1)], i.v),
        ),
    ]
}
