"""5. Cross-entropy (3 points).

The loss of one row, −log p_t in nats, measures how surprised the model is by the correct class `t`. `L` is the mean
loss over the rows. The backward pass begins here: no upstream gradient is needed, because ∂L/∂L = 1.

**Derive** it directly, without going back through the logarithm and the softmax of exercise 4: one row's loss is
`log Σ_j exp(x_j) − x_t`. The result is the shortest formula in this set. **Predict first:** what is the gradient's sign
at the target, and what is it elsewhere? What does each row of the gradient add up to? What is the gradient for a row on
which the model is correct and almost certain?

`targets` holds one integer for each row. Take care when you select one entry from each row of an array: `a[:, targets]`
selects something else.
"""

import numpy as np

HINTS = {"dlogits": "One row's loss is log Σ_j exp(x_j) − x_t: differentiate both terms. How many rows are averaged?"}
FORMULA = "dlogits = (softmax(logits) − onehot(targets)) / N"


def cross_entropy_backward(logits, targets):
    """logits (N, K), targets (N,) of ints 0 … K−1 -> dlogits (N, K)."""
    N = len(logits)
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))  # (N, K), at most 1, so nothing overflows
    dlogits = exp / exp.sum(axis=-1, keepdims=True)  # (N, K): the gradient of log Σ exp(x_j) is the softmax
    dlogits[np.arange(N), targets] -= 1.0  # the derivative of −x_t, at one entry of each row
    # Now dlogits is p_t − 1 < 0 at the target and p > 0 elsewhere, and each row adds up to 0. If the model is correct
    # and almost certain, all entries are nearly 0.
    return dlogits / N  # each row has the weight 1/N in the mean


def draw(rng, size):
    # No class is drawn twice, so that a mistake in the targets' columns is always detected.
    return {"logits": 2 * rng.normal(size=(size.N, size.V)), "targets": rng.choice(size.V, size.N, replace=False)}


def at_targets(i):
    return np.eye(i.size.V)[i.targets]


MISTAKES = {
    "1 is subtracted after the division by N": ("-= 1.0", "-= N"),
    "in every row, 1 is subtracted at the targets of all rows": ("np.arange(N), targets", ":, targets"),
    "this is the gradient with respect to the probabilities": lambda i: (
        -at_targets(i) / (i.size.N + i.size.N**2 * i.right["dlogits"])  # at targets, p is 1 + N dlogits
    ),
    "all entries except the target's are 0": lambda i: i.right["dlogits"] * at_targets(i),
}
