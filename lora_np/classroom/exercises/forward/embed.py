"""1. Warm-up: token and position (2 points).

There are two tables: `tok_emb` has a row for each token of the vocabulary, and `pos_emb` has a row for each position.
Return `x`, the input of the first block. The position table has more rows than these texts need.

**Predict** for `ids = [[5, 7, 5]]`: which rows of `x` are equal? Which rows of `x` would be equal if `pos_emb` were all
zeros? If two texts begin with the same token, are their first rows of `x` equal? (NumPy accepts an array of ids as an
index; look at the shape of `tok_emb[ids]`.)
"""

HINTS = {"x": "Which row of which table encodes the token at position t of text n, and which encodes the position?"}
FORMULA = "x[n, t] = tok_emb[ids[n, t]] + pos_emb[t]"


def embed(ids, tok_emb, pos_emb):
    """ids (N, T) of ints 0 … vocab−1, tok_emb (vocab, C), pos_emb (T or more, C) -> x (N, T, C)."""
    T = ids.shape[1]
    return tok_emb[ids] + pos_emb[:T]  # (N, T, C) + (T, C): the same positions for every text
    # For [[5, 7, 5]], no rows are equal; without positions, rows 0 and 2 are. The first rows of the two texts are
    # equal, because both token and position are the same.


def draw(rng, size):
    positions = size.T + 30  # more rows than the vocabulary: an id used as a position raises no error
    ids = rng.integers(1, size.V, (size.B, size.T))  # none is 0, so that id − 1 is a token as well
    tok_emb, pos_emb = (rng.normal(size=(rows, size.C)) for rows in (size.V, positions))
    return {"ids": ids, "tok_emb": tok_emb, "pos_emb": pos_emb}


MISTAKES = {
    "the position's row is looked up by the token's id": lambda i: i.tok_emb[i.ids] + i.pos_emb[i.ids],
    "the tokens' rows have a factor √C, as in other models": ("tok_emb[", "tok_emb.shape[1] ** 0.5 * tok_emb["),
}
