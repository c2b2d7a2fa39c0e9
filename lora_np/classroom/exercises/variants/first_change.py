"""The first step.

Now derive what lesson 13 measured. `A` is random, `B` is zero, and training makes one step. `A` stays where it is
(why?). `B` moves:

- with **gradient descent** by `−lr` times its gradient,
- with **AdamW** by exactly `lr` in each number, against the sign of its gradient: the very first step is as long for a
  small gradient as for a large one.

Give the change of the layer's output, `z = s u Bᵀ` with `u = x Aᵀ`, for each.

**On paper first:** what is dB at `B` = 0? Put the new `B` into `z`, and count: how often is `s` in it? With gradient
descent the result is an (N, N) matrix times `dy`. Which one? So when does a step that row 5 asked for move row 7 as
well? **Then predict:** `A` gets four times as many rows of the same kind. How does `z` grow, for each of the two, if
`s` stays? Which scale makes up for that?
"""

import numpy as np

from ...exercise import normals

POINTS = 4
OUTPUTS = ("by_descent", "by_adamw")
HINTS = {
    "by_descent": "What is dB at B = 0, and so B after the step? What is z then? Count the s's.",
    "by_adamw": "After the step B holds only +lr and −lr. Which of them is where? And what is z then?",
}
FORMULA = """u = x Aᵀ,  dB = s dyᵀ u
by_descent: B = −lr dB, so z = s u Bᵀ = −lr s² (u uᵀ) dy
by_adamw: B = −lr sign(dB), so z = −lr s u sign(dB)ᵀ"""


def first_change(x, dy, A, s, lr):
    """x (N, in), dy (N, out), A (r, in), s and lr numbers -> by_descent (N, out), by_adamw (N, out)."""
    # A does not move, because dA = (s dy B)ᵀ x = 0.
    u = x @ A.T  # (N, r)
    dB = s * dy.T @ u  # (out, r)
    by_descent = s * u @ (-lr * dB).T  # (N, out)
    by_adamw = s * u @ (-lr * np.sign(dB)).T  # (N, out)
    return by_descent, by_adamw
    # by_descent = −lr s² (u uᵀ) dy: row 5 moves row 7 by the product u₅ · u₇, so if A reads similar things in both.
    # Each entry of u uᵀ is a sum over the rows of A. With four times as many rows it is, on average, four times as
    # large; s² ∝ 1/r makes up for that, so s = α/√r. With AdamW z is a sum over the rows of A as well, and B's signs
    # make its terms add up: nearly four times as large again. But s is in it once: s = α/r.


def draw(rng, size):
    drawn = normals(rng, size, x="N n_in", dy="N n_out", A="r n_in")
    return drawn | {"s": size.alpha / size.r, "lr": float(rng.uniform(0.02, 0.2))}


def alone(i):
    return -i.lr * i.s**2 * np.sum((i.x @ i.A.T) ** 2, axis=1, keepdims=True) * i.dy


MISTAKES = {
    "by_descent": [("each row has only its own part: a step is the sum over all rows, and moves all of them", alone)],
    "by_adamw": [
        ("the sign is taken of dy, not of dB", lambda i: first_change(i.x, np.sign(i.dy), i.A, i.s, i.lr)[0]),
        (
            "the gradient is divided by its length: AdamW divides each number by its own size",
            lambda i: i.right["by_descent"] / np.linalg.norm(i.s * i.dy.T @ (i.x @ i.A.T)),
        ),
    ],
}
