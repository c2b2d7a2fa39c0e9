"""2. The linear layer (3 points).

`y = x Wᵀ + b`, row by row: `y_no = Σ_i x_ni W_oi + b_o`. Compute three gradients from `dy`: `dx` is passed on to the
previous layer, and `dW` and `db` are used to update the parameters. LoRA's backward pass consists of the backward
passes of three linear layers (see lesson 07).

**Write down the three shapes first.** Then, on paper: which entries of `y` are affected by `x_ni`, which by `W_oi`, and
which by `b_o`? Two of the three inputs affect every row of `y`, so their gradients are sums over the rows. **Predict:**
if every row of `x` and `dy` is duplicated, what happens to each of the three gradients?
"""

import numpy as np

HINTS = {
    "dx": "x_ni affects only row n of y, but every output o in it. How strongly does it affect each?",
    "dW": "Which rows of y does W_oi affect? Each of them adds a term.",
    "db": "b_o is added to output o of every row, with the factor 1.",
}
FORMULA = "dx = dy W\ndW = dyᵀ x\ndb = Σ_n dy_n, the sum over the rows"


def linear_backward(dy, x, W):
    """dy (N, out), x (N, in), W (out, in) -> dx (N, in), dW (out, in), db (out,)."""
    # y_no = Σ_i x_ni W_oi + b_o
    dx = dy @ W  # dx_ni = Σ_o dy_no W_oi: (N, out) (out, in) -> (N, in)
    dW = dy.T @ x  # dW_oi = Σ_n dy_no x_ni: (out, N) (N, in) -> (out, in)
    db = dy.sum(axis=0)  # db_o = Σ_n dy_no: (N, out) -> (out,)
    # If every row is duplicated, each row of dx is unchanged, and dW and db double.
    return dx, dW, db


def draw(rng, size):
    return size.normals(rng, dy="N n_out", x="N n_in", W="n_out n_in")


MISTAKES = {
    "dx does not depend on dy: it is correct only if dy is all ones": lambda i: np.ones_like(i.dy) @ i.W,
    "dW does not depend on dy: it is correct only if dy is all ones": lambda i: np.ones_like(i.dy).T @ i.x,
    "db does not depend on dy: it is correct only if dy is all ones": lambda i: np.full(len(i.W), len(i.dy)),
}
