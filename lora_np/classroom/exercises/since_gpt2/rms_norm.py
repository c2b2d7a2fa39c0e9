"""Warm-up: RMS norm.

Divide each row of `x` by the root of the mean of its squares, then multiply by `w`. `eps` is added to that mean, under
the root. No mean is subtracted, and there is no bias. (In the check `eps` is not tiny, so that its place shows.)

**Predict**, for `w` of ones: what becomes of a row (7, 7, 7, 7)? What changes if 5 is added to every number of a row?
If every number is multiplied by 1000? Where would a layer norm answer differently?
"""

import numpy as np

POINTS = 2
OUTPUTS = ("y",)
HINTS = {"y": "Take one row. What is the mean of its squares, before w, once it is normalised?"}
FORMULA = "x̂ = x / √(mean(x²) + ε), along the last axis;  y = x̂ ⊙ w"


def rms_norm(x, w, eps):
    """x (N, C), w (C,), eps a number -> y (N, C)."""
    mean_square = np.mean(x**2, axis=-1, keepdims=True)  # (N, 1)
    x_hat = x / np.sqrt(mean_square + eps)  # (N, C)
    return x_hat * w
    # (7, 7, 7, 7) gives ones; of a layer norm, zeros. 5 more changes any other row; for a layer norm, nothing.
    # Times 1000 changes nothing for either, except through eps.


def draw(rng, size):
    """Every row has a mean and a size of its own."""
    x = rng.normal(size=(size.N, size.C)) * rng.uniform(0.5, 2.0, (size.N, 1)) + rng.normal(size=(size.N, 1))
    return {"x": x, "w": rng.normal(1.0, 0.5, size.C), "eps": float(rng.uniform(0.1, 0.3))}


MISTAKES = {
    "y": [
        (
            "the mean is taken off, as in a layer norm",
            lambda i: rms_norm(i.x - i.x.mean(-1, keepdims=True), i.w, i.eps),
        ),
        ("1e-5 is added to the mean square, not the eps that is given", lambda i: rms_norm(i.x, i.w, 1e-5)),
    ]
}
