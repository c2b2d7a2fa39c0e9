"""Warm-up: what the head reads.

`h` (N, T, C) is the output of the last block, a row of C numbers for each position of each text. The texts differ in
length, and the shorter ones are padded on the right; `lengths` (N,) says how many real tokens each has. The head reads
one row of each text, that of its **last real token**. Give these rows, (N, C).

**On paper first:** three texts of 3, 1 and 4 tokens are in an array with T = 5. Which positions are read? **Predict**
the shape of `h[:, lengths - 1]`, and try: it is not (N, C), and why not? **And when it is right:** backward, `dpooled`
(N, C) arrives. What is `dh`, and how many of its numbers are not zero?
"""

import numpy as np

POINTS = 2
OUTPUTS = ("pooled",)
HINTS = {"pooled": "A text of one token: at which position is it? And a text of two? Each row has its own."}
FORMULA = "pooled[n] = h[n, lengths[n] − 1];  h[np.arange(N), lengths - 1]"


def read_last(h, lengths):
    """h (N, T, C), lengths (N,) of whole numbers 1 … T -> pooled (N, C)."""
    last = lengths - 1  # (N,): positions begin at 0, so for 3, 1 and 4 tokens they are 2, 0 and 3
    # One index for each text. `h[:, last]` would take all of these positions of every text, (N, N, C).
    return h[np.arange(len(h)), last]  # (N, T, C) -> (N, C)
    # dh is zero except in these N rows, N · C numbers, which get dpooled: what was not read has no part in the loss.
    # (The earlier tokens still have one, further down: through the attention of the last block.)


def draw(rng, size):
    """Texts of different lengths, of which none fills the array: one step too far is then a number and no error."""
    lengths = rng.permutation(np.arange(2, size.V))[: size.N]
    return {"h": rng.normal(size=(size.N, size.V, size.n_in)), "lengths": lengths}


def mean_of_text(i):
    return np.array([text[:length].mean(axis=0) for text, length in zip(i.h, i.lengths)])


MISTAKES = {
    "pooled": [
        ("this is the first position, which has seen only itself", lambda i: i.h[:, 0]),
        ("this is the mean over a text's real tokens", mean_of_text),
        ("all texts are read where the longest one ends", lambda i: i.h[:, i.lengths.max() - 1]),
    ]
}
