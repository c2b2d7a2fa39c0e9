"""3. Classifying with a language model (2 points).

A language model reads a text and a prompt such as "Sentiment:". `logits` holds the model's logits for the next token,
one row for each of `N` texts. There are `K` labels, and `first` holds the id of each label's first token. Compute each
label's probability if only these `K` tokens are allowed.

**On paper first:** two labels have the logits 2 and 2 + log 3, and another token has the logit 9. What are the two
labels' probabilities, and what are they if the other token's logit is 90 instead? **Predict:** what do these
probabilities not tell you about the model? What happens if two labels begin with the same token?
"""

import numpy as np

from ....ops.softmax import softmax

HINTS = {"p": "Which columns of logits belong to the labels? What must each row of p add up to?"}
FORMULA = "p = softmax(logits[:, first]), along each row"


def label_probabilities(logits, first):
    """logits (N, vocab), first (K,) of ids -> p (N, K), whose rows add up to 1."""
    chosen = logits[:, first]  # (N, K)
    exp = np.exp(chosen - chosen.max(axis=1, keepdims=True))  # at most 1, so nothing overflows
    p = exp / exp.sum(axis=1, keepdims=True)
    return p
    # On paper: the probabilities are 1/4 and 3/4, whatever the other token's logit is, because the denominator over all
    # tokens cancels. So these probabilities do not tell you whether the model would write a label at all. Labels that
    # begin with the same token always get the same p.


def draw(rng, size):
    """Draw logits so that in most rows, a non-label token is the most probable one. The labels' ids are unsorted."""
    logits = 2 * rng.normal(size=(size.N, size.V)) + rng.normal(size=(size.N, 1))
    return {"logits": logits, "first": rng.choice(size.V, (3, 5, 2)[size.number], replace=False)}


MISTAKES = {
    "the softmax is taken over all tokens, so the rows do not add up to 1": lambda i: softmax(i.logits)[:, i.first],
    "the first K tokens of the vocabulary are used as the labels": lambda i: softmax(i.logits[:, : len(i.first)]),
}
