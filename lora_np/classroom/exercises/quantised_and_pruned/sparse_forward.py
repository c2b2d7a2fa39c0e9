"""6. A format for zeros (3 points).

A zero takes as much memory as any other number, unless the format omits zeros, as the format for 2:4 sparsity does. For
every four neighbouring weights, `values` holds the two that were not pruned, in order, and `positions` holds their
indices (0 to 3) among the four. Compute `y = x Wᵀ`. You could rebuild `W` with its zeros, but then nothing would be
saved, so do not form it. (An entry of `x` that is not multiplied by any value may be anything here, even NaN. Do not
multiply it by 0 either: 0 · NaN is NaN.)

**On paper first:** what are the values and positions of the row 0, 5, 0, −2, 3, 0, 0, 1 of `W`? By which entry of a row
of `x` is each value multiplied? Write the index of that entry as a formula for value `k`. **Count:** how many
multiplications does a row of `x` take this way, and how many with the full `W`? How many bits does a weight take on
average, with 16-bit values?
"""

import numpy as np

HINTS = {"y": "Values 0 and 1 of a row belong to inputs 0 … 3, values 2 and 3 to 4 … 7. Where does value k belong?"}
FORMULA = "y_no = Σ_k values_ok · x[n, 4 (k // 2) + positions_ok]"


def sparse_forward(x, values, positions):
    """x (N, in), values (out, in/2), positions (out, in/2) of ints 0 … 3 -> y (N, out)."""
    group = np.arange(values.shape[1]) // 2  # (in/2,): 0 0 1 1 2 2 …, two values per group
    inputs = 4 * group + positions  # (out, in/2): the input by which each value is multiplied
    return np.sum(values * x[:, inputs], axis=-1)  # (out, in/2) (N, out, in/2) -> (N, out)
    # On paper: the values are 5 −2 3 1, their positions are 1 3 0 3, and their inputs are 1, 3, 4, 7. There are out ·
    # in / 2 multiplications, half as many as with W. Four weights take two 16-bit values and two 2-bit positions: 9
    # bits per weight, more than int8's 8. So the real gain of 2 of 4 is in multiplications. (This function is slow,
    # because NumPy first copies the inputs into a new array. Hardware made for 2 of 4 selects them on the fly.)


def draw(rng, size):
    """Leave one input per group unused; in the last draw, unused inputs are NaN, to reveal multiplication by 0."""
    groups = size.V
    x, values = rng.normal(size=(size.N, 4 * groups)), rng.normal(size=(size.n_out, 2 * groups))
    order = rng.permuted(np.tile(np.arange(4), (groups, 1)), axis=1)  # per group; no value uses the last one
    places = rng.permuted(np.broadcast_to(order[:, :3], (size.n_out, groups, 3)), axis=-1)[..., :2]
    if size.number == 2:
        x[:, 4 * np.arange(groups) + order[:, 3]] = np.nan
    return {"x": x, "values": values, "positions": np.sort(places, axis=-1).reshape(values.shape)}


MISTAKES = {
    "the positions are not used, only the first half of the inputs": ("x[:, inputs]", "x[:, None, : values.shape[1]]"),
    "value k belongs to group k // 2, not to group k mod the number of groups": (") // 2", ") % (len(x[0]) // 4)"),
    "the position is added to the value's own index": ("4 * group", "np.arange(values.shape[1])"),
    "only each group's second value is used": lambda i: i.solve(values=i.values * (np.arange(i.values.shape[1]) % 2)),
}
