"""5. Through the softmax (2 points).

`probs` is the softmax of the scores over the keys; where a key comes after the query, the score is −∞. The formula is
that of `softmax_backward` in exercise set 03, with two more axes.

**Predict first:** what must a row of `dscores` add up to? What is `dscores` where a key comes after the query? Does the
mask need special treatment in the backward pass, and what happens to entries of `dprobs` that are not zero at masked
positions?
"""

import numpy as np

HINTS = {"dscores": "It is set 03's softmax with two more axes. Along which axis do the probabilities add up to 1?"}
FORMULA = "dscores_ij = probs_ij (dprobs_ij − Σ_k dprobs_ik probs_ik)"


def scores_backward(dprobs, probs):
    """dprobs (N, H, T, T), probs (N, H, T, T), a row for each query -> dscores (N, H, T, T)."""
    average = np.sum(dprobs * probs, axis=-1, keepdims=True)  # (N, H, T, 1): for each query, over its keys
    # Where probs is 0, so is the product, and the sum ignores dprobs there: the mask needs no special treatment.
    return probs * (dprobs - average)  # (N, H, T, T)


def draw(rng, size):
    weights = np.tril(np.exp(1.5 * rng.normal(size=(size.B, size.H, size.T, size.T))))
    return {"probs": weights / weights.sum(axis=-1, keepdims=True), "dprobs": rng.normal(size=weights.shape)}


MISTAKES = {
    "each probability is differentiated for its own score only": ("(dprobs - average)", "dprobs * (1 - probs)"),
}
