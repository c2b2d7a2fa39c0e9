"""4. RoPE, backward (3 points).

In the forward pass, point (a, b) = (`x[…, j]`, `x[…, j + D/2]`) is rotated by the angle φ to (a cos φ − b sin φ, b cos
φ + a sin φ). `cos` and `sin` hold cos φ and sin φ for each position and each j. Compute the gradient of `x`.

**Derive it** for one point: which factor multiplies `a` in each coordinate of the result, and which multiplies `b`?
Then describe in words what your formula does to the points of `dy`.
"""

import numpy as np

from .rotate import of_neighbours

HINTS = {"dx": "a occurs in both coordinates of the rotated point. With what factor in each?"}
FORMULA = "da = da′ cos φ + db′ sin φ,  db = db′ cos φ − da′ sin φ: a rotation by −φ"


def rotate_backward(dy, cos, sin):
    """dy (N, T, D), cos (T, D/2), sin (T, D/2) -> dx (N, T, D)."""
    half = cos.shape[-1]
    first, second = dy[..., :half], dy[..., half:]  # (N, T, D/2) each
    # forward: first = a cos φ − b sin φ, second = b cos φ + a sin φ
    da = first * cos + second * sin
    db = second * cos - first * sin
    return np.concatenate([da, db], axis=-1)  # (N, T, D)
    # The points of dy are rotated by the same angles, in the opposite direction.


def draw(rng, size):
    angles = rng.uniform(0.0, 2 * np.pi, (size.T, size.D + 14))
    dy = rng.normal(size=(size.B, size.T, 2 * angles.shape[1]))
    return {"dy": dy, "cos": np.cos(angles), "sin": np.sin(angles)}


MISTAKES = {
    "dy is rotated in the forward direction": lambda i: i.solve(sin=-i.sin),
    "entries 2j and 2j + 1 are paired, not j and j + D/2": lambda i: of_neighbours(lambda dy: i.solve(dy=dy), i.dy),
    "the angles are in the order 0 0 1 1 …, not 0 1 … 0 1 …": (
        "np.concatenate([da, db], axis=-1)",
        "dy * cos.repeat(2, 1) + np.concatenate([second, -first], -1) * sin.repeat(2, 1)",
    ),
}
