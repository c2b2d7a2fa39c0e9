"""6. A repetition penalty (3 points).

Small models tend to repeat themselves. A repetition penalty (Keskar et al. 2019) makes each token that is already in
the text less probable: a positive logit is divided by the penalty, and a negative one is multiplied by it. `seen` holds
the token ids of the text so far. Some ids occur more than once, but each token is penalised only once. Compute the new
logits.

**On paper first:** the penalty is 2, and three seen tokens have the logits 4, 0 and −4. What are the new logits? What
would −4 become if you divided it? **Predict:** if 10 is added to all logits, their softmax does not change. Does the
softmax of the penalised logits change?
"""

import numpy as np

HINTS = {"penalised": "What do the logits 4 and −4 become? What if the token was seen three times?"}
FORMULA = "for each distinct id in seen: logit / penalty if logit > 0, and logit · penalty otherwise"


def repetition_penalty(logits, seen, penalty):
    """logits (vocab,), seen (T,) of ids, some of them repeated, penalty above 1 -> penalised (vocab,)."""
    of_seen = logits[seen]  # (T,): a token that was seen three times occurs three times, with the same logit
    smaller = np.where(of_seen > 0, of_seen / penalty, of_seen * penalty)  # (T,)
    penalised = logits.copy()  # (vocab,)
    penalised[seen] = smaller  # a repeated token gets the same value each time
    return penalised
    # The new logits are 2, 0 and −8. Dividing −4 would give −2 and make the token more probable. With 10 added, 14, 10
    # and 6 become 7, 5 and 3. They decrease by 7, 5 and 3 instead of by 2, 0 and 4, so the softmax changes.


def draw(rng, size):
    """Draw three seen tokens with positive and three with negative logits. Two of these logits are near 0, and each
    token is seen one to three times."""
    logits, some = 2 * rng.normal(size=size.V), rng.choice(size.V, 6, replace=False)
    logits[some] = rng.uniform(0.2, 0.9, 6) * [-1, -3, -5, 5, 3, 1]
    seen = rng.permutation(np.repeat(some, [1, 2, 3, 3, 2, 1]))
    return {"logits": logits, "seen": seen, "penalty": float(rng.uniform(1.2, 1.8))}


def every_time(i):
    penalised = i.logits.copy()
    for token in i.seen:
        penalised[token] *= 1 / i.penalty if penalised[token] > 0 else i.penalty
    return penalised


MISTAKES = {
    "a token that was seen three times is penalised three times, not only once": every_time,
    "all tokens are penalised, seen or not": lambda i: i.solve(seen=np.arange(len(i.logits))),
    "negative logits are divided as well, so their tokens become more probable": ("* penalty", "/ penalty"),
}
