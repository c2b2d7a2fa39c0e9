"""1. Warm-up: RMS norm (2 points).

Divide each row of `x` by its root mean square, then multiply by `w`. `eps` is added to the mean square, inside the
square root. No mean is subtracted, and there is no bias. (The check uses an unusually large `eps`, so that it can tell
where you add it.)

**Predict**, for a `w` of all ones: what is the output for a row (7, 7, 7, 7)? What changes if 5 is added to every entry
of a row, or if every entry is multiplied by 1000? In which of these cases would a layer norm behave differently?
"""

import numpy as np

HINTS = {"y": "What is the mean square of a normalised row, before it is multiplied by w?"}
FORMULA = "x̂ = x / √(mean(x²) + ε), along the last axis;  y = x̂ ⊙ w"


def rms_norm(x, w, eps):
    """x (N, C), w (C,), eps a float -> y (N, C)."""
    mean_square = np.mean(x**2, axis=-1, keepdims=True)  # (N, 1)
    x_hat = x / np.sqrt(mean_square + eps)  # (N, C)
    return x_hat * w
    # (7, 7, 7, 7) gives ones; a layer norm gives zeros. Adding 5 changes the result for any row with unequal entries;
    # for a layer norm it changes nothing. Multiplying by 1000 changes nothing for either, except through eps.


def draw(rng, size):
    """Draw rows with different means and scales."""
    x = rng.normal(size=(size.N, size.C)) * rng.uniform(0.5, 2.0, (size.N, 1)) + rng.normal(size=(size.N, 1))
    return {"x": x, "w": rng.normal(1.0, 0.5, size.C), "eps": float(rng.uniform(0.1, 0.3))}


MISTAKES = {
    "the mean is subtracted, as in a layer norm": lambda i: i.solve(x=i.x - i.x.mean(axis=-1, keepdims=True)),
    "1e-5 is added to the mean square, not the given eps": lambda i: i.solve(eps=1e-5),
    "the variance is used, not the mean square": ("np.mean(x**2, axis=-1", "np.var(x, axis=-1"),
}
