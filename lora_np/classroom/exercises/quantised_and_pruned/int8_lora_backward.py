"""7. LoRA on an int8 base (3 points).

Now train LoRA on a base that is stored only as `codes` and `scales`: `Ŵ_oi = scales_o · codes_oi`, and

    y = x Ŵᵀ + b + s (x Aᵀ) Bᵀ

`Ŵ` is frozen. Compute the three gradients that training needs, `dx`, `dA` and `dB`.

**Before you write:** which of the three depend on `Ŵ`? Suppose that two colleagues have the same `x` and `dy`, but one
has a base in int8 and the other in NF4: which of their gradients agree? **Derive:** the scale of row `o` affects only
output `o`. So can you compute `dx` by multiplying by the codes themselves, without a float matrix as large as `W`?
"""

import numpy as np

HINTS = {
    "dx": "What is Ŵ_oi, in codes and scales? Along which two paths does x reach y?",
    "dA": "Is Ŵ on the path between A and y?",
    "dB": "Is Ŵ on the path between B and y?",
}
FORMULA = "dx = (dy ⊙ scales) codes + du A,  du = s dy B\ndA = duᵀ x\ndB = s dyᵀ u,  u = x Aᵀ"


def int8_lora_backward(dy, x, codes, scales, A, B, s):
    """dy (N, out), x (N, in), codes (out, in) int8, scales (out,), A (r, in), B (out, r), s -> dx, dA, dB."""
    # y = x Ŵᵀ + …: dx_ni = Σ_o dy_no scales_o codes_oi. Scaling dy takes N · out multiplications, and avoids a float
    # array as large as W.
    weighted = dy * scales  # (N, out)
    # z = s u Bᵀ and u = x Aᵀ do not contain Ŵ, so dA and dB are those of exercise set 07.
    u = x @ A.T  # (N, r)
    dB = s * dy.T @ u  # (out, r)
    du = s * dy @ B  # (N, r)
    dA = du.T @ x  # (r, in)
    dx = weighted @ codes + du @ A  # (N, in)
    return dx, dA, dB
    # With the same dy and x, dA and dB are bit-for-bit identical for all weight formats of the base; dx is not. (NumPy
    # does convert the codes to floats for the product. Kernels for hardware with int8 products do not.)


def draw(rng, size):
    drawn = size.normals(rng, dy="N n_out", x="N n_in", A="r n_in", B="n_out r")
    codes = rng.integers(-127, 128, (size.n_out, size.n_in), dtype=np.int8)
    return drawn | {"codes": codes, "scales": rng.uniform(0.005, 0.03, size.n_out), "s": size.s}
