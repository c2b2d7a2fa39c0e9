"""Scores.

`q` and `k` are in heads now. Give the scores of attention, (N, H, T, T). Row `i` says how well each key fits query `i`,
divided so that the size does not depend on `D`; and it is −∞ wherever a key is **after** its query. (The check looks at
the numbers and at the mask separately.)

**Predict:** how many of the T × T scores of a head are −∞, for T = 11? Which row has only one number that is not? Why
−∞, and not 0 or a very negative number? And a trap in NumPy, to try before you write the mask: what is `0 * np.inf`?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("scores",)
HINTS = {
    "numbers": "Row i holds the products of q_i with the keys. How large is a sum of D terms of size 1?",
    "mask": "In row i, which columns j come after i? And of which number is exp exactly 0?",
}
FORMULA = "scores_ij = q_i · k_j / √D for j ≤ i, and −∞ for j > i, in each head"


def causal_scores(q, k):
    """q (N, H, T, D), k (N, H, T, D) -> scores (N, H, T, T)."""
    T, D = q.shape[-2:]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(D)  # (T, D) (D, T) -> (T, T) in each head; rows: queries, columns: keys
    may_look = np.tril(np.ones((T, T), dtype=bool))  # True where j ≤ i, itself included
    return np.where(may_look, scores, -np.inf)
    # 11 · 10 / 2 = 55 of 121 are −∞, and row 0 has one number, its own. exp(−∞) is exactly 0, and so is the share;
    # exp(0) is 1, more than many visible keys have. 0 * np.inf is nan, so a product makes no mask.


def draw(rng, size):
    q, k = rng.normal(size=(2, size.B, size.H, size.T, size.D))
    return {"q": q, "k": k}


def compared(i, outputs):
    """The scores of keys that a query may look at, and the mask: a mistake in one costs the other nothing."""
    scores, right = outputs["scores"], causal_scores(i.q, i.k)
    if scores.shape != right.shape:
        return {"numbers": scores, "mask": scores}
    seen, hidden = np.isfinite(right), np.isneginf(scores)
    shown = seen & ~hidden
    numbers = np.where(shown, scores, np.where(seen & shown.any(), right, 0.0))  # what is hidden too much is the mask's
    kinds = np.select([np.isnan(scores), np.isinf(scores), scores == 0, scores < -20], [9.0, scores, 0.0, -20.0], 1.0)
    return {"numbers": numbers, "mask": np.where(seen, 7.0 * hidden, kinds)}


def shares(i):
    weights = np.exp(causal_scores(i.q, i.k))
    return weights / weights.sum(axis=-1, keepdims=True)


MISTAKES = {
    "numbers": [("they have gone through the softmax already", shares)],
    "mask": [
        ("it is 0, and exp(0) is not 0", lambda i: np.maximum(i.right["mask"], 0)),
        ("it is a negative number, not −∞: only exp(−∞) is exactly 0", lambda i: np.maximum(i.right["mask"], -20)),
    ],
}
