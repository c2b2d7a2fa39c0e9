"""The nucleus.

Top-p is given a probability, not a number of tokens: in each row, keep the fewest tokens, the most likely first, that
have a probability of at least `p` together. The others become 0, what is left is divided by its sum, and every token
stays in its place. (To reach `p` exactly is enough.)

**Predict** for the probabilities 1/2, 1/4, 1/8, 1/16, 1/16: how many tokens are left for p = 0.75, for 0.76, and for
0.01? Can it happen that none is left? And does it matter whether the temperature acts before this cut or after it?

Sorting a row is easy. Most people stumble on the way back, from places in the sorted row to tokens: try yours on a row
of three before you run the check.
"""

import numpy as np

POINTS = 3
OUTPUTS = ("kept",)
HINTS = {"kept": "Sort a row, the likeliest first, and add up. Which is the first sum that is p or more?"}
FORMULA = "a token stays if those that are likelier add up to less than p;  kept = what stays, divided by its sum"


def nucleus(probs, p):
    """probs (N, vocab), each row adding up to 1; p a number above 0 and below 1 -> kept (N, vocab)."""
    order = np.argsort(-probs, axis=-1)  # (N, vocab): token numbers, the likeliest first
    falling = np.take_along_axis(probs, order, axis=-1)  # (N, vocab)
    before = np.cumsum(falling, axis=-1) - falling  # (N, vocab): what the likelier ones have together; 0 for the first
    inside = before < p  # (N, vocab): of each place in the sorted row
    stays = np.zeros(probs.shape, dtype=bool)
    np.put_along_axis(stays, order, inside, axis=-1)  # stays[row, order[row, place]] = …: back to the tokens
    kept = np.where(stays, probs, 0.0)
    share = kept.sum(axis=-1, keepdims=True)  # (N, 1): p, or somewhat more
    return kept / share
    # 2, 3 and 1. Never none: nothing comes before the likeliest token, and 0 is less than p. The order matters here: a
    # lower temperature gives the likeliest tokens more, so fewer are enough for p.


def draw(rng, size):
    """In the second draw there is a row whose likeliest token is above p by itself; in the last one all rows reach p
    exactly, whichever way one adds up: they are made of powers of ½."""
    odds = np.exp(1.2 * rng.normal(size=(size.B, size.V)))
    if size.number == 1:
        odds[1, 0] += 20 * odds[1].sum()
    if size.number == 2:
        odds[:] = 0.5 ** np.minimum(np.arange(1, size.V + 1), size.V - 1)
    probs = rng.permuted(odds / odds.sum(axis=-1, keepdims=True), axis=1)
    return {"probs": probs, "p": [0.7, 0.55, 0.875][size.number]}


def of_those(i, stay):
    kept = np.where(stay, i.probs, 0.0)
    return kept / kept.sum(axis=-1, keepdims=True)


def way_there(i):
    order = np.argsort(-i.probs, axis=-1)
    inside = np.take_along_axis(i.right["kept"] > 0, order, axis=-1)
    return of_those(i, np.take_along_axis(inside, order, axis=-1))


def without_last(i):
    """The tokens that add up to less than p; the likeliest one always stays."""
    least = np.where(i.right["kept"] > 0, i.probs, np.inf).min(axis=-1, keepdims=True)
    return of_those(i, (i.probs > least) | (i.probs == i.probs.max(axis=-1, keepdims=True)))


MISTAKES = {
    "kept": [
        ("the way back from the sorted row is wrong: it sorts once more", way_there),
        (
            "the token that carries the sum beyond p is missing",
            lambda i: i.right["kept"] if i.size.number == 2 else without_last(i),
        ),
        ("the token that carries the sum to p or beyond it is missing, even where p is reached exactly", without_last),
    ]
}
