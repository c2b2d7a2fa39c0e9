"""1. Warm-up: the head's input (2 points).

`h` (N, T, C) is the output of the last block, a row of C entries for each position of each text. The texts differ in
length, and the shorter ones are padded on the right; `lengths` (N,) holds the number of non-padding tokens of each
text. The head reads one row of each text, that of the text's **last non-padding token**. Return these rows, (N, C).

**On paper first:** three texts of 3, 1 and 4 tokens are in an array with T = 5. Which positions are read? **Predict**
the shape of `h[:, lengths - 1]`, and try it: why is it not (N, C)? **When your code passes:** the backward pass
receives `dpooled` (N, C). What is `dh`, and how many of its entries are not zero?
"""

import numpy as np

HINTS = {"pooled": "Where is the last token of a text of one token? Of two? Each text has its own last position."}
FORMULA = "pooled[n] = h[n, lengths[n] − 1];  h[np.arange(N), lengths - 1]"


def read_last(h, lengths):
    """h (N, T, C), lengths (N,) of ints 1 … T -> pooled (N, C)."""
    last = lengths - 1  # (N,): positions begin at 0, so for 3, 1 and 4 tokens they are 2, 0 and 3
    # There is one index per text. `h[:, last]` would take all of these positions from every text, (N, N, C).
    return h[np.arange(len(h)), last]  # (N, T, C) -> (N, C)
    # dh is zero except in these N rows (N · C entries), which get dpooled: rows that are not read do not affect the
    # loss here. (Earlier tokens still do, through the attention of the last block.)


def draw(rng, size):
    """Draw texts of different lengths, none of which fills the array, so that an off-by-one index raises no error."""
    lengths = rng.permutation(np.arange(2, size.V))[: size.N]
    return {"h": rng.normal(size=(size.N, size.V, size.n_in)), "lengths": lengths}


MISTAKES = {
    "this is the first position, which has seen only itself": lambda i: i.h[:, 0],
    "this is the mean over a text's non-padding tokens": lambda i: np.array(
        [text[:length].mean(axis=0) for text, length in zip(i.h, i.lengths)]
    ),
    "all texts are read at the last position of the longest one": lambda i: i.h[:, i.lengths.max() - 1],
    "positions are counted from the end of the array, which is padding": ("lengths - 1", "-lengths"),
    "this is the mean over all positions, with padding": ("h[np.arange(len(h)), last]", "h.mean(axis=1)"),
}
