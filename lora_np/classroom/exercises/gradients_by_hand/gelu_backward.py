"""3. GELU (3 points).

For each entry, a smooth gate `g` between 0 and 1 decides how much of `x` passes through:

    y = x · g        g = ½ (1 + tanh u)        u = √(2/π) (x + 0.044715 x³)

**Derive** dy/dx: use the product rule, and apply the chain rule twice to differentiate `g`. The derivative of tanh is
1 − tanh². **Predict first**, from a sketch of `y`: what is the slope far to the left, far to the right, and at x = 0?
Can the slope exceed 1? Then check in your head whether your formula gives the predicted slope at x = 0.

(In the function below, `dy` is the upstream gradient, not the dy of dy/dx.)
"""

import math

import numpy as np

HINTS = {"dx": "y is a product of two factors. Both depend on x, the second through two nested functions."}
FORMULA = """g = ½ (1 + tanh u),  u = √(2/π) (x + 0.044715 x³)
dx = dy ⊙ (g + x · ½ (1 − tanh² u) · u′),  u′ = √(2/π) (1 + 3 · 0.044715 x²)"""


def gelu_backward(dy, x):
    """dy (N, F), x (N, F) -> dx (N, F)."""
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))  # (N, F)
    gate = 0.5 * (1 + t)  # (N, F)
    slope_of_u = c * (1 + 3 * 0.044715 * x**2)  # (N, F)
    slope_of_gate = 0.5 * (1 - t**2) * slope_of_u  # (N, F)
    # The slope is 0 far to the left, 1 far to the right, and ½ at x = 0, where t = 0. It reaches 1.13 near x = 1.4.
    return dy * (gate + x * slope_of_gate)  # product rule: 1 · g + x · g′


def draw(rng, size):
    return {"dy": rng.normal(size=(size.N, size.F)), "x": 1.5 * rng.normal(size=(size.N, size.F))}


def slope_of_erf(x):
    """Return the slope of the exact GELU, which uses erf; the tanh form's slope differs in the fourth digit."""
    return 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5)) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


MISTAKES = {
    "this is ReLU's gradient": lambda i: i.dy * (i.x > 0),
    "this is the slope of the exact GELU, which uses erf instead of tanh": lambda i: i.dy * slope_of_erf(i.x),
    "only the gate is differentiated, but x is a factor, too": ("gate + x * slope", "slope"),
    "tanh is differentiated at x, not at u": ("1 - t**2", "1 - np.tanh(x) ** 2"),
}
