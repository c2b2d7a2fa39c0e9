"""8. DoRA, backward (5 points).

The hard one. Here `V` is the W_lora of the previous exercise. Compute the **exact** gradients of `x`, `V` and `m`; the
gradient of `V` includes the path through ‖V‖. dA and dB follow from dV as in LoRA (exercise set 07).

**Derive it** for a single row, with v̂ = V / ‖V‖. Begin with the two easy gradients: what is dW′, and how does dm
follow from it? Then add a small vector δ to the row of `V`. How does `W′` change if δ is parallel to v̂? How does it
change if δ is orthogonal to v̂? Any δ is the sum of a parallel and an orthogonal component: so which component of dW′
does dV keep, and with what factor?

**Predict:** what is the dot product of each row of dV with the same row of `V`? How does dV change if `V` doubles?

Your gradient check from exercise set 03 can test all three gradients. (As lesson 13 explains, the paper, PEFT and this
package's default treat ‖V‖ as a constant, so their gradients would *fail* that check.)
"""

import numpy as np

HINTS = {
    "dx": "By which matrix is x multiplied?",
    "dV": "Stretch a row of V: what happens to W′? Add a small vector orthogonal to the row: how far does W′ move?",
    "dm": "W′ = m v̂, row by row. How much does the loss change if a row of W′ changes by v̂?",
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
    dm = along[:, 0]  # (out,): if m changes by 1, W′ changes by v̂
    # A δ parallel to v̂ only stretches V, and the division cancels this: W′ is unchanged. An orthogonal δ rotates the
    # row: v̂ moves by δ / ‖V‖, and W′ by m δ / ‖V‖. So dV is the component of dW′ orthogonal to the row, times m / ‖V‖.
    dV = m[:, None] / length * (dW_tuned - along * unit)  # (out, in)
    return dx, dV, dm
    # Each row of dV is orthogonal to the same row of V. If V doubles, δ rotates it half as far, so dV halves.


def draw(rng, size):
    drawn = size.normals(rng, dy="N n_out", x="N n_in", V="n_out n_in")
    return drawn | {"m": np.linalg.norm(drawn["V"], axis=1) * rng.uniform(0.5, 1.5, size.n_out)}


MISTAKES = {
    "dW′ · v̂ is added up over all rows, but each row has its own": ("along * unit", "np.sum(dW_tuned * unit) * unit"),
    "these are the norms of dW′'s rows, not dot products with v̂": ("along[:, 0]", "np.linalg.norm(dW_tuned, axis=1)"),
    "‖V‖ is treated as a constant": ("(dW_tuned - along * unit)", "dW_tuned"),
}
