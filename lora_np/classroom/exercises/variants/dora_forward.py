"""DoRA, forward.

    W_lora = W + s B A        W′ = m ⊙ W_lora / ‖W_lora‖        y = x W′ᵀ + b

Row `o` of `W′` has the direction of row `o` of `W_lora`, and the length `m_o`; ‖W_lora‖ are the lengths of its *rows*.

**Predict first:** multiply both `W` and `B` by 2 and leave `m` alone; what happens to `y`? Multiply `m` by 2: what
happens to `y`? Which `m` makes `y` the base's output at `B` = 0?
"""

import numpy as np

from ...exercise import normals

POINTS = 2
OUTPUTS = ("y",)
HINTS = {"y": "How long must a row of W′ be, whatever A and B are? How long is it in W_lora?"}
FORMULA = "W_lora = W + s B A;  W′ = m ⊙ W_lora / ‖W_lora‖, row by row;  y = x W′ᵀ + b"


def dora_forward(x, W, b, A, B, m, s):
    """x (N, in), W (out, in), b (out,), A (r, in), B (out, r), m (out,), s a number -> y (N, out)."""
    W_lora = W + s * B @ A  # (out, in)
    length = np.linalg.norm(W_lora, axis=1, keepdims=True)  # (out, 1)
    W_tuned = m[:, None] * W_lora / length  # (out, in)
    return x @ W_tuned.T + b  # (N, out)
    # Twice W and B is twice W_lora, of the same directions: y stays. Twice m doubles x W′ᵀ, and not b. With m = ‖W‖ and
    # B = 0, W′ is W.


def draw(rng, size):
    """The middle of training: B is not zero, and m is no longer the length of W's rows."""
    drawn = normals(rng, size, x="N n_in", W="n_out n_in", b="n_out", A="r n_in", B="n_out r")
    m = np.linalg.norm(drawn["W"], axis=1) * rng.uniform(0.5, 1.5, size.n_out)
    return drawn | {"m": m, "s": size.alpha / size.r}


MISTAKES = {
    "y": [
        (
            "only W's rows are set to m, but s B A is a part of W_lora and must go through it as well",
            lambda i: i.x @ (i.m[:, None] * i.W / np.linalg.norm(i.W, axis=1, keepdims=True) + i.s * i.B @ i.A).T + i.b,
        ),
        (
            "the bias is multiplied by m/‖W_lora‖ as well",
            lambda i: i.right["y"] + i.b * (i.m / np.linalg.norm(i.W + i.s * i.B @ i.A, axis=1) - 1),
        ),
    ]
}
