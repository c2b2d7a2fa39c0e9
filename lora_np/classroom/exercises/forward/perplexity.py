"""7. Perplexity, safely (3 points).

This is the first of two tests of an entire model. From the logits of a batch and the tokens that actually follow,
compute the perplexity: exp of the mean surprise over all N · T positions. (The surprise at a token of probability p is
−log p, in nats.) **Predict** the perplexity for logits that are all equal. What happens to it, for any logits, if 1000
is added to all of them?

Now the hard part: **logits of 1000 do occur**, and e¹⁰⁰⁰ is too large for float64. Moreover, the next token may have
p = e⁻⁷⁶⁰: in float64 that is 0, and its logarithm is −∞, although the surprise, 760, is an ordinary number. **Derive:**
write `−log p_t` with p_t = exp(x_t) / Σ_j exp(x_j) as a difference of two terms. What can you subtract from all logits
of a row so that no exp overflows and not all of them underflow? Which of the two terms contains no exp?
"""

import numpy as np

HINTS = {"perplexity": "Compute the surprise, then its mean, then exp. Which value may overflow or underflow?"}
FORMULA = "log p_t = x_t − c − log Σ_j exp(x_j − c), c the row's largest logit;  perplexity = exp(mean of −log p_t)"


def perplexity(logits, targets):
    """logits (N, T, vocab), targets (N, T) of ints 0 … vocab−1 -> perplexity, a float."""
    # −log p_t = log Σ_j exp(x_j) − x_t, and this does not change if x is replaced by x − c, for any c.
    x = logits - logits.max(axis=-1, keepdims=True)  # (N, T, vocab): at most 0, and 0 at each row's largest logit
    x_t = np.take_along_axis(x, targets[..., None], axis=-1)[..., 0]  # (N, T)
    surprise = np.log(np.exp(x).sum(axis=-1)) - x_t  # (N, T): the sum is at least 1, and the term x_t needs no exp
    return np.exp(surprise.mean())
    # If all logits are equal, it is vocab, the number of equal choices. Adding 1000 changes nothing: it cancels in p.


def draw(rng, size):
    """Draw logits. In the second draw, exp overflows in some rows; if the largest logit of the batch is subtracted
    first, exp underflows in entire rows. One target's probability is 0 in float64, but its surprise is an ordinary
    number."""
    logits = 1.5 * rng.normal(size=(size.B, size.T, size.V))
    targets = rng.integers(0, size.V, (size.B, size.T))
    if size.number == 1:
        logits += rng.permutation(np.linspace(-1000.0, 1000.0, size.B * size.T)).reshape(size.B, size.T, 1)
        logits[1, 2, targets[1, 2]] -= 760.0
    return {"logits": logits, "targets": targets}


MISTAKES = {
    "probabilities are clipped at 1e-12": ("(surprise.mean", "(np.minimum(surprise, -np.log(1e-12)).mean"),
    "the probabilities are averaged, not the surprises": ("np.exp(surprise.mean())", "1 / np.exp(-surprise).mean()"),
    "the perplexities of the texts are averaged": ("surprise.mean())", "surprise.mean(axis=1)).mean()"),
}
