"""Does it amplify?

Does an update do what `W` does already, or something that `W` hardly does? Take the r leading directions of ΔW on both
sides, `U` (out, r) and `V` (in, r). How much of **W** is between them: what does `W` make of inputs along `V`, as far
as it comes out along `U`? Hu et al.'s **factor** says how many times larger the whole of ΔW is, both in Frobenius norm.
(The argument `update` is ΔW. `dW` would be a gradient.)

**Predict** for W = diag(9, 4, 1): what is the factor of ΔW = W/2 at r = 1? Then ΔW becomes ten times as large: what
happens to the factor, and does ΔW work in other directions now? And the control: a *random* ΔW of the same norm. Is its
factor smaller than that of a trained one, or larger?
"""

import numpy as np

POINTS = 3
OUTPUTS = ("factor",)
HINTS = {"factor": "Two lengths: that of the whole ΔW, and that of W as seen from ΔW's r directions on both sides."}
FORMULA = "factor = ‖ΔW‖_F / ‖Uᵀ W V‖_F,  U (out, r) and V (in, r) the leading singular vectors of ΔW"


def amplification(W, update, r):
    """W (out, in), update (out, in), r a whole number up to the rank of update -> factor, a number."""
    U, _, Vt = np.linalg.svd(update, full_matrices=False)
    between = U[:, :r].T @ W @ Vt[:r].T  # (r, out) (out, in) (in, r) -> (r, r): columns of U, rows of Vᵀ
    return np.linalg.norm(update) / np.linalg.norm(between)
    # W/2: its leading direction is W's, where W has 9, and ‖W/2‖ is √98 / 2: 0.55. Ten times the update, ten times the
    # factor, in the same directions: it measures size as much as direction. A random update looks where W has little, r
    # ‖W‖ / √(out · in) on average, so its factor is mostly *larger*. A large factor alone proves nothing.


def draw(rng, size):
    """An update of one direction more than is asked for: what the cut leaves out counts in ‖ΔW‖."""
    n_out, n_in, r = 2 * size.n_out, 2 * size.n_in, size.r + size.number
    update = rng.normal(size=(n_out, r + 1)) @ rng.normal(size=(r + 1, n_in)) / 2
    return {"W": rng.normal(size=(n_out, n_in)), "update": update, "r": r}


def between(i):
    U, _, Vt = np.linalg.svd(i.update, full_matrices=False)
    return U[:, : i.r].T @ i.W @ Vt[: i.r].T


MISTAKES = {
    "factor": [
        (
            "ΔW in the numerator is cut to r directions as well",
            lambda i: np.linalg.norm(np.linalg.svd(i.update)[1][: i.r]) / np.linalg.norm(between(i)),
        ),
        (
            "only the diagonal of Uᵀ W V is counted, but its other numbers belong to W as well",
            lambda i: np.linalg.norm(i.update) / np.linalg.norm(np.diag(between(i))),
        ),
        (
            "W is seen only from the output's side, Uᵀ W",
            lambda i: np.linalg.norm(i.update) / np.linalg.norm(np.linalg.svd(i.update)[0][:, : i.r].T @ i.W),
        ),
    ]
}
