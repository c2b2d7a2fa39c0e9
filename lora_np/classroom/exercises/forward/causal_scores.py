"""4. Scores (3 points).

`q` and `k` are now split into heads. Return the attention scores, (N, H, T, T). Row `i` shows how well each key matches
query `i`. The scores are scaled so that their size does not depend on `D`, and a score is −∞ wherever the key comes
**after** the query. (The check grades the values and the mask separately.)

**Predict:** how many of the T × T scores of a head are −∞, for T = 11? Which row has only one finite score? Why must a
masked score be −∞, and not 0 or a large negative number? Before you write the mask, beware of a trap in NumPy: what is
`0 * np.inf`?
"""

import numpy as np

from ....ops.softmax import softmax

OUTPUTS = ("scores",)
HINTS = {
    "numbers": "Row i holds the dot products of q_i with the keys. How large is a sum of D random terms of size 1?",
    "mask": "In row i, which columns j come after i? For which number is exp exactly 0?",
}
FORMULA = "scores_ij = q_i · k_j / √D for j ≤ i, and −∞ for j > i, in each head"


def causal_scores(q, k):
    """q (N, H, T, D), k (N, H, T, D) -> scores (N, H, T, T)."""
    T, D = q.shape[-2:]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(D)  # (T, D) (D, T) -> (T, T) in each head; rows: queries, columns: keys
    may_look = np.tril(np.ones((T, T), dtype=bool))  # True where j ≤ i, including the query's own position
    return np.where(may_look, scores, -np.inf)
    # 11 · 10 / 2 = 55 of 121 are −∞, and row 0 has one finite score, for its own key. exp(−∞) is exactly 0, and so is
    # the weight; exp(0) is 1, more than many visible keys get. 0 * np.inf is nan, so you cannot mask by multiplying.


def draw(rng, size):
    return size.normals(rng, q="B H T D", k="B H T D")


def compared(i, outputs):
    """Split the scores into the visible values and the mask, so that a mistake in one does not affect the other."""
    scores, right = outputs["scores"], causal_scores(i.q, i.k)
    if scores.shape != right.shape:
        return {"numbers": scores, "mask": scores}
    seen, hidden = np.isfinite(right), np.isneginf(scores)
    shown = seen & ~hidden
    numbers = np.where(shown, scores, np.where(seen & shown.any(), right, 0.0))  # hidden by mistake: a mask error
    kinds = np.select([np.isnan(scores), np.isinf(scores), scores == 0, scores < -20], [9.0, scores, 0.0, -20.0], 1.0)
    return {"numbers": numbers, "mask": np.where(seen, 7.0 * hidden, kinds)}


MISTAKES = {
    "these are the softmax of the scores": lambda i: softmax(causal_scores(i.q, i.k)),
    "hidden scores are 0, but exp(0) is not 0": lambda i: np.maximum(i.right["mask"], 0),
    "hidden scores are negative, not −∞: only exp(−∞) is exactly 0": lambda i: np.maximum(i.right["mask"], -20),
}
