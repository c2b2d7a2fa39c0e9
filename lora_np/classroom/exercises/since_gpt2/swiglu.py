"""Warm-up: SwiGLU.

Two linear layers have read the same input: `gate` and `up` are their outputs. The activation multiplies three things,
element by element: `gate`, its sigmoid 1 / (1 + exp(−gate)), and `up`.

**Predict:** which `y` do you get where `gate` is 0? Far to the left? And if both inputs become 10 times as large, far
to the right: how much larger is `y`? How much larger would a GELU's output be?
"""

import numpy as np

from ....ops.gelu import gelu
from ...exercise import normals

POINTS = 1
OUTPUTS = ("y",)
HINTS = {"y": "Three factors: one number, a switch between 0 and 1 that is made of it, and another number."}
FORMULA = "y = gate ⊙ sigmoid(gate) ⊙ up,  sigmoid(a) = 1 / (1 + exp(−a))"


def swiglu(gate, up):
    """gate (N, F), up (N, F) -> y (N, F)."""
    sigmoid = 1 / (1 + np.exp(-gate))  # (N, F), between 0 and 1
    return gate * sigmoid * up
    # 0, and nearly 0 far to the left. Far to the right y is gate · up: 100 times as large; a GELU's output is 10 times.


def draw(rng, size):
    return normals(rng, size, gate="N F", up="N F")


MISTAKES = {"y": [("GELU is in the place of gate · sigmoid(gate)", lambda i: gelu(i.gate) * i.up)]}
