"""5. Warm-up: SwiGLU (1 point).

`gate` and `up` are the outputs of two linear layers with the same input. The activation `y` is the elementwise product
of three factors: `gate`, its sigmoid 1 / (1 + exp(−gate)), and `up`.

**Predict:** what is `y` where `gate` is 0, and where it is very negative? If `gate` is large and both `gate` and
`up` are multiplied by 10, by what factor does `y` grow? By what factor would the output of a GELU grow?
"""

import numpy as np

from ....ops.gelu import gelu

HINTS = {"y": "There are three factors: gate, its sigmoid between 0 and 1, and up."}
FORMULA = "y = gate ⊙ sigmoid(gate) ⊙ up,  sigmoid(a) = 1 / (1 + exp(−a))"


def swiglu(gate, up):
    """gate (N, F), up (N, F) -> y (N, F)."""
    sigmoid = 1 / (1 + np.exp(-gate))  # (N, F), between 0 and 1
    return gate * sigmoid * up
    # y is 0 where gate is 0, and nearly 0 where gate is very negative. For a large gate, y is nearly gate · up, so it
    # becomes 100 times as large; a GELU's output becomes 10 times as large.


def draw(rng, size):
    return size.normals(rng, gate="N F", up="N F")


MISTAKES = {"GELU is used instead of gate · sigmoid(gate)": lambda i: gelu(i.gate) * i.up}
