"""3. One batch, several adapters (4 points).

A linear layer receives a batch. Each row comes with the name of its adapter, or with `None` if it uses no adapter.
`adapters` maps each name to `A`, `B` and `s`; ranks may differ. Return the layer's output for all rows, in their
original order.

**Count first,** for a 4096 × 4096 layer and adapters of rank 16: how many multiplications does a row cost on the base's
path, and how many on its adapter's? So which path should be computed for all rows at once, and which may be computed
for one adapter at a time? **Predict:** does a row's result change if the adapters of other rows change?
"""

import numpy as np

HINTS = {"y": "Which part of the result is computed in the same way for every row? Which rows get an extra term?"}
FORMULA = "y_n = x_n Wᵀ + b + s (x_n Aᵀ) Bᵀ with A, B, s of adapters[names[n]];  y_n = x_n Wᵀ + b if that is None"


def rows_forward(x, W, b, adapters, names):
    """x (N, in), W (out, in), b (out,), adapters: dict, name -> (A (r, in), B (out, r), s), names: list of N, a name or
    None for each row -> y (N, out)."""
    y = x @ W.T + b  # (N, out): one product for all rows, regardless of their adapters
    for name, (A, B, s) in adapters.items():
        rows = [n for n, its_name in enumerate(names) if its_name == name]
        y[rows] += s * (x[rows] @ A.T) @ B.T  # (rows, in) (in, r) -> (rows, r); (rows, r) (r, out) -> (rows, out)
    return y
    # A row costs 16.8 million multiplications on the base's path and 131 thousand on the adapter's, less than a
    # hundredth of that. Its result depends only on that row and its own adapter, as in a batch of one.


def draw(rng, size):
    """Draw two adapters with different ranks and scales, and interleave rows that use the one, the other or neither."""
    adapters, scale = {}, size.s
    for name, r, s in (("critics", size.r, scale), ("licences", size.r - 1, 0.4 * scale + 1)):
        adapters[name] = rng.normal(size=(r, size.n_in)), rng.normal(size=(size.n_out, r)), s
    pattern = ("licences", None, "critics", "critics", None, "licences", "licences")
    names = [pattern[n % len(pattern)] for n in range(size.V)]  # enough for the pattern to repeat
    return size.normals(rng, x="V n_in", W="n_out n_in", b="n_out") | {"adapters": adapters, "names": names}


def has_adapter(i):
    return np.array([name is not None for name in i.names])[:, None]


MISTAKES = {
    "a row's adapter is added once for each row that uses it": ("+= s *", "+= len(rows) * s *"),
    "s is divided by r, but s is already α / r": ("+= s *", "+= s / len(A) *"),
    "the rows are grouped by adapter, not in their original order": lambda i: i.right["y"][
        np.argsort([(None, *i.adapters).index(name) for name in i.names], kind="stable")
    ],
    "rows without an adapter are 0, not the base's output": lambda i: i.right["y"] * has_adapter(i),
    "the bias is missing in rows with an adapter": lambda i: i.right["y"] - i.b * has_adapter(i),
}
