"""4. Attention: from the context back to probs and v (4 points).

Now go back through attention, from its output to its inputs. In the forward pass, each head computes `O = probs v`, (T,
T) (T, D) -> (T, D). Then the outputs `O` of all heads are concatenated to give `context` (N, T, C), with head 0 in the
first `D` columns. You are given `dcontext` (N, T, C), and `probs` and `v` split into heads.

**First** split `dcontext` into heads, (N, H, T, D): this takes a reshape *and* a swap of two axes. (Why is a reshape
alone not enough, although it gives the correct shape?) **Then derive** the gradients from `O_i = Σ_j probs_ij v_j`: in
which terms do probs_ij and v_j occur?

**Predict:** where a key comes after the query, `probs` is 0. Is `dprobs` 0 there as well?
"""

import numpy as np

from .scores_backward import scores_backward

HINTS = {
    "dprobs": "prob_ij occurs only in context_i, as the factor of v_j. Each head has its own columns of dcontext.",
    "dv": "Which queries i use value j, and with what weight?",
}
FORMULA = "dO = dcontext in heads, (N, H, T, D)\ndprobs = dO vᵀ,  dv = probsᵀ dO, in each head"


def attend_backward(dcontext, probs, v):
    """dcontext (N, T, C), probs (N, H, T, T), v (N, H, T, D) -> dprobs (N, H, T, T), dv (N, H, T, D)."""
    N, H, T, D = v.shape
    by_head = dcontext.reshape(N, T, H, D)  # head 0 has the first D columns of each position
    dO = by_head.transpose(0, 2, 1, 3)  # (N, H, T, D)
    # O_i = Σ_j probs_ij v_j, in each head
    dprobs = dO @ v.swapaxes(-1, -2)  # dprob_ij = dO_i · v_j: (T, D) (D, T) -> (T, T); not 0 where probs is 0
    dv = probs.swapaxes(-1, -2) @ dO  # dv_j = Σ_i probs_ij dO_i: (T, T) (T, D) -> (T, D)
    return dprobs, dv


def draw(rng, size):
    weights = np.tril(np.exp(1.5 * rng.normal(size=(size.B, size.H, size.T, size.T))))
    probs = weights / weights.sum(axis=-1, keepdims=True)
    return {"probs": probs, **size.normals(rng, dcontext="B T C", v="B H T D")}


MISTAKES = {
    "each head has every H-th column of dcontext, not D adjacent columns": lambda i: i.solve(
        dcontext=i.dcontext[..., np.arange(i.size.C).reshape(i.size.D, i.size.H).T.ravel()]
    ),
    "this is dscores: it has gone back through the softmax": lambda i: scores_backward(i.right["dprobs"], i.probs),
}
