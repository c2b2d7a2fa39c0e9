"""Cross-entropy.

The loss of one row is −log p_t, in nats: how surprised the model is at the right class `t`. `L` is the mean over the
rows. The way back begins here: nothing is upstream of `L`, because ∂L/∂L = 1.

**Derive** it in one go, without going back through the logarithm and task 4: one row's loss is
`log Σ_j exp(x_j) − x_t`. The result is the shortest formula of this set. **Predict first:** which sign does the
gradient have at the target, and which elsewhere? What does each row add up to? And what is the gradient of a row in
which the model is right and all but certain?

`targets` holds one whole number for each row. Take care when you pick one entry from each row of an array:
`a[:, targets]` is something else.
"""

import numpy as np

POINTS = 3
OUTPUTS = ("dlogits",)
HINTS = {"dlogits": "One row's loss is log Σ_j exp(x_j) − x_t: derive both terms. How many rows share the mean?"}
FORMULA = "dlogits = (softmax(logits) − onehot(targets)) / N"


def cross_entropy_backward(logits, targets):
    """logits (N, K), targets (N,) of whole numbers 0 … K−1 -> dlogits (N, K)."""
    N = len(logits)
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))  # (N, K), none above 1: nothing overflows
    dlogits = exp / exp.sum(axis=-1, keepdims=True)  # (N, K): the slope of log Σ exp(x_j) is the softmax
    dlogits[np.arange(N), targets] -= 1.0  # the slope of −x_t, at one place in each row
    # So p_t − 1 < 0 at the target, p > 0 elsewhere, and 0 in all; in a row that is right and certain, nearly 0.
    return dlogits / N  # each row has 1/N of the mean


def draw(rng, size):
    # No class is drawn twice: then a mistake in the places of the targets cannot hide.
    return {"logits": 2 * rng.normal(size=(size.N, size.V)), "targets": rng.choice(size.V, size.N, replace=False)}


def at_targets(i):
    return np.eye(i.size.V)[i.targets]


MISTAKES = {
    "dlogits": [
        (
            "1 is subtracted at all rows' targets in every row",
            lambda i: i.right["dlogits"] + (at_targets(i) - at_targets(i).sum(axis=0)) / i.size.N,
        ),
        (
            "it is the gradient with respect to the probabilities",
            lambda i: -at_targets(i) / (i.size.N + i.size.N**2 * i.right["dlogits"]),  # there, p is 1 + N dlogits
        ),
        ("all entries except the target's are 0", lambda i: i.right["dlogits"] * at_targets(i)),
    ]
}
