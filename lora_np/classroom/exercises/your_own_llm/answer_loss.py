"""5. The loss of an answer (4 points).

`logits` has a row for each of `T` tokens, and `targets` has the id of the next token for each row, or −100 if that
token does not count. The loss is the mean of −log p over the targets that count:

    L = −(1/n) Σ log p[t, targets[t]], over the n positions t with targets[t] ≥ 0

Compute the loss and its gradient with respect to the logits. If you have done exercise set 03, start from its
`cross_entropy_backward`.

**Predict:** what is `dlogits` in the rows that do not count, and what does each of the other rows add up to? How does
the loss change if you add ten more rows that do not count? What is the loss of a model that gives all 49,152 tokens
the same probability?
"""

import numpy as np

from ....ops.softmax import softmax

HINTS = {
    "loss": "In which rows do you take −log p, in which column of each, and over how many rows do you average?",
    "dlogits": "In exercise set 03, a row's gradient was its softmax, minus 1 at the target. Which rows have a target?",
}
FORMULA = """p = softmax(logits), along each row
loss = −mean(log p[t, targets[t]]) over the n rows that count
dlogits = (p − onehot(targets)) / n in these rows, and 0 in all others"""


def answer_loss(logits, targets):
    """logits (T, vocab), targets (T,) of ids or −100 -> loss, dlogits (T, vocab)."""
    counts = targets >= 0  # (T,)
    rows = np.flatnonzero(counts)  # (n,)
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = exp / exp.sum(axis=1, keepdims=True)  # (T, vocab)
    loss = -np.mean(np.log(p[rows, targets[rows]]))
    dlogits = np.zeros_like(p)
    dlogits[rows] = p[rows]
    dlogits[rows, targets[rows]] -= 1
    return loss, dlogits / len(rows)
    # In dlogits, rows that do not count are zero, and each of the others adds up to 0. Ten more rows that do not count
    # change nothing, because n does not change. If all tokens have the same probability, the loss is log 49,152 = 10.8.


def draw(rng, size):
    """Draw targets of −100 at random positions. One target has the id 0, which counts like any other id.

    The vocabulary has more than 100 tokens, like every real one, so using −100 as a column index raises no error.
    """
    T, vocab = size.T, size.V + 100
    targets = rng.choice(np.arange(1, vocab), T, replace=False)
    silent = rng.permutation(T)[: 2 + size.number]
    targets[silent] = -100
    targets[rng.choice(np.flatnonzero(targets >= 0))] = 0
    return {"logits": 2 * rng.normal(size=(T, vocab)), "targets": targets}


MISTAKES = {
    "the sum is divided by T, but fewer targets count": lambda i: i.right["loss"] * np.mean(i.targets >= 0),
    "it is divided by T, but fewer targets count": lambda i: i.right["dlogits"] * np.mean(i.targets >= 0),
    "the rows that do not count also have a gradient, their softmax": lambda i: (
        i.right["dlogits"] + softmax(i.logits) * (i.targets < 0)[:, None] / np.sum(i.targets >= 0)
    ),
    "targets of −100 are used as column indices": ("targets >= 0", "targets >= -100"),
}
