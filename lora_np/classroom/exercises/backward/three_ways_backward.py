"""Three ways out of one array.

`q = h Wqᵀ + bq`, and likewise `k` and `v`: one array, `h = ln1(x)`, has gone into three layers. The gradients `dq`,
`dk`, `dv` are given with their heads merged, (N, T, C). Give `dh`.

These weights are square, as in the model, so **no shape will tell you** that one of them is the wrong way round. What
will? Write down one element, `q_o = Σ_i h_i Wq_oi`, and go back from there.
"""

from ...exercise import normals

POINTS = 2
OUTPUTS = ("dh",)
HINTS = {"dh": "Each way is a linear layer without a bias. What does h get back from each, and from all of them?"}
FORMULA = "dh = dq Wq + dk Wk + dv Wv"


def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    """dq, dk, dv (N, T, C), Wq, Wk, Wv (C, C), each (out, in) -> dh (N, T, C)."""
    # q_o = Σ_i h_i Wq_oi, so dh_i gets Σ_o dq_o Wq_oi: the weight itself; in the forward pass it was transposed.
    # Centred differences would tell one from the other; the shapes do not.
    return dq @ Wq + dk @ Wk + dv @ Wv  # (N, T, C), from each way its own part


def draw(rng, size):
    return normals(rng, size, dq="B T C", dk="B T C", dv="B T C", Wq="C C", Wk="C C", Wv="C C")


MISTAKES = {
    "dh": [
        ("the weights are transposed, as on the way forward", lambda i: i.dq @ i.Wq.T + i.dk @ i.Wk.T + i.dv @ i.Wv.T),
        (
            "the gradients are added up first, so that each has gone through all three weights",
            lambda i: (i.dq + i.dk + i.dv) @ (i.Wq + i.Wk + i.Wv),
        ),
    ]
}
