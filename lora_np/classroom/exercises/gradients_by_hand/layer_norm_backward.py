"""6. Layer norm (6 points).

The hard one. Each row of C entries is centred, divided by its standard deviation, and then scaled and shifted:

    x̂ = (x − mean) · inv_std        inv_std = 1 / σ = 1 / √(variance + ε)        y = x̂ ⊙ w + b

`mean` and `variance` are computed over the row's C entries (the variance divides by C, not by C − 1). Begin at the end:
`dw`, `db`, and the gradient dx̂ with respect to x̂ are easy. The hard part is `dx`: `x_i` affects its row of x̂ in
**three ways**: directly, through the mean, and through the variance. Derive each term, and add them up. The forward
pass has stored `x_hat` and `inv_std`. You need neither `x` nor ε.

**Predict first:** if you add a constant to a row of `x`, what happens to `y`? If you multiply a row's deviations from
its mean by a factor, what happens to `y`, for a tiny ε? So to which two vectors must each row of `dx` be (nearly)
orthogonal? Check your prediction.
"""

import numpy as np

HINTS = {
    "dx": "x_i affects its row of x̂ in three ways: directly, through the mean, through the variance. Add them up.",
    "dw": "w_c multiplies column c of x̂, in every row.",
    "db": "b_c is added to column c, in every row.",
}
FORMULA = """db = Σ_n dy,  dw = Σ_n dy ⊙ x̂,  dx̂ = dy ⊙ w
dx = (dx̂ − mean(dx̂) − x̂ ⊙ mean(dx̂ ⊙ x̂)) · inv_std, the means along each row"""


def layer_norm_backward(dy, x_hat, inv_std, w):
    """dy (N, C), x_hat (N, C), inv_std (N, 1), w (C,) -> dx (N, C), dw (C,), db (C,)."""
    # y = x̂ ⊙ w + b
    db = dy.sum(axis=0)  # (C,): b is added in every row
    dw = np.sum(dy * x_hat, axis=0)  # (C,)
    dx_hat = dy * w  # (N, C)
    # x̂ = (x − mean) · inv_std. All three terms have the factor inv_std, omitted here:
    #   directly              ∂x̂_i/∂x_i = inv_std, which gives dx̂_i
    #   through the mean      x_i moves the mean by 1/C, and the mean moves every x̂_j down: −Σ_j dx̂_j / C
    #   through the variance  ∂variance/∂x_i = 2 (x_i − mean) / C, ∂inv_std/∂variance = −½ inv_std³, and x̂_j is
    #                         (x_j − mean) times inv_std: together −x̂_i Σ_j dx̂_j x̂_j / C
    # (The variance also depends on the mean. This adds nothing, because Σ_j (x_j − mean) = 0.)
    through_mean = dx_hat.mean(axis=-1, keepdims=True)  # (N, 1)
    through_variance = x_hat * np.mean(dx_hat * x_hat, axis=-1, keepdims=True)  # (N, C)
    dx = (dx_hat - through_mean - through_variance) * inv_std  # (N, C)
    # Each row of dx is orthogonal to ones and, except for ε, to x̂: shifting or stretching a row does not change x̂.
    return dx, dw, db


def draw(rng, size):
    x = rng.normal(size=(size.N, size.C)) * rng.uniform(0.5, 2.0, (size.N, 1)) + rng.normal(size=(size.N, 1))
    centred = x - x.mean(axis=-1, keepdims=True)
    inv_std = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    dy, w = rng.normal(size=x.shape), rng.normal(1.0, 0.5, size.C)
    return {"dy": dy, "x_hat": centred * inv_std, "inv_std": inv_std, "w": w}


MISTAKES = {
    "w is missing inside the two means": lambda i: i.w * i.solve(w=np.ones_like(i.w))[0],
    "the variance term has inv_std³, but x̂ already contains it twice": ("_hat * np.m", "_hat * inv_std**2 * np.m"),
    "the variance term divides by C − 1 instead of C": ("x_hat * np.mean(", "len(w) / (len(w) - 1) * x_hat * np.mean("),
}
