"""Warm-up: what and where.

Two tables: `tok_emb` has a row for each token of the vocabulary, `pos_emb` a row for each position. Give `x`, which the
first block reads. The position table is made for the longest text; these texts are shorter.

**Predict** for `ids = [[5, 7, 5]]`: which rows of `x` are equal? Which would be equal if `pos_emb` were all zeros? And
if two texts begin with the same token, are their first rows of `x` equal? (NumPy takes a whole array of ids as an
index; look at the shape of `tok_emb[ids]`.)
"""

import numpy as np

POINTS = 2
OUTPUTS = ("x",)
HINTS = {"x": "Which row of which table says what is at place t of text n? And which says that it is place t?"}
FORMULA = "x[n, t] = tok_emb[ids[n, t]] + pos_emb[t]"


def embed(ids, tok_emb, pos_emb):
    """ids (N, T) of whole numbers 0 … vocab−1, tok_emb (vocab, C), pos_emb (T or more, C) -> x (N, T, C)."""
    T = ids.shape[1]
    return tok_emb[ids] + pos_emb[:T]  # (N, T, C) + (T, C): the same positions for every text
    # [[5, 7, 5]]: none; without positions, rows 0 and 2. The texts' first rows are equal: the same token and place.


def draw(rng, size):
    positions = size.T + 30  # more than tokens: an id in place of a position gives numbers, no error
    ids = rng.integers(1, size.V, (size.B, size.T))  # none is 0, so that id − 1 is a token as well
    tok_emb, pos_emb = (rng.normal(size=(rows, size.C)) for rows in (size.V, positions))
    return {"ids": ids, "tok_emb": tok_emb, "pos_emb": pos_emb}


MISTAKES = {
    "x": [
        ("the position's row is looked up by the token's id", lambda i: i.tok_emb[i.ids] + i.pos_emb[i.ids]),
        (
            "the positions go on counting from one text to the next",
            lambda i: i.tok_emb[i.ids] + i.pos_emb[np.arange(i.ids.size).reshape(i.ids.shape) % len(i.pos_emb)],
        ),
        (
            "the tokens' rows are multiplied by √C, as in some models, but not in this one",
            lambda i: np.sqrt(i.size.C) * i.tok_emb[i.ids] + i.pos_emb[: i.size.T],
        ),
    ]
}
