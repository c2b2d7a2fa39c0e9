"""2. RMS norm, backward (4 points).

    x̂ = x · inv_rms        inv_rms = 1 / √(mean(x²) + ε)        y = x̂ ⊙ w

The forward pass has stored `x_hat` and `inv_rms`. Begin at the end: `dw` and dx̂ are easy. Then go from dx̂ to `dx`:
`x_i` affects its row of x̂ in two ways: directly, and through `inv_rms`. Derive both terms, and add them.

**Predict first:** if you multiply a row of `x` by 1.01, what happens to `y`, for a tiny ε? So what must the dot product
of each row of `dx` with the same row of `x` be? Check this dot product for your own `dx`.
"""

import numpy as np

HINTS = {
    "dx": "x_i affects its row of x̂ in two ways: directly, and through inv_rms. What does each contribute?",
    "dw": "w_c multiplies column c of x̂, in every row.",
}
FORMULA = "dw = Σ_n dy ⊙ x̂,  dx̂ = dy ⊙ w\ndx = inv_rms (dx̂ − x̂ ⊙ mean(dx̂ ⊙ x̂)), the mean along each row"


def rms_norm_backward(dy, x_hat, inv_rms, w):
    """dy (N, C), x_hat (N, C), inv_rms (N, 1), w (C,) -> dx (N, C), dw (C,)."""
    # y = x̂ ⊙ w
    dw = np.sum(dy * x_hat, axis=0)  # (C,)
    dx_hat = dy * w  # (N, C)
    # x̂ = x · inv_rms. x_i affects the loss in two ways, and both terms have the factor inv_rms, omitted here:
    #   directly           ∂x̂_i/∂x_i = inv_rms, which gives dx̂_i
    #   through inv_rms    ∂inv_rms/∂x_i = −inv_rms³ x_i / C = −inv_rms² x̂_i / C, and x̂_j = x_j · inv_rms,
    #                      which give −x̂_i Σ_j dx̂_j x̂_j / C
    along = np.mean(dx_hat * x_hat, axis=-1, keepdims=True)  # (N, 1)
    dx = inv_rms * (dx_hat - x_hat * along)  # (N, C)
    # Scaling x does not change y, so dx is orthogonal to x: the dot product is 0, except for the effect of ε.
    return dx, dw


def draw(rng, size):
    x = rng.normal(size=(size.N, size.C)) * rng.uniform(0.5, 2.0, (size.N, 1)) + rng.normal(size=(size.N, 1))
    inv_rms = 1 / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 0.05)
    dy, w = rng.normal(size=x.shape), rng.normal(1.0, 0.5, size.C)
    return {"dy": dy, "x_hat": x * inv_rms, "inv_rms": inv_rms, "w": w}


MISTAKES = {
    "the mean of dx̂ is subtracted, as in layer norm": ("(dx_hat - x_hat", "(dx_hat - dx_hat.mean(1)[:, None] - x_hat"),
    "w is missing inside the mean": lambda i: i.w * i.solve(w=np.ones_like(i.w))[0],
}
