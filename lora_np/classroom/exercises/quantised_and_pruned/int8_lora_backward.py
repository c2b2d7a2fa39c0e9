"""LoRA on a base in eight bits.

Now LoRA trains, on a base that is stored as `codes` and `scales` alone: `Ŵ_oi = scales_o · codes_oi`, and

    y = x Ŵᵀ + b + s (x Aᵀ) Bᵀ

`Ŵ` is frozen. Give the gradients that training needs.

**Before you write:** in which of the three is `Ŵ` at all? Two people have the same `x` and `dy`, one with a base in
int8 and one in NF4: which of their gradients agree? **And derive:** the scale of row `o` belongs only to output `o`. So
can you have `dx` without a float matrix of the size of `W`, from a product with the codes as they are?
"""

import numpy as np

from ...exercise import normals

POINTS = 3
OUTPUTS = ("dx", "dA", "dB")
HINTS = {
    "dx": "What is Ŵ_oi, in codes and scales? Along which two paths does x reach y?",
    "dA": "Is Ŵ anywhere between dy and A?",
    "dB": "Is Ŵ anywhere between dy and B?",
}
FORMULA = "dx = (dy ⊙ scales) codes + du A,  du = s dy B\ndA = duᵀ x\ndB = s dyᵀ u,  u = x Aᵀ"


def int8_lora_backward(dy, x, codes, scales, A, B, s):
    """dy (N, out), x (N, in), codes (out, in) int8, scales (out,), A (r, in), B (out, r), s -> dx, dA, dB."""
    # y = x Ŵᵀ + …: dx_ni = Σ_o dy_no scales_o codes_oi. On dy, the scales cost N · out products and no matrix.
    weighted = dy * scales  # (N, out)
    # z = s u Bᵀ and u = x Aᵀ: Ŵ is in neither, so dA and dB are those of exercises 07.
    u = x @ A.T  # (N, r)
    dB = s * dy.T @ u  # (out, r)
    du = s * dy @ B  # (N, r)
    dA = du.T @ x  # (r, in)
    dx = weighted @ codes + du @ A  # (N, in)
    return dx, dA, dB
    # With the same dy and x, dA and dB agree bit for bit for any storage of the base; dx does not. (NumPy turns the
    # codes into floats for the product after all. Programs for processors that multiply int8 do not.)


def draw(rng, size):
    drawn = normals(rng, size, dy="N n_out", x="N n_in", A="r n_in", B="n_out r")
    codes = rng.integers(-127, 128, (size.n_out, size.n_in), dtype=np.int8)
    return drawn | {"codes": codes, "scales": rng.uniform(0.005, 0.03, size.n_out), "s": size.alpha / size.r}
