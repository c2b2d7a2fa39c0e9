"""4. Backward (6 points).

`dy` is the gradient of the loss with respect to `y`. Derive the three gradients on paper: write the forward pass as two
linear layers and a sum, `u = x Aᵀ`, `z = s u Bᵀ`, `y = x Wᵀ + z`, and work backwards through each of them. (`W` is
frozen, so there is no `dW`.) **Write down the shape** of each gradient before its formula.
"""

HINTS = {
    "dx": "x takes two paths in the forward pass. Which gradient comes back along each of them?",
    "dA": "u = x Aᵀ is a linear layer whose upstream gradient is du. By which factors is dy multiplied to give du?",
    "dB": "z = (s u) Bᵀ is a linear layer whose input is s u.",
}
FORMULA = "dB = s dyᵀ u,  u = x Aᵀ\ndu = s dy B\ndA = duᵀ x\ndx = dy W + du A"


def lora_backward(dy, x, W, A, B, s):
    """dy (N, out), x (N, in), W (out, in), A (r, in), B (out, r), s a float -> dx (N, in), dA (r, in), dB (out, r)."""
    # z = s u Bᵀ
    u = x @ A.T  # (N, r)
    dB = s * dy.T @ u  # (out, r)
    du = s * dy @ B  # (N, r)
    # u = x Aᵀ
    dA = du.T @ x  # (r, in)
    # y = x Wᵀ + z
    dx = dy @ W + du @ A  # (N, in)
    return dx, dA, dB


def draw(rng, size):
    return size.normals(rng, dy="N n_out", x="N n_in", W="n_out n_in", A="r n_in", B="n_out r") | {"s": size.s}
