"""DoRA, backward.

The hard one. Here `V` is the W_lora of the task before. Give the **exact** gradients: of `x`, of `V` (all of it, also
what goes through ‖V‖), and of `m`. From dV on, dA and dB are LoRA's, and you have them from exercises 07.

**Derive it** for a single row, with v̂ = V / ‖V‖. First the two quick ones: what is dW′, and what follows for dm? Then
move the row of `V` by a little, δ. What does `W′` do if δ is along v̂? What if δ is across, at a right angle? Any δ is
a part along and a part across: so which part of dW′ does dV keep, and with which factor?

**Predict:** what is the product of each row of dV with its row of `V`? How large is dV if `V` is twice as long?

Your judge from exercises 03 can measure all three. (Lesson 13: PEFT and this package's default hold ‖V‖ constant, as
the paper does, and would *fail* that judge.)
"""

import numpy as np

from ...exercise import normals

POINTS = 5
OUTPUTS = ("dx", "dV", "dm")
HINTS = {
    "dx": "Which matrix has x gone through?",
    "dV": "Move a row of V along itself: what happens to W′? Move it across: how far does the row of W′ turn?",
    "dm": "W′ = m v̂, row by row. How much does L change if a row of W′ grows by a unit of its own direction?",
}
FORMULA = """v̂ = V / ‖V‖, row by row;  dW′ = dyᵀ x
dx = dy (m ⊙ v̂)
dm = dW′ · v̂
dV = (m / ‖V‖) ⊙ (dW′ − (dW′ · v̂) v̂)"""


def dora_backward(dy, x, V, m):
    """dy (N, out), x (N, in), V (out, in), m (out,), for y = x W′ᵀ + b -> dx (N, in), dV (out, in), dm (out,)."""
    length = np.linalg.norm(V, axis=1, keepdims=True)  # (out, 1)
    unit = V / length  # (out, in), v̂ of each row
    W_tuned = m[:, None] * unit  # (out, in), W′
    # y = x W′ᵀ + b
    dx = dy @ W_tuned  # (N, in)
    dW_tuned = dy.T @ x  # (out, in)
    # W′ = m v̂, row by row
    along = np.sum(dW_tuned * unit, axis=1, keepdims=True)  # (out, 1): dW′ · v̂
    dm = along[:, 0]  # (out,): W′ grows by v̂ for each unit of m
    # δ along v̂ only stretches V, and the division undoes it: W′ stays. δ across turns the row: v̂ moves by δ / ‖V‖,
    # and W′ by m δ / ‖V‖. So dV is the part of dW′ across the row, times m / ‖V‖.
    dV = m[:, None] / length * (dW_tuned - along * unit)  # (out, in)
    return dx, dV, dm
    # The product of each row of dV with its row of V is 0. If V is twice as long, δ turns it half as far: dV is half.


def draw(rng, size):
    drawn = normals(rng, size, dy="N n_out", x="N n_in", V="n_out n_in")
    return drawn | {"m": np.linalg.norm(drawn["V"], axis=1) * rng.uniform(0.5, 1.5, size.n_out)}


def along_V(i):
    dW = i.dy.T @ i.x
    return (i.m / np.linalg.norm(i.V, axis=1))[:, None] * (dW - np.sum(dW * i.V) / np.sum(i.V**2) * i.V)


MISTAKES = {
    "dV": [("the part along V is subtracted for V as one long vector, not row by row", along_V)],
    "dm": [
        (
            "this is the length of each row of dW′: only its part along the row of V stretches W′",
            lambda i: np.linalg.norm(i.dy.T @ i.x, axis=1),
        )
    ],
}
