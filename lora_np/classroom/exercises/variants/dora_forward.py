"""DoRA, forward.

V = W + s B A        W′ = m ⊙ V / ‖V‖        y = x W′ᵀ + b

Row `o` of `W′` has the direction of row `o` of `V`, and the length `m_o`; ‖V‖ are the lengths of V's *rows*, one for
each output.

**Predict first:** multiply both `W` and `B` by 2 and leave `m` alone; what becomes of `y`? Multiply `m` by 2: what
becomes of `y`? Which `m` makes `y` the base's output at `B` = 0?
"""

import numpy as np

from ...exercise import normals

POINTS = 2
OUTPUTS = ("y",)
HINTS = {"y": "Which length has a row of W′ to have, whatever A and B are? Which length has it in V?"}
FORMULA = "V = W + s B A;  W′ = m ⊙ V / ‖V‖, row by row;  y = x W′ᵀ + b"


def dora_forward(x, W, b, A, B, m, s):
    """x (N, in), W (out, in), b (out,), A (r, in), B (out, r), m (out,), s a number -> y (N, out)."""
    V = W + s * B @ A  # (out, in)
    length = np.linalg.norm(V, axis=1, keepdims=True)  # (out, 1)
    W_tuned = m[:, None] * V / length  # (out, in)
    return x @ W_tuned.T + b  # (N, out)
    # Twice W and B is twice V, of the same directions: y stays. Twice m doubles x W′ᵀ, and not b. With m = ‖W‖ and
    # B = 0, W′ is W.


def draw(rng, size):
    """The midst of training: B is not zero, and m is not the length of W's rows any more."""
    drawn = normals(rng, size, x="N n_in", W="n_out n_in", b="n_out", A="r n_in", B="n_out r")
    m = np.linalg.norm(drawn["W"], axis=1) * rng.uniform(0.5, 1.5, size.n_out)
    return drawn | {"m": m, "s": size.alpha / size.r}


MISTAKES = {
    "y": [
        (
            "only W's rows are set to m: s B A is a part of V, and has to go through it, too",
            lambda i: i.x @ (i.m[:, None] * i.W / np.linalg.norm(i.W, axis=1, keepdims=True) + i.s * i.B @ i.A).T + i.b,
        ),
        (
            "the bias is multiplied by m/‖V‖, too",
            lambda i: i.right["y"] + i.b * (i.m / np.linalg.norm(i.W + i.s * i.B @ i.A, axis=1) - 1),
        ),
    ]
}
