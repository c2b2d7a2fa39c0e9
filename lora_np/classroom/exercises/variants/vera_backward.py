"""VeRA: two vectors learn.

`A` and `B` are random, the same for all layers, and never trained. Two vectors are trained, λ_d (r,) and λ_b (out,); in
code they are `lambda_d` and `lambda_b`:

    v = x Aᵀ        z = (λ_d ⊙ v) Bᵀ        y = x Wᵀ + b + λ_b ⊙ z

Derive the gradients of the two vectors, and of `x`. **Write down the shapes first**, and a name for every array between
`x` and `y`; then go back through one after the other.

**Predict:** training starts at λ_b = 0 and λ_d = 0.1. Which of the three gradients are zero then, or the base's? And
why does it not start with both vectors at zero?
"""

import numpy as np

from ...exercise import normals

POINTS = 3
OUTPUTS = ("dx", "dlambda_d", "dlambda_b")
HINTS = {
    "dx": "x reaches y along two paths. Which four things does the second pass through, and in which order?",
    "dlambda_d": "w_nk = λ_d,k v_nk: one number multiplies column k of v in all rows. What is upstream of w?",
    "dlambda_b": "y_no has λ_b,o z_no in it. In how many rows is λ_b,o, and with which factor?",
}
FORMULA = (
    "v = x Aᵀ,  z = (λ_d ⊙ v) Bᵀ\ndλ_b = Σ_n dy ⊙ z\ndw = (λ_b ⊙ dy) B,  dλ_d = Σ_n dw ⊙ v\ndx = dy W + (λ_d ⊙ dw) A"
)


def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    """dy (N, out), x (N, in), W (out, in), A (r, in), B (out, r), lambda_d (r,), lambda_b (out,)
    -> dx (N, in), dlambda_d (r,), dlambda_b (out,)."""
    v = x @ A.T  # (N, r)
    w = lambda_d * v  # (N, r)
    z = w @ B.T  # (N, out)
    # y = x Wᵀ + b + λ_b ⊙ z
    dlambda_b = np.sum(dy * z, axis=0)  # (out,): λ_b,o is in every row, with the factor z_no
    dz = lambda_b * dy  # (N, out)
    # z = w Bᵀ
    dw = dz @ B  # (N, r)
    # w = λ_d ⊙ v
    dlambda_d = np.sum(dw * v, axis=0)  # (r,)
    dv = lambda_d * dw  # (N, r)
    # v = x Aᵀ, and x has gone through W as well
    dx = dy @ W + dv @ A  # (N, in)
    return dx, dlambda_d, dlambda_b
    # At λ_b = 0, dz is zero: so is dλ_d, and dx is the base's. λ_b alone moves. With λ_d = 0 as well z would be zero,
    # and dλ_b with it: nothing would ever move, as with A and B of LoRA both at zero.


def draw(rng, size):
    drawn = normals(rng, size, dy="N n_out", x="N n_in", W="n_out n_in", A="r n_in", B="n_out r")
    return drawn | normals(rng, size, lambda_d="r", lambda_b="n_out")  # the middle of training
