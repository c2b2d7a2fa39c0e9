"""2. The nucleus (3 points).

Top-p sampling selects tokens by their total probability, not by their number: in each row, keep the smallest set of
most likely tokens whose total probability is at least `p`. Set the other probabilities to 0, and divide those that you
keep by their sum; every token keeps its column. (Reaching exactly `p` is enough.)

**Predict** for the probabilities 1/2, 1/4, 1/8, 1/16, 1/16: how many tokens are kept for p = 0.75, for 0.76, and for
0.01? Can a row lose all its tokens? Does it matter whether the temperature is applied before or after this cut?

Sorting a row is easy. The usual stumbling block is mapping positions in the sorted row back to tokens. Try your code on
a row of three tokens before you run the check.
"""

import numpy as np

HINTS = {"kept": "Sort a row, most likely token first, and add up. Which cumulative sum is the first to reach p?"}
FORMULA = "keep a token if the more likely ones add up to less than p;  kept = what is left, divided by its sum"


def nucleus(probs, p):
    """probs (N, vocab), whose rows sum to 1; p a float above 0 and below 1 -> kept (N, vocab)."""
    order = np.argsort(-probs, axis=-1)  # (N, vocab): token ids, most likely first
    falling = np.take_along_axis(probs, order, axis=-1)  # (N, vocab)
    before = np.cumsum(falling, axis=-1) - falling  # (N, vocab): total of the more likely tokens; 0 for the first
    inside = before < p  # (N, vocab): for each position in the sorted row
    stays = np.zeros(probs.shape, dtype=bool)
    np.put_along_axis(stays, order, inside, axis=-1)  # stays[row, order[row, place]] = …: back to the tokens
    kept = np.where(stays, probs, 0.0)
    share = kept.sum(axis=-1, keepdims=True)  # (N, 1): at least p
    return kept / share
    # The nucleus has 2, 3 and 1 tokens. It is never empty: no token is more likely than the first, so the total before
    # the first is 0, which is less than p. Here the order matters: a lower temperature makes the most likely tokens
    # more likely, so fewer of them are needed to reach p.


def draw(rng, size):
    """Draw probabilities. In the second draw, one row has a probability larger than p. In the last draw, all
    probabilities are powers of ½, so their sums have no rounding errors, and every row reaches p exactly."""
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
    """Drop each nucleus's least likely token, so that its total falls below p, but keep at least one token."""
    least = np.where(i.right["kept"] > 0, i.probs, np.inf).min(axis=-1, keepdims=True)
    return of_those(i, (i.probs > least) | (i.probs == i.probs.max(axis=-1, keepdims=True)))


MISTAKES = {
    "positions in the sorted row are not mapped back to tokens: the sort is applied once more": way_there,
    "the token that makes the sum exceed p is missing": lambda i: (
        i.right["kept"] if i.size.number == 2 else without_last(i)
    ),
    "the token that makes the sum reach or exceed p is missing": without_last,
}
