"""4. VeRA: training two vectors (3 points).

`A` and `B` are random, shared by all layers, and never trained. Two vectors are trained, λ_d (r,) and λ_b (out,),
called `lambda_d` and `lambda_b` in the code:

    v = x Aᵀ        z = (λ_d ⊙ v) Bᵀ        y = x Wᵀ + b + λ_b ⊙ z

Derive the gradients of the two vectors and of `x`. **First name every array between `x` and `y`, and write down its
shape**; then work backwards through them one by one.

**Predict:** training starts at λ_b = 0 and λ_d = 0.1. Which of the three gradients is zero in the first step, and which
is the same as without the adapter? Why are the vectors not both initialised to zero?
"""

import numpy as np

HINTS = {
    "dx": "x reaches y along two paths. Which four factors are on the adapter's path, and in which order?",
    "dlambda_d": "w_nk = λ_d,k v_nk: λ_d,k multiplies column k of v in all rows. What is w's upstream gradient?",
    "dlambda_b": "y_no contains the term λ_b,o z_no. In how many rows does λ_b,o occur, and with what factor?",
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
    dlambda_b = np.sum(dy * z, axis=0)  # (out,): λ_b,o occurs in every row, with the factor z_no
    dz = lambda_b * dy  # (N, out)
    # z = w Bᵀ
    dw = dz @ B  # (N, r)
    # w = λ_d ⊙ v
    dlambda_d = np.sum(dw * v, axis=0)  # (r,)
    dv = lambda_d * dw  # (N, r)
    # v = x Aᵀ, and x also reaches y through W
    dx = dy @ W + dv @ A  # (N, in)
    return dx, dlambda_d, dlambda_b
    # At λ_b = 0, dz is zero, so dλ_d is zero, and dx is the same as without the adapter. Only λ_b moves. With λ_d = 0
    # as well, z and dλ_b would also be zero: neither vector would ever change, as in LoRA with A and B both zero.


def draw(rng, size):
    drawn = size.normals(rng, dy="N n_out", x="N n_in", W="n_out n_in", A="r n_in", B="n_out r")
    return drawn | size.normals(rng, lambda_d="r", lambda_b="n_out")  # as in the middle of training
