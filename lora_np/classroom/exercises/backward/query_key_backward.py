"""From the scores to q and k.

In each head, `score_ij = q_i · k_j / √D`. Everything is in heads here.

**Derive** the two gradients from this one line: in which scores is `q_i`, and in which is `k_j`? One is a sum along a
row of scores, the other down a column. **Check in your head:** with `T` = 1 there is one score, `q · k / √D`. What are
`dq` and `dk` then, and do your formulas say so?
"""

import numpy as np

POINTS = 4
OUTPUTS = ("dq", "dk")
HINTS = {
    "dq": "score_ij is q_i · k_j times a number. In which scores is q_i, and with which factor each?",
    "dk": "In which scores is k_j: along a row of scores, or down a column?",
}
FORMULA = "dq = dscores k / √D\ndk = dscoresᵀ q / √D, in each head"


def query_key_backward(dscores, q, k):
    """dscores (N, H, T, T), q (N, H, T, D), k (N, H, T, D) -> dq (N, H, T, D), dk (N, H, T, D)."""
    N, H, T, D = q.shape
    scale = 1 / np.sqrt(D)  # and not C: heads are scaled by their own size
    # score_ij = scale · q_i · k_j
    dq = scale * dscores @ k  # dq_i = scale Σ_j dscore_ij k_j, along row i: (T, T) (T, D) -> (T, D)
    dk = scale * dscores.swapaxes(-1, -2) @ q  # dk_j = scale Σ_i dscore_ij q_i, down column j: (T, T) (T, D) -> (T, D)
    # With T = 1: dq = dscore k / √D and dk = dscore q / √D. (And after a softmax over one key, dscore is 0.)
    return dq, dk


def draw(rng, size):
    """As after a causal softmax: dscores is 0 at keys after their query, and each of its rows adds up to 0."""
    dscores = np.tril(rng.normal(size=(size.B, size.H, size.T, size.T)))
    dscores -= np.tril(np.ones_like(dscores)) * dscores.sum(axis=-1, keepdims=True) / np.arange(1, size.T + 1)[:, None]
    q, k = rng.normal(size=(2, size.B, size.H, size.T, size.D))
    return {"dscores": dscores, "q": q, "k": k}


MISTAKES = {"dq": [("each query's own position is left out", lambda i: np.tril(i.dscores, -1) @ i.k / i.size.D**0.5)]}
