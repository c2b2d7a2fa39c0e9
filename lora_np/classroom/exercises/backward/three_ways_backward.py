"""7. One array, three uses (2 points).

`q = h Wqᵀ + bq`, and likewise `k` and `v`: one array, `h = ln1(x)`, is the input of three layers. The gradients `dq`,
`dk`, `dv` are given with their heads merged, (N, T, C). Return `dh`.

These weights are square, as in the model, so **no shape will tell you** if you transpose one of them by mistake. What
will? Write down one entry, `q_o = Σ_i h_i Wq_oi`, and work backwards from there.
"""

HINTS = {"dh": "Each path is a linear layer. What does h get back from each of them, and what from all three?"}
FORMULA = "dh = dq Wq + dk Wk + dv Wv"


def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    """dq, dk, dv (N, T, C), Wq, Wk, Wv (C, C), each (out, in) -> dh (N, T, C)."""
    # q_o = Σ_i h_i Wq_oi, so dh_i gets Σ_o dq_o Wq_oi: the weight is not transposed here, unlike in the forward pass.
    # Central differences would reveal a transposed weight; the shapes do not.
    return dq @ Wq + dk @ Wk + dv @ Wv  # (N, T, C): one term for each path


def draw(rng, size):
    return size.normals(rng, dq="B T C", dk="B T C", dv="B T C", Wq="C C", Wk="C C", Wv="C C")


MISTAKES = {
    "the weights are transposed, as in the forward pass": lambda i: i.dq @ i.Wq.T + i.dk @ i.Wk.T + i.dv @ i.Wv.T,
    "every gradient goes through all weights": ("dq @ Wq + dk @ Wk + dv @ Wv", "(dq + dk + dv) @ (Wq + Wk + Wv)"),
}
