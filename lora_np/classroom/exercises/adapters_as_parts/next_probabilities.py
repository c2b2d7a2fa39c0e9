"""1. Warm-up: temperature and top-k (3 points).

Each row of `logits` belongs to one text. For each text, return the probability distribution from which its next token
is drawn. Divide the logits by the temperature, and keep only the `top_k` most likely tokens of each row. The
probabilities of all other tokens must be exactly 0, and every row must sum to 1. The logits of different rows may be at
very different levels (one around 1000, another around −1000); set 05 showed how to handle this.

**Predict,** for three tokens with odds 9 : 3 : 1 at temperature 1: what are the odds at ½ and at 2, and what are the
probabilities at ½ with `top_k` = 2? Does it matter whether you select the top k before or after you divide by the
temperature? What effect does the temperature have if `top_k` = 1?
"""

import numpy as np

HINTS = {"probs": "The odds of two tokens are exp of a difference of logits. What may you subtract from a whole row?"}
FORMULA = "z = logits / τ, and −∞ where that is below the row's k-th largest;  probs = softmax(z), along each row"


def next_probabilities(logits, temperature, top_k):
    """logits (N, vocab), temperature above 0, top_k an int from 1 to vocab -> probs (N, vocab)."""
    z = logits / temperature  # (N, vocab)
    limit = np.sort(z, axis=-1)[:, -top_k, None]  # (N, 1): the k-th largest of each row
    z = np.where(z >= limit, z, -np.inf)  # not 0: exp(0) is 1, and exp(−∞) is 0
    exp = np.exp(z - z.max(axis=-1, keepdims=True))  # at most 1, whatever the row's level
    return exp / exp.sum(axis=-1, keepdims=True)
    # The odds are 81 : 9 : 1 at ½ and 3 : 1.7 : 1 at 2. With top_k = 2 at ½, the probabilities are 0.9 and 0.1.
    # Selecting before or after makes no difference, because dividing by τ preserves the order. With top_k = 1, the
    # temperature changes nothing: the most likely token has probability 1.


def draw(rng, size):
    """Draw rows at different levels. From the second draw on, the levels are so far apart that exp overflows in some
    rows, or underflows to 0 in entire rows, unless each row's own maximum is subtracted."""
    temperature, top_k = [(1.6, 6), (0.5, 3), (2.2, 9)][size.number]
    levels = temperature * (750 if size.number else 2) * rng.permutation(np.linspace(-1, 1, size.B))
    logits = 1.5 * rng.normal(size=(size.B, size.V)) + levels[:, None]
    return {"logits": logits, "temperature": temperature, "top_k": top_k}


def of_those(i, stay):
    return i.solve(logits=np.where(stay, i.logits, -np.inf))


MISTAKES = {
    "the rows do not add up to 1: the top k are selected after the softmax, but not divided by their sum": lambda i: (
        i.solve(top_k=i.size.V) * (i.right["probs"] > 0)
    ),
    "the k least likely tokens are kept": lambda i: of_those(i, i.logits <= np.sort(i.logits)[:, [i.top_k - 1]]),
    "the first k tokens of the vocabulary are kept": lambda i: of_those(i, np.arange(i.size.V) < i.top_k),
}
