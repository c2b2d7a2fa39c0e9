"""A format for zeros.

A zero takes as much room as any number, unless a format leaves it out. "2 of 4" has such a format. Of every four
neighbours, `values` holds the two weights that stayed, in order, and `positions` holds the place of each among the
four, 0 … 3. Give `y = x Wᵀ`. You could put `W` together again, zeros and all; but then nothing is saved. Do without it.
(An entry of `x` that no value meets may be anything here, even NaN. Do not even multiply it by 0: 0 · NaN is NaN.)

**On paper first:** a row of `W` is 0, 5, 0, −2, 3, 0, 0, 1. What are its values and positions? Which entries of a row
of `x` do its four values meet? Find the rule for value number `k`. **And count:** how many multiplications does a row
of `x` cost this way, and how many with all of `W`? How many bits is a weight, with values of 16 bits?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("y",)
HINTS = {"y": "Values 0 and 1 of a row belong to inputs 0 … 3, values 2 and 3 to inputs 4 … 7. And value k?"}
FORMULA = "y_no = Σ_k values_ok · x[n, 4 (k // 2) + positions_ok]"


def sparse_forward(x, values, positions):
    """x (N, in), values (out, in/2), positions (out, in/2) of whole numbers 0 … 3 -> y (N, out)."""
    group = np.arange(values.shape[1]) // 2  # (in/2,): 0 0 1 1 2 2 …, two values to a group
    inputs = 4 * group + positions  # (out, in/2): the input that each value meets
    return np.sum(values * x[:, inputs], axis=-1)  # (out, in/2) (N, out, in/2) -> (N, out)
    # On paper: values 5 −2 3 1, positions 1 3 0 3, and they meet inputs 1, 3, 4, 7. Multiplications: out · in / 2, half
    # as many. Bits: two of 16, and two positions of 2, for four weights: 9 each, more than int8's 8. What 2 of 4 saves
    # is multiplications. (This function shows which, and is slow: NumPy copies the inputs together first. A processor
    # made for 2 of 4 picks them on the way.)


def draw(rng, size):
    """In each group of inputs there is one that no value meets; in the last draw it is NaN, which no 0 takes away."""
    groups = size.V
    x, values = rng.normal(size=(size.N, 4 * groups)), rng.normal(size=(size.n_out, 2 * groups))
    order = rng.permuted(np.tile(np.arange(4), (groups, 1)), axis=1)  # of each group, the last one unmet
    places = rng.permuted(np.broadcast_to(order[:, :3], (size.n_out, groups, 3)), axis=-1)[..., :2]
    if size.number == 2:
        x[:, 4 * np.arange(groups) + order[:, 3]] = np.nan
    return {"x": x, "values": values, "positions": np.sort(places, axis=-1).reshape(values.shape)}


MISTAKES = {
    "y": [
        (
            "the positions are not used: the values meet the first half of the inputs",
            lambda i: i.x[:, : i.values.shape[1]] @ i.values.T,
        ),
        (
            "a position is added to the value's own number",
            lambda i: np.sum(i.values * i.x[:, np.arange(i.values.shape[1]) + i.positions], axis=-1),
        ),
        (
            "only the second value of each group is used",
            lambda i: sparse_forward(i.x, i.values * (np.arange(i.values.shape[1]) % 2), i.positions),
        ),
    ]
}
