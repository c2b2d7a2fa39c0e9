"""2. The first step (4 points).

Now derive what lesson 13 measured. `A` is random, `B` is zero, and training takes one step. `A` does not move (why?).
`B` moves as follows:

- with **gradient descent** by `−lr` times its gradient,
- with **AdamW** by exactly `lr` in each entry, against the sign of its gradient: the first step has the same size for
  small and large gradients.

For each optimiser, compute the change in the layer's output, `z = s u Bᵀ` with `u = x Aᵀ`.

**On paper first:** what is dB at `B` = 0? Substitute the new `B` into `z`, and count the factors of `s`. With gradient
descent the result is an (N, N) matrix times `dy`. Which matrix? So when does the gradient of row 5 also change the
output of row 7? **Then predict:** suppose that `A` has four times as many rows, drawn in the same way. By what factor
does `z` grow, for each optimiser, if `s` does not change? Which scale compensates for this?
"""

import numpy as np

HINTS = {
    "by_descent": "What is dB at B = 0, and what is B after the step? What is z then? Count the factors of s.",
    "by_adamw": "After the step, each entry of B is +lr or −lr. Which entries have which sign? What is z then?",
}
FORMULA = """u = x Aᵀ,  dB = s dyᵀ u
by_descent: B = −lr dB, so z = s u Bᵀ = −lr s² (u uᵀ) dy
by_adamw: B = −lr sign(dB), so z = −lr s u sign(dB)ᵀ"""


def first_change(x, dy, A, s, lr):
    """x (N, in), dy (N, out), A (r, in), s and lr floats -> by_descent (N, out), by_adamw (N, out)."""
    # A does not move, because dA = (s dy B)ᵀ x = 0.
    u = x @ A.T  # (N, r)
    dB = s * dy.T @ u  # (out, r)
    by_descent = s * u @ (-lr * dB).T  # (N, out)
    by_adamw = s * u @ (-lr * np.sign(dB)).T  # (N, out)
    return by_descent, by_adamw
    # by_descent = −lr s² (u uᵀ) dy: row 5 changes row 7 in proportion to u₅ · u₇, which is large if A maps both to
    # similar vectors. Each entry of u uᵀ is a sum over the rows of A. With four times as many rows, this sum is four
    # times as large on average. s² ∝ 1/r compensates for this, so s = α/√r. With AdamW, z is also a sum over the rows
    # of A, and because of B's signs, its terms do not cancel: z is nearly four times as large. It has only one factor
    # of s, so s must be proportional to 1/r: s = α/r.


def draw(rng, size):
    drawn = size.normals(rng, x="N n_in", dy="N n_out", A="r n_in")
    return drawn | {"s": size.s, "lr": float(rng.uniform(0.02, 0.2))}


MISTAKES = {
    "each row has only its own contribution, but a step adds up those of all rows": lambda i: (
        -i.lr * i.s**2 * np.sum((i.x @ i.A.T) ** 2, axis=1, keepdims=True) * i.dy
    ),
    "the sign of dy is used, not that of dB": lambda i: i.solve(dy=np.sign(i.dy))[0],
    "the gradient is divided by its norm, but AdamW divides each entry by its own magnitude": lambda i: (
        i.right["by_descent"] / np.linalg.norm(i.s * i.dy.T @ (i.x @ i.A.T))
    ),
    "this is the sign of the output's change, but AdamW takes that of each entry of dB": (
        "by_adamw = s * u @ (-lr * np.sign(dB)).T",
        "by_adamw = lr * np.sign(by_descent)",
    ),
}
