"""Attention: from the context to probs and v.

Now back through attention, from its end to its beginning. Forward, each head computes `O = probs v`, (T, T) (T, D) ->
(T, D). Then the heads' `O` are put side by side, head 0 in the first `D` columns: that is `context` (N, T, C). You are
given `dcontext` (N, T, C), and `probs` and `v` in heads.

**First** cut `dcontext` into heads, (N, H, T, D): it takes a reshape *and* an exchange of two axes. (Why is a reshape
not enough, although the shape is right?) **Then derive** from `O_i = Σ_j probs_ij v_j`: where are prob_ij and v_j?

**Predict:** `probs` is 0 where a key is after its query. Is `dprobs` 0 there as well?
"""

import numpy as np

from ...exercise import normals
from .scores_backward import scores_backward

POINTS = 4
OUTPUTS = ("dprobs", "dv")
HINTS = {
    "dprobs": "prob_ij is only in context_i, as the factor of v_j. Each head has its own columns of dcontext.",
    "dv": "Which queries i used value j, and how large was the share of each?",
}
FORMULA = "dO = dcontext in heads, (N, H, T, D)\ndprobs = dO vᵀ,  dv = probsᵀ dO, in each head"


def attend_backward(dcontext, probs, v):
    """dcontext (N, T, C), probs (N, H, T, T), v (N, H, T, D) -> dprobs (N, H, T, T), dv (N, H, T, D)."""
    N, H, T, D = v.shape
    cut = dcontext.reshape(N, T, H, D)  # head 0 has the first D columns of each position
    dO = cut.transpose(0, 2, 1, 3)  # (N, H, T, D)
    # O_i = Σ_j probs_ij v_j, in each head
    dprobs = dO @ v.swapaxes(-1, -2)  # dprob_ij = dO_i · v_j: (T, D) (D, T) -> (T, T); not 0 where probs is
    dv = probs.swapaxes(-1, -2) @ dO  # dv_j = Σ_i probs_ij dO_i: (T, T) (T, D) -> (T, D)
    return dprobs, dv


def draw(rng, size):
    weights = np.tril(np.exp(1.5 * rng.normal(size=(size.B, size.H, size.T, size.T))))
    probs = weights / weights.sum(axis=-1, keepdims=True)
    return {"probs": probs, **normals(rng, size, dcontext="B T C", v="B H T D")}


def strided(i):
    N, H, T, D = i.v.shape
    return i.dcontext.reshape(N, T, D, H).transpose(0, 3, 1, 2)


STRIDED = "the heads have every H-th column of dcontext, not columns side by side"
MISTAKES = {
    "dprobs": [
        (STRIDED, lambda i: strided(i) @ i.v.swapaxes(-1, -2)),
        ("it has gone back through the softmax already", lambda i: scores_backward(i.right["dprobs"], i.probs)),
    ],
    "dv": [(STRIDED, lambda i: i.probs.swapaxes(-1, -2) @ strided(i))],
}
