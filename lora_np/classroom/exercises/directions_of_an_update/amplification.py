"""4. Does it amplify? (3 points).

Does an update amplify what `W` already does, or does it add something that `W` hardly does? Take the r leading
directions of ΔW on both sides, `U` (out, r) and `V` (in, r). `Uᵀ W V` is the part of **W** that connects `V` to `U`: it
maps inputs along `V` to outputs along `U`. Hu et al.'s **amplification factor** is the ratio of the Frobenius norm of
ΔW to that of this part. (ΔW is the argument `update`; the name `dW` would mean a gradient.)

**Predict** for W = diag(9, 4, 1): what is the factor of ΔW = W/2 at r = 1? If ΔW becomes ten times as large, what
happens to the amplification factor, and do ΔW's directions change? Now the control: does a *random* ΔW of the same norm
have a smaller or a larger factor than a trained one?
"""

import numpy as np

HINTS = {"factor": "You need two norms: that of ΔW, and that of W projected onto ΔW's r directions on both sides."}
FORMULA = "factor = ‖ΔW‖_F / ‖Uᵀ W V‖_F,  U (out, r) and V (in, r) the leading singular vectors of ΔW"


def amplification(W, update, r):
    """W (out, in), update (out, in), r an int up to the rank of update -> factor, a float."""
    U, _, Vt = np.linalg.svd(update, full_matrices=False)
    between = U[:, :r].T @ W @ Vt[:r].T  # (r, out) (out, in) (in, r) -> (r, r): columns of U, rows of Vᵀ
    return np.linalg.norm(update) / np.linalg.norm(between)
    # For ΔW = W/2 the leading direction is that of W, whose singular value there is 9, and ‖W/2‖ is √98 / 2, so the
    # factor is 0.55. A ten times larger update has a ten times larger factor, in the same directions: the factor
    # measures size as much as direction. Between random directions, W's norm is only about r ‖W‖ / √(out · in), so a
    # random update's factor is usually *larger*. A large factor by itself proves nothing.


def draw(rng, size):
    """Draw an update of rank r + 1, so that ‖ΔW‖ also includes a direction that `U` and `V` omit."""
    n_out, n_in, r = 2 * size.n_out, 2 * size.n_in, size.r + size.number
    update = rng.normal(size=(n_out, r + 1)) @ rng.normal(size=(r + 1, n_in)) / 2
    return {"W": rng.normal(size=(n_out, n_in)), "update": update, "r": r}


MISTAKES = {
    "ΔW in the numerator is truncated to r directions as well": ("norm(update)", "norm(U[:, :r].T @ update)"),
    "only the diagonal of Uᵀ W V is used, but all its entries count": ("norm(between)", "norm(np.diag(between))"),
    "W is projected on the output side only, Uᵀ W": ("W @ Vt[:r].T", "W"),
}
