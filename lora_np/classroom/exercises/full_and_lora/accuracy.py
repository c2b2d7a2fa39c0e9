"""2. Accuracy (1 point).

A row of `logits` (N, K) has one logit for each of K classes; the prediction is the class with the largest logit.
`labels` (N,) holds the correct classes. Return the **accuracy**, the fraction of correct predictions, from 0 to 1.

**Predict first.** Multiply all logits by 10: what happens to the accuracy and to the loss? A classifier predicts
"negative" for everything: what is its accuracy if 60 % of the snippets are negative? (What should a report state next
to each accuracy?)
"""

import numpy as np

HINTS = {"accuracy": "Which class does a row predict, for logits of any size? In how many rows is it the label?"}
FORMULA = "accuracy = the mean over the rows of (1 where argmax_k logits[n, k] = labels[n], else 0)"


def accuracy(logits, labels):
    """logits (N, K), labels (N,) of ints 0 … K−1 -> accuracy, a float from 0 to 1."""
    chosen = logits.argmax(axis=1)  # (N, K) -> (N,)
    return np.mean(chosen == labels)
    # Logits ten times as large give the same predictions, and so the same accuracy. The loss changes: the model is now
    # sure of all its predictions, and the wrong ones cost more than before. Predicting "negative" for everything has an
    # accuracy of 60 %. So a report should state the share of the most frequent class next to every accuracy.


def draw(rng, size):
    """Draw rows, about half of which are classified correctly; in some of the others, the label has the smallest logit.
    In some rows, even the largest logit is below 0. The rows differ in scale."""
    N, K = 7 * size.N, size.V
    labels = rng.integers(0, K - 2, N)
    lean = rng.choice([2.2, -4.0], N, p=[0.8, 0.2])  # added to the label's logit
    logits = rng.normal(-1.5, 1.0, (N, K)) + lean[:, None] * np.eye(K)[labels]
    return {"logits": logits * rng.uniform(0.5, 2.0, (N, 1)), "labels": labels}


def share(i):
    p = np.exp(i.logits)
    return (p / p.sum(axis=1, keepdims=True))[np.arange(len(p)), i.labels]


MISTAKES = {
    "a row counts only if the label's probability is above ½": lambda i: np.mean(share(i) > 0.5),
    "this is the label's probability, averaged over the rows": lambda i: np.mean(share(i)),
    "a row counts if the label's logit is above 0": ("chosen == labels", "logits[np.arange(len(labels)), labels] > 0"),
}
