"""7. DoRA, forward (2 points).

    W_lora = W + s B A        W′ = m ⊙ W_lora / ‖W_lora‖        y = x W′ᵀ + b

Row `o` of `W′` has the direction of row `o` of `W_lora` and norm `m_o`; ‖W_lora‖ holds the *row* norms of `W_lora`.

**Predict first:** what happens to `y` if you multiply both `W` and `B` by 2, but not `m`? How does `y` change if you
multiply only `m` by 2? If `B` = 0, for which `m` does `y` equal the base's output?
"""

import numpy as np

HINTS = {"y": "What must the norm of a row of W′ be, for any A and B? What is the norm of that row of W_lora?"}
FORMULA = "W_lora = W + s B A;  W′ = m ⊙ W_lora / ‖W_lora‖, row by row;  y = x W′ᵀ + b"


def dora_forward(x, W, b, A, B, m, s):
    """x (N, in), W (out, in), b (out,), A (r, in), B (out, r), m (out,), s a float -> y (N, out)."""
    W_lora = W + s * B @ A  # (out, in)
    length = np.linalg.norm(W_lora, axis=1, keepdims=True)  # (out, 1)
    W_tuned = m[:, None] * W_lora / length  # (out, in)
    return x @ W_tuned.T + b  # (N, out)
    # Doubling W and B doubles W_lora and keeps the directions of its rows, so y does not change. Doubling m doubles x
    # W′ᵀ, but not b. With m = ‖W‖ and B = 0, W′ is W.


def draw(rng, size):
    """Draw values as in the middle of training: B is not zero, and m differs from the norms of W's rows."""
    drawn = size.normals(rng, x="N n_in", W="n_out n_in", b="n_out", A="r n_in", B="n_out r")
    m = np.linalg.norm(drawn["W"], axis=1) * rng.uniform(0.5, 1.5, size.n_out)
    return drawn | {"m": m, "s": size.s}


MISTAKES = {
    "only W is rescaled to the norm m, but s B A is part of W_lora and must be rescaled as well": lambda i: (
        i.x @ (i.m[:, None] * i.W / np.linalg.norm(i.W, axis=1, keepdims=True) + i.s * i.B @ i.A).T + i.b
    ),
    "the bias is multiplied by m/‖W_lora‖ as well": ("+ b", "+ b * m / length[:, 0]"),
    "the bias is multiplied by m as well": ("+ b", "+ b * m"),
}
