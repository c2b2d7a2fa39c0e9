"""Not again.

Small models like to repeat themselves. A repetition penalty (Keskar et al. 2019) makes each token that is already in
the text less probable: its logit is divided by the penalty if it is positive, and multiplied by it if it is negative.
`seen` has the ids of the text so far. Some of them are there more than once, but each token is penalised once. Give the
new logits.

**On paper first:** the penalty is 2, and three tokens that have been seen have the logits 4, 0 and −4. What becomes of
them? What would a division make of −4? **Predict:** if 10 is added to all logits, their softmax stays as it is. Is that
still so with the penalty?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("penalised",)
HINTS = {"penalised": "What must become of a seen logit of 4, and of one of −4? And if its token was seen three times?"}
FORMULA = "for each id in seen, once: logit / penalty if logit > 0, and logit · penalty otherwise"


def repetition_penalty(logits, seen, penalty):
    """logits (vocab,), seen (T,) of ids, some of them several times, penalty above 1 -> penalised (vocab,)."""
    of_seen = logits[seen]  # (T,): a token that was seen three times is here three times, with the same logit
    smaller = np.where(of_seen > 0, of_seen / penalty, of_seen * penalty)  # (T,)
    penalised = logits.copy()  # (vocab,)
    penalised[seen] = smaller  # the same number three times
    return penalised
    # 2, 0 and −8. A division would make −2 of −4, and the token more probable. With 10 more, 14, 10 and 6 become
    # 7, 5 and 3. They lose 7, 5 and 3, and before they lost 2, 0 and 4: the softmax is another.


def draw(rng, size):
    """Three tokens with positive and three with negative logits are seen, up to three times; two have one near 0."""
    logits, some = 2 * rng.normal(size=size.V), rng.choice(size.V, 6, replace=False)
    logits[some] = rng.uniform(0.2, 0.9, 6) * [-1, -3, -5, 5, 3, 1]
    seen = rng.permutation(np.repeat(some, [1, 2, 3, 3, 2, 1]))
    return {"logits": logits, "seen": seen, "penalty": float(rng.uniform(1.2, 1.8))}


def every_time(i):
    penalised = i.logits.copy()
    for token in i.seen:
        penalised[token] *= 1 / i.penalty if penalised[token] > 0 else i.penalty
    return penalised


def of_all(i):
    return np.where(i.logits > 0, i.logits / i.penalty, i.logits * i.penalty)


def divided(i):
    seen = np.isin(np.arange(len(i.logits)), i.seen)
    return np.where(seen, i.logits / i.penalty, i.logits)


MISTAKES = {
    "penalised": [
        ("a token that was seen three times is penalised three times", every_time),
        ("all tokens are penalised, seen or not", of_all),
        ("negative logits are divided, too, and their tokens become more probable", divided),
    ]
}
