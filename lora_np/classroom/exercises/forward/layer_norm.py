"""2. Layer norm (3 points).

At each position separately, subtract the mean of the C entries, divide by their standard deviation, then scale by `w`
and shift by `b`. The variance is a mean over C entries (divide by C, not by C − 1). The small number `eps` is added to
the variance to avoid dividing by zero when all C entries are equal. (The check uses a larger `eps` than usual, to
detect where you add it.)

**Predict**, for `w` of ones and `b` of zeros: what is the output for a row (7, 7, 7, 7)? What changes if 5 is added to
every entry of a row? What if every entry is multiplied by 1000, and `eps` is tiny? Do other positions change then?
"""

import numpy as np

HINTS = {"y": "Take one row of C entries. Which mean and standard deviation must it have before w and b are applied?"}
FORMULA = "x̂ = (x − mean) / √(variance + ε), along the last axis, the variance divided by C;  y = x̂ ⊙ w + b"


def layer_norm(x, w, b, eps):
    """x (N, T, C), w (C,), b (C,), eps a float -> y (N, T, C)."""
    centred = x - x.mean(axis=-1, keepdims=True)  # (N, T, C)
    variance = np.mean(centred**2, axis=-1, keepdims=True)  # (N, T, 1)
    x_hat = centred / np.sqrt(variance + eps)  # (N, T, C), mean 0 and, except for eps, standard deviation 1
    return x_hat * w + b
    # (7, 7, 7, 7) gives zeros, thanks to eps. Adding 5 changes nothing, and multiplying by 1000 changes almost nothing.
    # No other position changes: each is normalised separately.


def draw(rng, size):
    """Draw positions with different means and spreads, and an eps that is large enough to show where it is added."""
    shape = (size.B, size.T, 1)
    x = rng.normal(size=(size.B, size.T, size.C)) * rng.uniform(0.5, 2.0, shape) + rng.normal(size=shape)
    eps = float(rng.uniform(0.1, 0.3))
    return {"x": x, "w": rng.normal(1.0, 0.5, size.C), "b": rng.normal(size=size.C), "eps": eps}


MISTAKES = {
    "the variance is divided by C − 1, not by C": ("np.mean(c", "len(w) / (len(w) - 1) * np.mean(c"),
    "1e-5 is added to the variance, not the given eps": lambda i: i.solve(eps=1e-5),
}
