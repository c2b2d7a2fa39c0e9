"""3. The embedding (3 points).

In the forward pass, `y[n, t] = table[ids[n, t]]`: each position gets a copy of its token's row. In the backward pass,
each row of the table collects the gradients of its copies. `dy` is (N, T, C), the table has `V` rows, and most tokens
of the vocabulary do not occur in `ids` at all.

**On paper first:** take `ids = [[2, 0, 2]]`, and `dy` with the rows a, b, c. Write down `dtable` for `V` = 4. Then
predict the result of `dtable[ids] += dy`, and try it: NumPy's result may surprise you.
"""

import numpy as np

HINTS = {"dtable": "A row of the table is copied to each position of its token. What comes back from two copies?"}
FORMULA = "dtable[i] = Σ dy[n, t] over all (n, t) with ids[n, t] = i;  np.add.at(dtable, ids, dy)"


def embedding_backward(dy, ids, V):
    """dy (N, T, C), ids (N, T) of ints 0 … V−1, V an int -> dtable (V, C)."""
    dtable = np.zeros((V, dy.shape[-1]))  # (V, C); rows of tokens that do not occur are zero
    # `dtable[ids] += dy` reads all rows, adds, then writes all rows: if a token occurs more than once, the last result
    # wins.
    np.add.at(dtable, ids, dy)  # one position after the other
    # On paper: row 0 is b, row 2 is a + c, and the others are zero. With `+=`, row 2 is c.
    return dtable


def draw(rng, size):
    """Draw texts that use only T − 1 of the V tokens. Each text contains all T − 1 tokens, one of them twice."""
    used = rng.choice(np.arange(1, size.V - 1), size.T - 1, replace=False)  # neither the first token nor the last
    ids = np.stack([rng.permutation(np.append(used, used[n % len(used)])) for n in range(size.B)])  # (N, T)
    return {"dy": rng.normal(size=(*ids.shape, size.C)), "ids": ids, "V": size.V}


def last_places(i):
    dtable = np.zeros_like(i.right["dtable"])
    dtable[i.ids] = i.dy
    return dtable


MISTAKES = {
    "a token that occurs twice in one text has only one of its two gradients there": (
        "np.add.at(dtable, ids, dy)",
        "for n in range(len(ids)): dtable[ids[n]] += dy[n]",
    ),
    "a token that occurs more than once has only the gradient of its last position": last_places,
    "the gradients of a token's positions are averaged, not added up": lambda i: (
        i.right["dtable"] / np.maximum(np.bincount(i.ids.ravel(), minlength=i.V), 1)[:, None]
    ),
}
