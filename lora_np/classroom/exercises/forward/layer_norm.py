"""Layer norm.

At each position by itself: subtract the mean of the C numbers, divide by their standard deviation, then scale by `w`
and shift by `b`. The variance is a mean over C numbers (not C − 1). The small number `eps` is added to the variance, so
that there is something to divide by when all C are equal. (In the check `eps` is larger, so that its place shows.)

**Predict**, for `w` of ones and `b` of zeros: what comes out of a row (7, 7, 7, 7)? What changes if 5 is added to every
number of a row? If every number is multiplied by 1000, and `eps` is tiny? And which other positions change then?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("y",)
HINTS = {"y": "Take one row of C numbers. Which mean and which standard deviation must it have before w and b?"}
FORMULA = "x̂ = (x − mean) / √(variance + ε), along the last axis, the variance divided by C;  y = x̂ ⊙ w + b"


def layer_norm(x, w, b, eps):
    """x (N, T, C), w (C,), b (C,), eps a number -> y (N, T, C)."""
    centred = x - x.mean(axis=-1, keepdims=True)  # (N, T, C)
    variance = np.mean(centred**2, axis=-1, keepdims=True)  # (N, T, 1)
    x_hat = centred / np.sqrt(variance + eps)  # (N, T, C), mean 0 and, except for eps, standard deviation 1
    return x_hat * w + b
    # (7, 7, 7, 7) gives zeros, thanks to eps. 5 more: nothing changes. Times 1000: next to nothing. And nowhere else:
    # here no position knows of another.


def draw(rng, size):
    """Every position has a mean and a spread of its own, and eps is large enough for its place to show."""
    shape = (size.B, size.T, 1)
    x = rng.normal(size=(size.B, size.T, size.C)) * rng.uniform(0.5, 2.0, shape) + rng.normal(size=shape)
    eps = float(rng.uniform(0.1, 0.3))
    return {"x": x, "w": rng.normal(1.0, 0.5, size.C), "b": rng.normal(size=size.C), "eps": eps}


def by_one_less(i):
    variance = i.x.var(axis=-1, keepdims=True, ddof=1)
    return (i.x - i.x.mean(axis=-1, keepdims=True)) / np.sqrt(variance + i.eps) * i.w + i.b


MISTAKES = {
    "y": [
        ("the variance is divided by C − 1, not by C", by_one_less),
        ("1e-5 is added to the variance, not the eps that is given", lambda i: layer_norm(i.x, i.w, i.b, 1e-5)),
    ]
}
