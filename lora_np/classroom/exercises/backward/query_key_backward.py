"""6. From the scores back to q and k (4 points).

In each head, `score_ij = q_i · k_j / √D`. All arrays are already split into heads.

**Derive** the two gradients from this one line: in which scores does `q_i` occur, and in which does `k_j`? One gradient
is a sum along a row of `dscores`, the other a sum down a column. **Check in your head:** with `T` = 1 there is one
score, `q · k / √D`. What are `dq` and `dk` then, and do your formulas agree?
"""

import numpy as np

HINTS = {
    "dq": "score_ij is q_i · k_j times a constant. In which scores does q_i occur, and with what factor in each?",
    "dk": "In which scores does k_j occur: along a row, or down a column?",
}
FORMULA = "dq = dscores k / √D\ndk = dscoresᵀ q / √D, in each head"


def query_key_backward(dscores, q, k):
    """dscores (N, H, T, T), q (N, H, T, D), k (N, H, T, D) -> dq (N, H, T, D), dk (N, H, T, D)."""
    N, H, T, D = q.shape
    scale = 1 / np.sqrt(D)  # √D, not √C: scores are scaled by the head's size
    # score_ij = scale · q_i · k_j
    dq = scale * dscores @ k  # dq_i = scale Σ_j dscore_ij k_j, along row i: (T, T) (T, D) -> (T, D)
    dk = scale * dscores.swapaxes(-1, -2) @ q  # dk_j = scale Σ_i dscore_ij q_i, down column j: (T, T) (T, D) -> (T, D)
    # With T = 1: dq = dscore k / √D and dk = dscore q / √D. (After a softmax over one key, dscore is 0.)
    return dq, dk


def draw(rng, size):
    """Draw dscores like those of a causal softmax: 0 where a key comes after the query, with rows that add up to 0."""
    dscores = np.tril(rng.normal(size=(size.B, size.H, size.T, size.T)))
    dscores -= np.tril(np.ones_like(dscores)) * dscores.sum(axis=-1, keepdims=True) / np.arange(1, size.T + 1)[:, None]
    return {"dscores": dscores, **size.normals(rng, q="B H T D", k="B H T D")}


MISTAKES = {
    "each query's own position is missing": lambda i: np.tril(i.dscores, -1) @ i.k / i.size.D**0.5,
}
