"""3. RoPE (3 points).

The `D` entries of a query or a key are treated as `D/2` points in the plane: point `j` has the coordinates `x[…, j]`
and `x[…, j + D/2]`, for j = 0 … D/2 − 1. At position `t` (one of `positions`), point `j` is rotated by the angle
`t · theta^(−2j/D)`, anticlockwise.

**On paper first:** where does a rotation by an angle φ take the points (1, 0) and (0, 1)? So where does the rotation
take (a, b)? **Predict:** what happens at position 0? Does the length of a query change?
"""

import numpy as np

HINTS = {"y": "Which two entries of x are the coordinates of point j? Where does a rotation take the point (a, b)?"}
FORMULA = """φ_tj = t · theta^(−2j/D),  a = x[…, j],  b = x[…, j + D/2]
y[…, j] = a cos φ − b sin φ,  y[…, j + D/2] = b cos φ + a sin φ"""


def rotate(x, positions, theta):
    """x (N, T, D), positions (T,) ints, theta a float -> y (N, T, D)."""
    half = x.shape[-1] // 2
    speeds = theta ** (-np.arange(half) / half)  # (D/2,), angle per position
    angles = positions[:, None] * speeds  # (T, D/2)
    a, b = x[..., :half], x[..., half:]  # (N, T, D/2) each
    first = a * np.cos(angles) - b * np.sin(angles)
    second = b * np.cos(angles) + a * np.sin(angles)
    return np.concatenate([first, second], axis=-1)  # (N, T, D)
    # (1, 0) becomes (cos φ, sin φ), and (0, 1) becomes (−sin φ, cos φ). At position 0 nothing is rotated. Lengths do
    # not change.


def draw(rng, size):
    """Draw positions that do not begin at 0, and an x for which D/2 exceeds all other dimensions."""
    x = rng.normal(size=(size.B, size.T, 2 * (size.D + 14)))
    return {"x": x, "positions": int(rng.integers(3, 20)) + np.arange(size.T), "theta": float(rng.uniform(10, 50))}


def of_neighbours(turn, x):
    """Apply `turn` as if the coordinates of point j were entries 2j and 2j + 1, not entries j and j + D/2."""
    apart = np.concatenate([x[..., ::2], x[..., 1::2]], axis=-1)
    return turn(apart).reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)


MISTAKES = {
    "entries 2j and 2j + 1 are paired, not j and j + D/2": lambda i: of_neighbours(lambda x: i.solve(x=x), i.x),
    "the positions begin at 0, not at the first one given": lambda i: i.solve(positions=i.positions - i.positions[0]),
    "the exponent is −j/D instead of −2j/D": lambda i: i.solve(theta=i.theta**0.5),
    "it is rotated clockwise": lambda i: i.solve(positions=-i.positions),
    "the angles are in the order 0 0 1 1 …, not 0 1 … 0 1 …": (
        "np.concatenate([first, second], axis=-1)",
        "x * np.cos(angles).repeat(2, 1) + np.concatenate([-b, a], -1) * np.sin(angles).repeat(2, 1)",
    ),
}
