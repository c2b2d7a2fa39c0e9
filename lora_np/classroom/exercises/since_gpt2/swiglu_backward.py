"""6. SwiGLU, backward (3 points).

    y = gate · sigmoid(gate) · up

**Derive** both gradients. The gradient of `up` is easy. `gate` occurs in two factors, so use the product rule. You may
use the fact that the sigmoid's derivative is sigmoid · (1 − sigmoid), or derive it.

**Predict first:** at gate = 0, which of the two gradients is zero? What is the gradient of `up` where `gate` is very
negative?
"""

import numpy as np

HINTS = {
    "dgate": "gate occurs in two of the three factors. What does each of the two contribute?",
    "dup": "y is up times a factor. Which factor?",
}
FORMULA = "g = sigmoid(gate)\ndup = dy ⊙ gate ⊙ g\ndgate = dy ⊙ up ⊙ g ⊙ (1 + gate ⊙ (1 − g))"


def swiglu_backward(dy, gate, up):
    """dy (N, F), gate (N, F), up (N, F) -> dgate (N, F), dup (N, F)."""
    sigmoid = 1 / (1 + np.exp(-gate))  # (N, F)
    # y = silu · up with silu = gate · sigmoid
    dup = dy * gate * sigmoid
    dsilu = dy * up
    # product rule: 1 · sigmoid + gate · sigmoid (1 − sigmoid)
    dgate = dsilu * sigmoid * (1 + gate * (1 - sigmoid))
    return dgate, dup
    # At gate = 0, dup is zero, and dgate is half of dy · up. Where gate is very negative, both are nearly zero.


def draw(rng, size):
    return size.normals(rng, dy="N F", gate="N F", up="N F")


MISTAKES = {
    "only the sigmoid is differentiated, but gate is a factor, too": ("(1 + gate * (1 - sigmoid))", "(1 - sigmoid)"),
}
