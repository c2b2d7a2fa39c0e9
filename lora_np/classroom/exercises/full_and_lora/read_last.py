"""Warm-up: what the head reads.

`h` (B, T, C) is what comes out of the last block, a row of C numbers for each position of each text. The texts differ
in length, and the shorter ones are filled up on the right with padding; `lengths` (B,) says how many real tokens each
has. The head reads one row of each text, that of its **last real token**. Give these rows, (B, C).

**On paper first:** three texts of 3, 1 and 4 tokens are in an array with T = 5. Which positions are read? **Predict**
the shape of `h[:, lengths - 1]`, and try: it is not (B, C), and why not? **And when it is right:** backward, `dpooled`
(B, C) arrives. What is `dh`, and how many of its numbers are not zero?
"""

import numpy as np

POINTS = 2
OUTPUTS = ("pooled",)
HINTS = {"pooled": "A text of one token: at which position is it? And a text of two? Each row has its own."}
FORMULA = "pooled[b] = h[b, lengths[b] − 1];  h[np.arange(B), lengths - 1]"


def read_last(h, lengths):
    """h (B, T, C), lengths (B,) of whole numbers 1 … T -> pooled (B, C)."""
    last = lengths - 1  # (B,): positions begin at 0, so for 3, 1 and 4 tokens they are 2, 0 and 3
    # One index for each text, paired with its position. `h[:, last]` would take all positions of every text, and be
    # (B, B, C).
    return h[np.arange(len(h)), last]  # (B, T, C) -> (B, C)
    # dh is zero except in these B rows, B · C numbers, which get dpooled: what was not read has no part in the loss.
    # (The tokens before have one all the same: through the attention of the last block, further down.)


def draw(rng, size):
    """Texts of different lengths, of which none fills the array: one step too far is then a number and no error."""
    lengths = rng.permutation(np.arange(2, size.V))[: size.N]
    return {"h": rng.normal(size=(size.N, size.V, size.n_in)), "lengths": lengths}


def mean_of_text(i):
    return np.array([text[:length].mean(axis=0) for text, length in zip(i.h, i.lengths)])


MISTAKES = {
    "pooled": [
        ("this is the first position, which has seen nothing but itself", lambda i: i.h[:, 0]),
        ("this is the mean over a text's real tokens", mean_of_text),
        ("all texts are read where the longest one ends", lambda i: i.h[:, i.lengths.max() - 1]),
    ]
}
