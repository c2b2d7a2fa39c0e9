"""The embedding.

Forward, `y[n, t] = table[ids[n, t]]`: each place gets a copy of its token's row. Backward, each row of the table
collects from its copies. `dy` is (N, T, C), the table has `V` rows, and most tokens do not occur at all.

**On paper first:** `ids = [[2, 0, 2]]`, and `dy` with the rows a, b, c. Write down `dtable` for `V` = 4. Then predict
what `dtable[ids] += dy` does with it, and try: NumPy surprises most people here.
"""

import numpy as np

POINTS = 3
OUTPUTS = ("dtable",)
HINTS = {"dtable": "A row of the table is copied to wherever its token is. What comes back from two copies?"}
FORMULA = "dtable[i] = Σ dy[n, t] over all places (n, t) with ids[n, t] = i;  np.add.at(dtable, ids, dy)"


def embedding_backward(dy, ids, V):
    """dy (N, T, C), ids (N, T) of whole numbers 0 … V−1, V a whole number -> dtable (V, C)."""
    dtable = np.zeros((V, dy.shape[-1]))  # (V, C); a token that does not occur keeps its zeros
    # `dtable[ids] += dy` reads all rows, adds, and writes all rows: of a token's several results only the last stays.
    np.add.at(dtable, ids, dy)  # place by place
    # On paper: row 0 has b, row 2 has a + c. With `+=` row 2 has c.
    return dtable


def draw(rng, size):
    """Few of the V tokens: some occur in several texts, some twice in one, and others never."""
    used = rng.choice(np.arange(1, size.V - 1), size.T - 1, replace=False)  # neither the first token nor the last
    ids = np.stack([rng.permutation(np.append(used, used[n % len(used)])) for n in range(size.B)])  # (N, T)
    return {"dy": rng.normal(size=(*ids.shape, size.C)), "ids": ids, "V": size.V}


def last_places(i):
    dtable = np.zeros_like(i.right["dtable"])
    dtable[i.ids] = i.dy
    return dtable


MISTAKES = {
    "dtable": [
        ("a token that occurs more than once has only the gradient of its last place", last_places),
        (
            "a token's places are averaged, not added up",
            lambda i: i.right["dtable"] / np.maximum(np.bincount(i.ids.ravel(), minlength=i.V), 1)[:, None],
        ),
        (
            "it has a row for each position, not for each token: this is the position table's gradient",
            lambda i: np.pad(i.dy.sum(axis=0), ((0, i.V - i.size.T), (0, 0))),
        ),
    ]
}
